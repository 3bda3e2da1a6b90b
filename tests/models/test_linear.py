import torch

from unlearn.models.linear import LinearModel


def test_it_is_one_affine_map_of_the_flattened_input() -> None:
    module = LinearModel("linear", None).build(torch.Size((3, 2, 2)), 5, seed=0)
    weight, bias = module.parameters()
    inputs = torch.randn(4, 3, 2, 2)
    assert weight.shape == (5, 12)
    assert bias.shape == (5,)
    torch.testing.assert_close(module(inputs), inputs.flatten(1) @ weight.T + bias)


def test_the_loss_is_convex(float64_gradient, hessian_vector) -> None:
    oracle = float64_gradient(LinearModel("linear", None).build(torch.Size((2,)), 3, seed=0), (2,))
    hessian = torch.stack([hessian_vector(oracle, row) for row in torch.eye(9, dtype=torch.float64)])
    torch.testing.assert_close(hessian, hessian.T)
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12

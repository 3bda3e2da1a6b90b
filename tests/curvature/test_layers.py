"""Products through the replaced layers against torch's own second derivatives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from unlearn.curvature.layers import Economical
from unlearn.curvature.operator import Hessian
from unlearn.models.network import Network, clone


def product(loss: Callable[[Tensor], Tensor], weights: Tensor, vector: Tensor) -> Tensor:
    """Torch's own double backward."""
    point = weights.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    return torch.autograd.grad(gradient, point, vector)[0]


def assert_equal_products(module: nn.Module, inputs: Tensor, train: bool = True, keep: int | None = 0) -> None:
    device = inputs.device
    network = Network.of(module.double().to(device))
    generator = torch.Generator().manual_seed(0)
    buffers = network.initial_buffers()
    for name, buffer in buffers.items():  # running statistics other than those of no data
        if buffer.is_floating_point():
            buffers[name] = buffer + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype).to(device)
    weights = network.initial_weights() + 0.3
    labels = torch.arange(len(inputs), device=device) % 3

    def loss(flat: Tensor) -> Tensor:
        out = network.logits(flat, clone(buffers), inputs, train=train).flatten(1)
        return F.cross_entropy(out.tanh(), labels)

    operator = Hessian(weights, [(1.0, loss)], keep=keep)
    for seed in (1, 2):
        vector = torch.randn(len(weights), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        vector = vector.to(device)
        expected = product(loss, weights, vector)
        torch.testing.assert_close(operator.matvec(vector), expected, rtol=1e-9, atol=1e-11)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (0, 1), "dilation": 2},
        {"groups": 2, "bias": False},
        {"padding": "same"},
    ],
)
@pytest.mark.parametrize("keep", [0, None])
def test_two_convolutions(settings: dict[str, object], keep: int | None) -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, **settings), nn.Tanh(), nn.Conv2d(4, 6, 3, **settings))  # type: ignore[arg-type]
    assert_equal_products(module, images(4, 2, 9, 9), keep=keep)


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv1d, (4, 2, 7)), (nn.Conv3d, (4, 2, 5, 5, 5))])
def test_other_dimensions(kind: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    assert_equal_products(nn.Sequential(kind(2, 3, 3, padding=1), nn.Tanh(), kind(3, 2, 3)), images(*shape))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("inside", [nn.Tanh, nn.ReLU])
def test_batch_norm_between_convolutions(train: bool, inside: Callable[[], nn.Module]) -> None:
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        inside(),
        nn.Conv2d(4, 3, 2),
        nn.BatchNorm2d(3),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    assert_equal_products(module, images(6, 2, 7, 7), train)


@pytest.mark.gpu
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_on_cuda(train: bool, memory: torch.memory_format) -> None:
    # the first BatchNorm sees the inputs as they lie in memory; a convolution in float64 may turn them
    module = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 7))
    inputs = images(64, 8, 9, 9).cuda().to(memory_format=memory)
    assert_equal_products(module.to(memory_format=memory), inputs, train)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_of_inputs_and_vectors(train: bool) -> None:
    module = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    assert_equal_products(module, images(6, 5), train)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False), nn.InstanceNorm2d(3)]
)
def test_other_norms(norm: nn.Module) -> None:
    assert_equal_products(nn.Sequential(nn.Conv2d(2, 3, 3), norm, nn.Tanh(), nn.Conv2d(3, 2, 2)), images(4, 2, 6, 6))


def test_weights_that_are_no_views_of_the_point() -> None:
    # here the gradient of the kernel's values does matter
    assert_equal_products(nn.Sequential(weight_norm(nn.Conv2d(2, 3, 3)), nn.Tanh()), images(4, 2, 4, 4))


def test_values_nobody_should_read_are_nan_and_numbers_forward_are_the_same() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double()
    network, inputs = Network.of(module), images(4, 2, 4, 4)
    point = network.initial_weights().requires_grad_()
    buffers = network.initial_buffers()
    with Economical(point) as built:
        out = network.logits(point, buffers, inputs, train=True)
    torch.testing.assert_close(out, module(inputs), rtol=1e-12, atol=1e-14)
    # not to the bit: the bias of a convolution is added after it
    torch.testing.assert_close(buffers["1.running_var"], module.state_dict()["1.running_var"], rtol=1e-12, atol=0)
    pieces = built.leaves[1:]
    assert [len(piece) for piece in pieces] == network.layout.sizes
    lazy = torch.autograd.grad(out.square().sum(), pieces, create_graph=True)
    assert lazy[0].isnan().all()
    assert not lazy[2].isnan().any()
    with Economical(point) as built:
        out = network.logits(point, buffers, inputs, train=True)
    whole = torch.autograd.grad(out.square().sum(), built.leaves[1:])
    assert all(part.isfinite().all() for part in whole)


@pytest.mark.parametrize("keep", [0, None])
def test_a_loss_of_the_pieces_and_of_the_whole(keep: int | None) -> None:
    network, inputs = Network.of(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh()).double()), images(4, 2, 4, 4)
    generator = torch.Generator().manual_seed(5)
    weights, vector = torch.randn(2, network.layout.dim, generator=generator, dtype=torch.float64)

    def loss(flat: Tensor) -> Tensor:
        twice = (network.logits(flat, {}, part, train=True).sum() for part in inputs.split(2))
        return sum(twice, flat.new_zeros(())) * flat.square().sum() + flat[:5].pow(3).sum()

    found = Hessian(weights, [(1.0, loss)], keep=keep).matvec(vector)
    torch.testing.assert_close(found, product(loss, weights, vector), rtol=1e-9, atol=1e-11)


def test_one_value_a_channel_is_refused_as_torch_refuses_it():
    network = Network.of(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double())
    weights = network.initial_weights()

    def loss(flat: Tensor) -> Tensor:
        return network.logits(flat, network.initial_buffers(), images(1, 4), train=True).square().sum()

    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Hessian(weights, [(1.0, loss)]).matvec(weights)

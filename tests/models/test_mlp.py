import pytest
import torch
from torch import nn

from unlearn.models.mlp import MLP
from unlearn.values.errors import UserError


def test_parameter_count_is_the_closed_form() -> None:
    module = MLP("mlp", None, (64, 32), "relu").build(torch.Size((1, 8, 8)), 10, seed=0)
    assert sum(p.numel() for p in module.parameters()) == (64 * 64 + 64) + (64 * 32 + 32) + (32 * 10 + 10)


def test_an_image_and_its_pixels_give_the_same_logits() -> None:
    spec, images = MLP("mlp", None, (5,), "tanh"), torch.randn(3, 1, 4, 4)
    on_images = spec.build(torch.Size((1, 4, 4)), 2, seed=0)(images)
    on_pixels = spec.build(torch.Size((16,)), 2, seed=0)(images.flatten(1))
    assert torch.equal(on_images, on_pixels)


def test_activations_stand_between_the_layers_and_not_after_the_last() -> None:
    module = MLP("mlp", None, (3, 2), "gelu").build(torch.Size((4,)), 2, seed=0)
    kinds = [type(layer) for layer in module.children()]
    assert kinds == [nn.Flatten, nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_hessian_vector_product_is_the_slope_of_the_gradient(activation, float64_gradient, assert_smooth) -> None:
    module = MLP("mlp", None, (6, 5), activation).build(torch.Size((1, 3, 3)), 3, seed=0)
    assert_smooth(float64_gradient(module, (1, 3, 3)))


@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_widths_are_checked(widths: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"^model\.widths=.*at least 1$"):
        MLP("mlp", None, widths, "relu")


def test_activation_is_checked() -> None:
    with pytest.raises(UserError, match=r"^model\.activation=swish: choose one of relu, gelu, tanh$"):
        MLP("mlp", None, (4,), "swish")

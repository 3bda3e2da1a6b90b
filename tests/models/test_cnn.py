import pytest
import torch
from torch import nn

from unlearn.models.cnn import CNN
from unlearn.values.errors import UserError


@pytest.mark.parametrize(("norm", "per_channel"), [("none", 1), ("batch", 2), ("group", 2)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_parameter_count_is_the_closed_form(norm: str, per_channel: int, shape: tuple[int, ...]) -> None:
    module = CNN("cnn", None, (16, 32), "relu", norm).build(torch.Size(shape), 10, seed=0)
    channels, side = shape[0], shape[1] // 4
    blocks = (channels * 9 + per_channel) * 16 + (16 * 9 + per_channel) * 32
    assert sum(p.numel() for p in module.parameters()) == blocks + 32 * side * side * 10 + 10
    assert module(torch.randn(2, *shape)).shape == (2, 10)


def test_only_batch_norm_has_buffers() -> None:
    buffers = {
        norm: len(list(CNN("cnn", None, (4, 4), "relu", norm).build(torch.Size((1, 8, 8)), 2, seed=0).buffers()))
        for norm in ("none", "batch", "group")
    }
    assert buffers == {"none": 0, "batch": 2 * 3, "group": 0}


@pytest.mark.parametrize("width", [1, 6, 7, 16])
def test_groups_divide_every_width(width: int) -> None:
    module = CNN("cnn", None, (width,), "relu", "group").build(torch.Size((1, 4, 4)), 2, seed=0)
    groups = next(layer.num_groups for layer in module.modules() if isinstance(layer, nn.GroupNorm))
    assert width % groups == 0
    assert module(torch.randn(2, 1, 4, 4)).shape == (2, 2)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_hessian_vector_product_is_the_slope_of_the_gradient(
    activation: str, norm: str, float64_gradient, assert_smooth
) -> None:
    module = CNN("cnn", None, (4, 4), activation, norm).build(torch.Size((1, 8, 8)), 3, seed=0)
    assert_smooth(float64_gradient(module, (1, 8, 8)))


def test_uneven_sides_are_taken() -> None:
    module = CNN("cnn", None, (4, 4), "relu", "none").build(torch.Size((1, 9, 5)), 2, seed=0)
    assert module(torch.randn(2, 1, 9, 5)).shape == (2, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((20,), r"takes images .* has shape \(20,\)$"), ((1, 8, 3), r"at least 4x4 pixels, not 8x3$")],
)
def test_inputs_it_cannot_take(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=rf"^model=cnn: .*{message}"):
        CNN("cnn", None, (4, 4), "relu", "none").build(torch.Size(shape), 2, seed=0)


def test_norm_is_checked() -> None:
    with pytest.raises(UserError, match=r"^model\.norm=layer: choose one of none, batch, group$"):
        CNN("cnn", None, (4,), "relu", "layer")

import pytest
import torch

from unlearn.models.resnet import ResNet
from unlearn.values.errors import UserError


@pytest.mark.parametrize(("depth", "count"), [(18, 11_173_962), (50, 23_520_842)])
def test_parameter_count(depth: int, count: int) -> None:
    module = ResNet("resnet", None, depth).build(torch.Size((3, 32, 32)), 10, seed=0)
    assert sum(p.numel() for p in module.parameters()) == count


def test_the_stem_keeps_the_resolution_and_takes_the_channels_of_the_data() -> None:
    module = ResNet("resnet18", None, 18).build(torch.Size((1, 8, 8)), 10, seed=0)
    stem = module.maxpool(module.relu(module.bn1(module.conv1(torch.randn(2, 1, 8, 8)))))
    assert stem.shape == (2, 64, 8, 8)


def test_the_first_layer_is_drawn_as_the_others_are() -> None:
    weight = ResNet("resnet18", None, 18).build(torch.Size((3, 32, 32)), 10, seed=0).conv1.weight
    # kaiming, fan out: variance 2 / (64 channels times 3x3), here from 1,728 draws
    assert weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.15)


def test_hessian_vector_product_is_symmetric(float64_gradient, assert_symmetric) -> None:
    module = ResNet("resnet18", None, 18).build(torch.Size((1, 8, 8)), 3, seed=0)
    assert_symmetric(float64_gradient(module, (1, 8, 8), points=2))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((64,), r"takes images .* has shape \(64,\)$"), ((3, 7, 8), r"at least 8x8 pixels, not 7x8$")],
)
def test_inputs_it_cannot_take(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=rf"^model=resnet18: .*{message}"):
        ResNet("resnet18", None, 18).build(torch.Size(shape), 10, seed=0)


def test_depth_is_checked() -> None:
    with pytest.raises(UserError, match=r"^model\.depth=34: choose one of 18, 50$"):
        ResNet("resnet34", None, 34)

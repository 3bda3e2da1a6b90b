import pytest
import torch
from torch import nn

from unlearn.models.vgg import VGG
from unlearn.values.errors import UserError


def test_parameter_count() -> None:
    module = VGG("vgg19", None).build(torch.Size((3, 32, 32)), 10, seed=0)
    assert sum(p.numel() for p in module.parameters()) == 20_040_522
    layers = list(module.modules())
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 16
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 1


def test_pooling_changes_nothing_at_32_pixels() -> None:
    module = VGG("vgg19", None).build(torch.Size((1, 32, 32)), 4, seed=0).eval()
    inputs = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        features = module.features(inputs)
        assert features.shape == (1, 512, 1, 1)
        assert torch.equal(module(inputs), module.classifier(features.flatten(1)))


def test_hessian_vector_product_is_symmetric(float64_gradient, assert_symmetric) -> None:
    module = VGG("vgg19", None).build(torch.Size((1, 32, 32)), 3, seed=0)
    assert_symmetric(float64_gradient(module, (1, 32, 32), points=2))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((64,), r"takes images .* has shape \(64,\)$"), ((1, 8, 8), r"at least 32x32 pixels, not 8x8$")],
)
def test_inputs_it_cannot_take(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=rf"^model=vgg19: .*{message}"):
        VGG("vgg19", None).build(torch.Size(shape), 10, seed=0)

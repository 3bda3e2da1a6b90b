from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from unlearn.models.cnn import CNN
from unlearn.models.linear import LinearModel
from unlearn.models.mlp import MLP
from unlearn.models.resnet import ResNet
from unlearn.models.spec import ModelSpec
from unlearn.models.vgg import VGG
from unlearn.values.flat import Layout

CONF = Path(__file__).parents[2] / "conf" / "model"
SPECS = [
    MLP("mlp", None, (5,), "relu"),
    LinearModel("linear", None),
    CNN("cnn", None, (4,), "relu", "batch"),
    ResNet("resnet18", None, 18),
    VGG("vgg19", None),
]


def initial(spec: ModelSpec, seed: int) -> torch.Tensor:
    module = spec.build(torch.Size((1, 32, 32)), 3, seed)
    return Layout.of(module).flatten(dict(module.named_parameters()))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_initial_weights_are_a_function_of_the_seed_alone(spec: ModelSpec) -> None:
    torch.manual_seed(1)
    first, after = initial(spec, 0), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(2)
    assert torch.equal(initial(spec, 0), first)
    assert not torch.equal(initial(spec, 1), first)


@pytest.mark.parametrize("name", ["mlp", "linear", "cnn", "resnet18", "resnet50", "vgg19"])
def test_a_yaml_states_every_field_and_nothing_else(name: str) -> None:
    node = OmegaConf.load(CONF / f"{name}.yaml")
    assert set(node) == {"_target_", *(field.name for field in fields(get_class(node._target_)))}
    spec = instantiate(node)
    assert spec.name == name
    assert spec.weights is None


def test_given_weights_take_the_place_of_the_seeded_ones(tmp_path: Path) -> None:
    spec = LinearModel("linear", None)
    torch.save(spec.build(torch.Size((2,)), 2, seed=7).state_dict(), tmp_path / "w.pt")
    loaded = LinearModel("linear", str(tmp_path / "w.pt")).build(torch.Size((2,)), 2, seed=0)
    assert torch.equal(loaded[1].weight, spec.build(torch.Size((2,)), 2, seed=7)[1].weight)

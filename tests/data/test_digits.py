from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from unlearn.data.augmentation import Augmentation
from unlearn.data.digits import Digits
from unlearn.values.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "dataset" / "digits.yaml"


@pytest.fixture(scope="module")
def data():
    return Digits("digits", None, "none").load(0)


def test_holds_the_library_images_in_their_order(data):
    stored = load_digits()
    assert data.train.inputs.shape == (1440, 1, 8, 8)
    assert data.test.inputs.shape == (357, 1, 8, 8)
    both = torch.cat([data.train.inputs, data.test.inputs])
    assert both.dtype == torch.uint8
    assert both.max() == 16
    assert both[:, 0].tolist() == stored.images.tolist()
    assert torch.cat([data.train.labels, data.test.labels]).tolist() == stored.target.tolist()
    assert data.train.labels.dtype == torch.int64
    assert data.num_classes == 10
    assert data.train.labels.unique().tolist() == data.test.labels.unique().tolist() == list(range(10))


def test_training_inputs_have_mean_0_and_variance_1(data):
    assert data.train.mean.shape == data.train.std.shape == (1, 1, 1)
    assert data.train.mean.dtype == data.train.std.dtype == torch.float32
    inputs = data.train.batch(torch.arange(1440)).double()
    assert abs(inputs.mean()) < 1e-6
    assert abs(inputs.var(correction=0) - 1) < 1e-6


def test_a_subset_is_normalised_like_the_whole(data):
    some = Digits("digits", 100, "none").load(3)
    assert len(some.train) == 100
    assert torch.equal(some.train.mean, data.train.mean)
    assert torch.equal(some.train.std, data.train.std)
    assert some.test.fingerprint() == data.test.fingerprint()
    assert some.train.fingerprint() == Digits("digits", 100, "none").load(3).train.fingerprint()
    assert some.train.fingerprint() != Digits("digits", 100, "none").load(4).train.fingerprint()


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"dataset\.name=mnist: choose one of digits"):
        Digits("mnist", None, "none")
    with pytest.raises(UserError, match=r"dataset\.augmentation=flip"):
        Digits("digits", None, "flip")
    with pytest.raises(UserError, match=r"dataset\.train_size=0: must be at least 1"):
        Digits("digits", 0, "none")
    with pytest.raises(UserError, match=r"dataset\.train_size=1441: must lie between 1 and the 1440 training points"):
        Digits("digits", 1441, "none").load(0)


def test_the_yaml_states_every_field():
    config = OmegaConf.load(CONF)
    assert set(config) == {"_target_", *(f.name for f in fields(Digits))}
    assert instantiate(config) == Digits("digits", None, "none")
    assert instantiate(config).augment == Augmentation("none", padding=1)

from dataclasses import replace

import pytest
import torch

from unlearn.data.augmentation import Augmentation, augment
from unlearn.data.split import Data, Split
from unlearn.values.streams import generator


@pytest.fixture
def split():
    raw = torch.randint(256, (30, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    mean, std = torch.tensor([10.0, 20.0, 30.0])[:, None, None], torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    return Split(raw, torch.arange(30) % 10, mean, std)


def test_a_batch_is_normalised_in_raw_units(split):
    batch = split.batch(torch.tensor([3, 0]))
    assert batch.dtype == torch.float32
    assert batch.shape == (2, *split.shape)
    assert batch[0, 2, 1, 3] == (split.inputs[3, 2, 1, 3].item() - 30) / 4
    assert batch[1, 0, 0, 0] == split.inputs[0, 0, 0, 0].item() - 10


def test_features_keep_their_precision():
    one = torch.ones((), dtype=torch.float64)
    features = Split(torch.tensor([[1 / 3, 2.0]], dtype=torch.float64), torch.tensor([1]), one, one)
    assert features.batch(torch.tensor([0])).tolist() == [[1 / 3 - 1, 1.0]]


def test_padding_is_zero_before_normalisation_and_draws_are_by_point(split):
    draws = Augmentation("crop_flip").draw(30, generator(0, "augmentation", 0), torch.device("cpu"))
    whole = (augment(split.inputs, draws) - split.mean) / split.std
    assert torch.equal(split.batch(torch.arange(30), draws), whole)
    some = torch.tensor([17, 2, 29])
    assert torch.equal(split.batch(some, draws), whole[some])
    assert torch.equal(split.batch(some[1:], draws), whole[some[1:]])


def test_take_keeps_points_with_their_labels(split):
    some = split.take(torch.tensor([12, 5]))
    assert len(some) == 2
    assert some.labels.tolist() == [2, 5]
    assert torch.equal(some.inputs, split.inputs[[12, 5]])
    assert torch.equal(some.mean, split.mean)


def test_the_fingerprint_changes_with_one_pixel_one_label_and_the_order(split):
    pixel = split.inputs.clone()
    pixel[29, 2, 3, 3] ^= 1
    label = split.labels.clone()
    label[7] += 1
    changed = (
        replace(split, inputs=pixel),
        replace(split, labels=label),
        replace(split, inputs=split.inputs.reshape(30, 3, 2, 8)),
        replace(split, inputs=split.inputs.to(torch.int8)),
        split.take(torch.arange(29, -1, -1)),
        split.take(torch.arange(29)),
    )
    assert len({split.fingerprint(), *(other.fingerprint() for other in changed)}) == 1 + len(changed)


def test_the_fingerprint_is_of_the_values_not_of_their_place_in_memory(split):
    turned = split.inputs.transpose(2, 3).contiguous().transpose(2, 3)
    assert not turned.is_contiguous()
    assert replace(split, inputs=turned).fingerprint() == split.fingerprint()


def test_data_moves_as_a_whole(split):
    moved = Data(split, split.take(torch.arange(3)), 10).to(torch.device("meta"))
    assert {t.device.type for s in (moved.train, moved.test) for t in (s.inputs, s.labels, s.mean, s.std)} == {"meta"}
    assert moved.num_classes == 10

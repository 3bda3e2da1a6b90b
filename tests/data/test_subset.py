"""A seeded part of a data set."""

from dataclasses import replace

import pytest
import torch

from unlearn.data.split import Split
from unlearn.data.subset import subset
from unlearn.values.errors import UserError


@pytest.fixture
def split():
    raw = torch.randint(256, (30, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Split(raw, torch.arange(30) % 10, torch.zeros(()), torch.ones(()))


def test_a_subset_is_seeded_and_keeps_the_stored_order(split):
    split = replace(split, labels=torch.arange(30))
    chosen = subset(split, 12, seed=0).labels
    assert len(chosen) == 12
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(subset(split, 12, seed=0).labels, chosen)
    assert not torch.equal(subset(split, 12, seed=1).labels, chosen)
    assert torch.equal(split.inputs[chosen], subset(split, 12, seed=0).inputs)


def test_a_larger_subset_holds_the_smaller(split):
    split = replace(split, labels=torch.arange(30))
    assert set(subset(split, 5, seed=4).labels.tolist()) < set(subset(split, 6, seed=4).labels.tolist())


def test_a_subset_of_everything_is_everything(split):
    assert subset(split, None, 0).fingerprint() == split.fingerprint() == subset(split, 30, 0).fingerprint()


@pytest.mark.parametrize("size", [0, -1, 31])
def test_an_impossible_subset_is_refused(split, size):
    with pytest.raises(UserError, match=rf"dataset\.train_size={size}: must lie between 1 and the 30 training points"):
        subset(split, size, 0)


def test_training_and_test_set_are_drawn_apart(split):
    split = replace(split, labels=torch.arange(30))
    assert not subset(split, 12, 0, test=True).labels.equal(subset(split, 12, 0).labels)
    with pytest.raises(UserError, match=r"dataset\.test_size=31: must lie between 1 and the 30 test points"):
        subset(split, 31, 0, test=True)

import torch

from unlearn.metrics.accuracy import accuracy


def test_the_share_of_hits_in_any_chunks():
    labels = torch.tensor([0, 1, 2, 0, 1])
    logits = torch.eye(3)[torch.tensor([0, 1, 0, 1, 1])]
    for chunk in (1, 2, 5):
        assert accuracy(lambda points: logits[points], labels, torch.arange(5), chunk) == 0.6
    assert accuracy(lambda points: logits[points], labels, torch.tensor([2, 3])) == 0


def test_an_empty_set_has_none():
    assert accuracy(lambda points: points, torch.tensor([0]), torch.tensor([], dtype=torch.int64)) is None

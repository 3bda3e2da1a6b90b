"""Accuracy of a model on a set of points."""

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], labels: Tensor, points: Tensor, chunk: int = 256) -> float | None:
    """Give the share of points whose largest logit is that of their class.

    Args:
        predict: maps indices, shape (k,), to logits, shape (k, num_classes).
        labels: of all points, shape (n,).
        points: which of them count, shape (m,).
        chunk: points at a time.

    Returns:
        In [0, 1]; None where `points` is empty.
    """
    if not len(points):
        return None
    hits = torch.stack([(predict(part).argmax(dim=1) == labels[part]).sum() for part in points.split(chunk)])
    return int(hits.sum()) / len(points)

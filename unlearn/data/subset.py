"""A seeded part of a data set, whether of tensors or of texts."""

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from unlearn.values.errors import UserError
from unlearn.values.streams import generator


class Points(Protocol):
    """Points that can be counted and chosen from."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def take(self, indices: Tensor) -> Self:
        """Keep some of them."""
        ...


Part = TypeVar("Part", bound=Points)


def subset(points: Part, size: int | None, seed: int, *, test: bool = False) -> Part:
    """Take a seeded subset that keeps the stored order (`dataset.train_size`, `dataset.test_size`).

    Args:
        points: the whole training or test set.
        size: how many points; None keeps all.
        seed: the run's seed; the draw comes from the stream "subset".
        test: which of the two it is; their draws differ.

    Returns:
        The set, or `size` points of it.

    Raises:
        UserError: there are fewer points than `size`, or `size` is below 1.
    """
    if size is None:
        return points
    if not 1 <= size <= len(points):
        key, kind = ("test_size", "test") if test else ("train_size", "training")
        raise UserError(f"dataset.{key}={size}: must lie between 1 and the {len(points)} {kind} points")
    drawn = torch.randperm(len(points), generator=generator(seed, "subset", *([1] if test else [])))[:size]
    return points.take(drawn.sort().values)

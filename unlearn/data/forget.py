"""Forget sets: which training points must be forgotten. Each choice is a frozen dataclass with one method, `select`."""

import math
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unlearn.values.errors import UserError, first_line
from unlearn.values.schedule import Schedule
from unlearn.values.streams import generator


@dataclass(frozen=True)
class Context:
    """What a choice may depend on.

    Attributes:
        labels: class of each training point, shape (n,).
        batch_size: of the recorded phase.
        order: `schedule.order`.
        drop_last: `schedule.drop_last`.
        seed: the run's seed; random choices come from the stream "forget".
    """

    labels: Tensor
    batch_size: int
    order: str
    drop_last: bool
    seed: int


@dataclass(frozen=True)
class ForgetSet:
    """A forget set.

    Attributes:
        indices: the points, ascending.
        unit: where they are one whole batch, its place in the epoch; else None.
    """

    indices: tuple[int, ...] = ()
    unit: int | None = None


class ForgetChoice(Protocol):
    """A choice of the config group `forget`."""

    @property
    def name(self) -> str:
        """What the run's records call it."""
        ...

    def select(self, context: Context) -> ForgetSet:
        """Choose the points."""
        ...


@dataclass(frozen=True)
class NoForget:
    """The control: nothing is forgotten, and M' must come out equal to M bit for bit."""

    name: str

    def select(self, context: Context) -> ForgetSet:
        """Choose nothing.

        Args:
            context: not looked at.

        Returns:
            The empty forget set.
        """
        return ForgetSet()


@dataclass(frozen=True)
class BatchForget:
    """One whole batch of the epoch, as in the paper's experiments.

    Attributes:
        name: for logs.
        position: `first`, `last`, `random`, or the batch's index from 0.
    """

    name: str
    position: str

    def select(self, context: Context) -> ForgetSet:
        """Choose the batch at `position` of the first epoch.

        Args:
            context: batch size, order and seed.

        Returns:
            Its points and its place.

        Raises:
            UserError: the epoch has no such batch, or no other.
        """
        size = len(context.labels)
        plain = Schedule(size, context.batch_size, 1, context.seed, context.order, drop_last=context.drop_last)
        batches = plain.steps_per_epoch
        named = {"first": 0, "last": batches - 1}
        if self.position in named:
            place = named[self.position]
        elif self.position == "random":
            place = int(torch.randint(batches, (1,), generator=generator(context.seed, "forget")))
        else:
            try:
                place = int(self.position)
            except ValueError:
                raise UserError(
                    f"forget.position={self.position}: choose first, last, random or an index from 0 to {batches - 1}"
                ) from None
        if not 0 <= place < batches:
            raise UserError(f"forget.position={place}: an epoch has {batches} batches, 0 to {batches - 1}")
        points = tuple(plain.epoch(0)[place].indices.tolist())
        return ForgetSet(check_indices(points, size, "forget=batch"), place)


@dataclass(frozen=True)
class PointsForget:
    """Single points, wherever they are in the schedule.

    Attributes:
        name: for logs.
        count: how many random points; ignored where `indices` are listed.
        indices: the points themselves, or None to draw `count`.
    """

    name: str
    count: int
    indices: tuple[int, ...] | None

    def select(self, context: Context) -> ForgetSet:
        """Choose the points.

        Args:
            context: number of points and seed.

        Returns:
            The forget set.

        Raises:
            UserError: too few or too many points, or a listed one is twice there or out of range.
        """
        size = len(context.labels)
        if self.indices is not None:
            return ForgetSet(check_indices(self.indices, size, "forget.indices"))
        if not 1 <= self.count < size:
            raise UserError(f"forget.count={self.count}: must lie between 1 and {size - 1}, so that some points stay")
        drawn = torch.randperm(size, generator=generator(context.seed, "forget"))[: self.count]
        return ForgetSet(tuple(sorted(drawn.tolist())))


@dataclass(frozen=True)
class ClassForget:
    """All or a share of one class.

    Attributes:
        name: for logs.
        label: the class.
        share: the part of it, in (0, 1]; below 1 the points are drawn, at least one.
    """

    name: str
    label: int
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"forget.share={self.share}: must be above 0 and at most 1")

    def select(self, context: Context) -> ForgetSet:
        """Choose the points of the class.

        Args:
            context: labels and seed.

        Returns:
            The forget set.

        Raises:
            UserError: no training point has that label, or all have.
        """
        members = (context.labels.cpu() == self.label).nonzero().flatten()
        if not len(members):
            have = ", ".join(map(str, context.labels.unique().tolist()[:20]))
            raise UserError(f"forget.label={self.label}: no training point has this class; there are {have}")
        if self.share < 1:
            # 0.07 of 100 is 7, not the 8 that float makes of it
            count = max(math.ceil(round(self.share * len(members), 6)), 1)
            members = members[torch.randperm(len(members), generator=generator(context.seed, "forget"))[:count]]
        return ForgetSet(check_indices(tuple(members.tolist()), len(context.labels), "forget.label"))


@dataclass(frozen=True)
class FileForget:
    """Indices from a text file (whitespace between them) or a .npy array of integers.

    Attributes:
        name: for logs.
        path: the file.
    """

    name: str
    path: str

    def select(self, context: Context) -> ForgetSet:
        """Read the points.

        Args:
            context: number of points.

        Returns:
            The forget set.

        Raises:
            UserError: the file cannot be read, holds no integers, or names a point twice or out of range.
        """
        try:
            path = Path(self.path).expanduser()
            if path.suffix == ".npy":
                found = np.load(path, allow_pickle=False)
            else:
                found = np.array([int(word) for word in path.read_text().split()], dtype=np.int64)
        except OSError as error:
            raise UserError(f"forget.path={self.path}: {error.strerror or error}") from None
        except (ValueError, EOFError, OverflowError, zipfile.BadZipFile) as error:
            raise UserError(f"forget.path={self.path}: not a list of integers: {first_line(error)}") from None
        if not isinstance(found, np.ndarray):
            raise UserError(f"forget.path={self.path}: an archive of arrays, not one")
        if not np.issubdtype(found.dtype, np.integer):
            raise UserError(f"forget.path={self.path}: holds {found.dtype}, not integers")
        return ForgetSet(check_indices(tuple(int(i) for i in found.ravel()), len(context.labels), "forget.path"))


def check_indices(indices: tuple[int, ...], size: int, key: str) -> tuple[int, ...]:
    """Sort a selection and refuse one that makes no sense.

    Args:
        indices: training points.
        size: how many there are.
        key: the config key, for the message.

    Returns:
        The points, ascending.

    Raises:
        UserError: none, all, twice the same, or out of range.
    """
    ordered = sorted(indices)
    if not ordered:
        raise UserError(f"{key}: selects no point; forget=none is the control without a forget set")
    if ordered[0] < 0 or ordered[-1] >= size:
        wrong = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise UserError(f"{key}: {wrong} is out of range; training points are 0 to {size - 1}")
    for left, right in pairwise(ordered):
        if left == right:
            raise UserError(f"{key}: {left} is listed twice")
    if len(ordered) == size:
        raise UserError(f"{key}: selects all {size} training points; nothing would be left to retrain on")
    return tuple(ordered)

"""The schedule: which points make up which batch of which epoch, for M and for M'.

A schedule is a value. It holds what determines its batches, and those of the epoch last asked for, so that its memory
does not grow with the number of steps; two equal schedules give the same batches on every machine.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unlearn.values.errors import UserError, choice
from unlearn.values.streams import generator

ORDERS = ("shuffle_each_epoch", "shuffle_once", "as_stored")
PLACEMENTS = ("in_place", "first")


@dataclass(frozen=True)
class Batch:
    """One step's points.

    Attributes:
        step: 0 for the first step of the run.
        epoch: 0 for the first epoch.
        indices: the training points that M sees, int64, shape (b,).
        kept: those of them that M' sees, shape (b - k,); empty where the whole batch is forgotten.
    """

    step: int
    epoch: int
    indices: Tensor
    kept: Tensor

    @property
    def is_visit(self) -> bool:
        """Whether a forgotten point is in this batch."""
        return self.kept is not self.indices and len(self.kept) < len(self.indices)

    @property
    def taken_out(self) -> int:
        """How many of its points are forgotten."""
        return len(self.indices) - len(self.kept)

    @property
    def share_out(self) -> float:
        """The share of its points that are forgotten, n / b: how much of a step's gradient is theirs."""
        return self.taken_out / len(self.indices)


@dataclass(frozen=True)
class Schedule:
    """The order in which training visits its points, the same for M and M'.

    Attributes:
        size: number of training points.
        batch_size: points a step.
        epochs: passes over the points.
        seed: the run's seed; the order of epoch e comes from the stream (seed, "order", e).
        order: one of `ORDERS`.
        placement: `in_place`, or `first`: the forget set comes first in every epoch, as in the reference code.
        drop_last: whether a last short batch is dropped.
        forget: the forget set, ascending.
        unit: the place in the epoch at which the forget set stays together as one batch, or None where it is scattered.
        max_steps: stop after this many steps, or None.
    """

    size: int
    batch_size: int
    epochs: int
    seed: int
    order: str = "shuffle_each_epoch"
    placement: str = "in_place"
    drop_last: bool = False
    forget: tuple[int, ...] = ()
    unit: int | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        choice("schedule.order", self.order, ORDERS)
        choice("schedule.forget_batch", self.placement, PLACEMENTS)
        if self.epochs < 0:
            raise UserError(f"epochs={self.epochs}: must be at least 0")
        if not 1 <= self.batch_size <= self.size:
            raise UserError(f"batch_size={self.batch_size}: must lie between 1 and the {self.size} training points")

    @property
    def steps_per_epoch(self) -> int:
        """Steps that M takes in one epoch."""
        full, rest = divmod(self.size, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def total_steps(self) -> int:
        """Steps that M takes in all."""
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def _permutation(self, epoch: int) -> Tensor:
        if self.order == "as_stored":
            return torch.arange(self.size)
        return torch.randperm(
            self.size, generator=generator(self.seed, "order", 0 if self.order == "shuffle_once" else epoch)
        )

    @cached_property
    def forgotten(self) -> Tensor:
        """Whether each training point is in the forget set, bool, shape (size,)."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[list(self.forget)] = True
        return mask

    def _parts(self, epoch: int) -> list[Tensor]:
        order, forgotten = self._permutation(epoch), self.forgotten
        if self.unit is not None:
            # the forgotten batch stays together in its own inner order; the others flow around it
            parts = list(order[~forgotten[order]].split(self.batch_size))
            parts.insert(0 if self.placement == "first" else self.unit, torch.tensor(self.forget))
        else:
            if self.placement == "first":
                order = torch.cat([order[forgotten[order]], order[~forgotten[order]]])
            parts = list(order.split(self.batch_size))
        if self.drop_last and len(parts[-1]) < self.batch_size:
            parts.pop()
        return parts

    @cached_property
    def _newest(self) -> dict[int, Sequence[Batch]]:  # no field: it is no part of the value
        return {}

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """Give the batches of one epoch.

        Args:
            epoch: 0 for the first.

        Returns:
            One batch a step.
        """
        found = self._newest.get(epoch)
        if found is None:
            found = self._made(epoch)
            self._newest.clear()
            self._newest[epoch] = found
        return found

    def _made(self, epoch: int) -> Sequence[Batch]:
        parts, forgotten = self._parts(epoch), self.forgotten
        first = epoch * self.steps_per_epoch
        visits: set[int] = set()
        if self.forget:  # found for all batches at once: a look at each would cost more than the batch itself
            places = torch.arange(len(parts)).repeat_interleave(torch.tensor([part.shape[0] for part in parts]))
            visits.update(places[forgotten[torch.cat(parts)]].tolist())
        kept = [part[~forgotten[part]] if place in visits else part for place, part in enumerate(parts)]
        return tuple(Batch(first + k, epoch, *both) for k, both in enumerate(zip(parts, kept, strict=True)))

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Give the batches of all epochs, in order.

        Args:
            start: the first step to give; the steps before it are skipped at no cost but their epoch's order.

        Yields:
            One batch a step.
        """
        total = self.total_steps
        for epoch in range(start // max(self.steps_per_epoch, 1), self.epochs):
            for batch in self.epoch(epoch):
                if batch.step >= total:
                    return
                if batch.step >= start:
                    yield batch

    def fingerprint(self) -> str:
        """Hash every batch of M and of M'.

        Returns:
            The SHA-256 of the indices, 64 hexadecimal digits: equal exactly when the batches are.
        """
        digest = hashlib.sha256()
        for batch in self.batches():
            whole = _bytes(batch.indices)
            digest.update(whole)
            digest.update(_bytes(batch.kept) if batch.is_visit else whole)
        return digest.hexdigest()


def _bytes(points: Tensor) -> bytes:
    table = points.numpy()
    return len(table).to_bytes(8, "big") + table.tobytes()

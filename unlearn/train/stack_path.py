"""The curvature that the removals of many points met on their way; see `path.py`, whose formulas these are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedHalves, runs
from unlearn.train.path import Segment
from unlearn.train.stack_objective import StackedObjective

ROWS = 80  # gradients of one pass; more would leave the cache


@dataclass(frozen=True)
class SegmentOfRow:
    """Steps of one point.

    Attributes:
        row: of the stacked objective.
        segment: the steps.
        push: the removal, shape (dim,).
    """

    row: int
    segment: Segment
    push: Tensor


@dataclass(frozen=True)
class StackedQuotient:
    """The mean slopes of the gradients on K segments, each over the length of its removal.

    All gradients of a product, of every point, batch and sign, are taken in a few passes. The batches of the first half
    of a segment come before those of the second: so each half's sum is one product of all its points.

    Attributes:
        objective: the losses.
        rows: of the objective, shape (K,).
        before: the weights at the start of the segments, shape (K, dim).
        now: the weights at their ends, shape (K, dim).
        progress: from one to the other, of the weights at the batches, shape (K, n).
        points: of the batches, shape (K, n, b).
        shares: of the points in their batches' losses, shape (K, n, b).
        means: weight of each batch in the mean of its half, shape (K, n).
        first: how many of the n are of the first half.
        share: weight of the first half in the mean of both, float64, shape (K,).
        lengths: of the removals, float64, shape (K,).
    """

    objective: StackedObjective
    rows: Tensor
    before: Tensor
    now: Tensor
    progress: Tensor
    points: Tensor
    shares: Tensor
    means: Tensor
    first: int
    share: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, objective: StackedObjective, rows: Sequence[SegmentOfRow], most: int) -> "StackedQuotient":
        """Gather the batches.

        Args:
            objective: the losses.
            rows: one a point.
            most: how many points of a training set to look at; see `quotient_on`.

        Returns:
            The operators. A segment with fewer batches than others has some of weight 0.
        """
        segments = [row.segment for row in rows]
        picked = [segment.batches(most) for segment in segments]
        count = max(1, *map(len, picked))  # M' may have taken no step on any segment
        first = (count + 1) // 2
        width = max((len(batch.indices) for batches in picked for batch in batches), default=1)
        before = torch.stack([segment.before for segment in segments])
        now = torch.stack([segment.now.weights for segment in segments])
        shape = len(rows), count, width
        points, shares = torch.zeros(shape, dtype=torch.int64), before.new_zeros(shape)
        progress, means = before.new_zeros(shape[:2]), before.new_zeros(shape[:2])
        share = torch.zeros(len(rows), dtype=torch.float64)
        for k, (segment, batches) in enumerate(zip(segments, picked, strict=True)):
            whole = segment.recipe.objective.renormalise == "batch_size"
            rates = segment.rates(batches)
            halves = sum(rates[::2]), sum(rates[1::2])
            if batches:
                share[k] = halves[0] / sum(halves)
            for i, batch in enumerate(batches):
                place, size = (i // 2 + first if i % 2 else i // 2), len(batch.kept)
                points[k, place, :size] = batch.kept
                shares[k, place, :size] = 1 / (len(batch.indices) if whole else size)
                progress[k, place] = segment.progress(batch)
                means[k, place] = rates[i] / halves[i % 2]
        return cls(
            objective,
            torch.tensor([row.row for row in rows]),
            before,
            now,
            progress,
            points,
            shares,
            means,
            first,
            share,
            torch.tensor([row.segment.length(row.push) for row in rows], dtype=torch.float64),
        )

    def operator(self) -> StackedHalves:
        """Give the means of all batches, as those of every other batch and the rest.

        Returns:
            The operators; one of a single batch has a share of 1.
        """
        return StackedHalves(self.both, self.share)

    def both(self, vectors: Tensor, going: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply the slopes of each half of the batches.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed, bool, shape (K,).

        Returns:
            Two of shape (K, dim); zero in rows that are not needed.
        """
        out = vectors.new_zeros(len(vectors), 2, vectors.shape[1])
        for some in runs(going, max(ROWS // (2 * self.points.shape[1]), 1)):
            out[some] = self._slopes(vectors[some], some)
        return out[:, 0], out[:, 1]

    def _slopes(self, vectors: Tensor, some: slice) -> Tensor:
        step = self.lengths[some] / torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
        ahead = vectors * step[:, None].to(vectors)
        signed = torch.stack([ahead, -ahead], dim=1)[:, None]
        before, now, progress = self.before[some, None], self.now[some, None], self.progress[some, :, None]
        at = torch.lerp(before, now, progress)
        weights = (at[:, :, None] + signed).flatten(1, 2)  # each batch ahead and behind
        points, shares = (each[some].repeat_interleave(2, dim=1) for each in (self.points, self.shares))
        factors = self.means[some] / (2 * step[:, None]).to(vectors)
        signs = torch.stack([factors, -factors], dim=2).flatten(1)
        cuts = slice(0, 2 * self.first), slice(2 * self.first, signs.shape[1])
        return self.objective.mixtures(weights, points, shares, signs, self.rows[some], cuts)

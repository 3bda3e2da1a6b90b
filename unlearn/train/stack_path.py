"""The curvature that the removals of many points met on their way; see `path.py`, whose formulas these are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedHalves, runs
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe
from unlearn.train.path import batches_on_path, quotient_length, rates_on_path
from unlearn.train.stack_objective import StackedObjective

ROWS = 80  # gradients of one pass; more would leave the cache


@dataclass(frozen=True)
class PathOfRow:
    """Steps of one point, as `quotient_on_path` takes them.

    Attributes:
        row: of the stacked objective.
        recipe: the batches.
        before: M's weights at the first of the steps.
        now: M after the last of them.
        steps: that were taken in between.
        since: the first of them whose curvature the removal met.
        push: the removal, shape (dim,).
    """

    row: int
    recipe: Recipe
    before: Tensor
    now: Learner
    steps: range
    since: int
    push: Tensor


@dataclass(frozen=True)
class StackedQuotient:
    """The mean slopes of the gradients on K paths, each over the length of its removal.

    All gradients of a product, of every point, batch and sign, are taken in a few passes. The batches of the first half
    of a path come before those of the second: so each half's sum is one product of all its points.

    Attributes:
        objective: the losses.
        rows: of the objective, shape (K,).
        weights: at the batches, shape (K, n, dim).
        points: of the batches, shape (K, n, b).
        shares: of the points in their batches' losses, shape (K, n, b).
        means: weight of each batch in the mean of its half, shape (K, n).
        first: how many of the n are of the first half.
        share: weight of the first half in the mean of both, float64, shape (K,).
        lengths: of the removals, float64, shape (K,).
    """

    objective: StackedObjective
    rows: Tensor
    weights: Tensor
    points: Tensor
    shares: Tensor
    means: Tensor
    first: int
    share: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, objective: StackedObjective, paths: Sequence[PathOfRow], most: int) -> "StackedQuotient":
        """Gather the batches.

        Args:
            objective: the losses.
            paths: one a point.
            most: how many points of a training set to look at; see `quotient_on_path`.

        Returns:
            The operators. A path with fewer batches than others has some of weight 0.
        """
        picked = [batches_on_path(path.recipe, range(path.since, path.steps.stop), most) for path in paths]
        count = max(1, *map(len, picked))  # M' may have taken no step on any path
        first = (count + 1) // 2
        width = max((len(batch.indices) for batches in picked for batch in batches), default=1)
        before = torch.stack([path.before for path in paths])
        now = torch.stack([path.now.weights for path in paths])
        shape = len(paths), count, width
        points, shares = torch.zeros(shape, dtype=torch.int64), before.new_zeros(shape)
        progress, means = before.new_zeros(shape[:2]), before.new_zeros(shape[:2])
        share = torch.zeros(len(paths), dtype=torch.float64)
        for k, (path, batches) in enumerate(zip(paths, picked, strict=True)):
            whole = path.recipe.objective.renormalise == "batch_size"
            rates = rates_on_path(path.recipe, batches)
            halves = sum(rates[::2]), sum(rates[1::2])
            if batches:
                share[k] = halves[0] / sum(halves)
            for i, batch in enumerate(batches):
                place, size = (i // 2 + first if i % 2 else i // 2), len(batch.kept)
                points[k, place, :size] = batch.kept
                shares[k, place, :size] = 1 / (len(batch.indices) if whole else size)
                progress[k, place] = (batch.step - path.steps.start) / len(path.steps)
                means[k, place] = rates[i] / halves[i % 2]
        return cls(
            objective,
            torch.tensor([path.row for path in paths]),
            torch.lerp(before[:, None], now[:, None], progress[:, :, None]),
            points,
            shares,
            means,
            first,
            share,
            torch.tensor([quotient_length(path.push, path.now.weights) for path in paths], dtype=torch.float64),
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
        weights = (self.weights[some, :, None] + signed).flatten(1, 2)  # each batch ahead and behind
        points, shares = (each[some].repeat_interleave(2, dim=1) for each in (self.points, self.shares))
        factors = self.means[some] / (2 * step[:, None]).to(vectors)
        signs = torch.stack([factors, -factors], dim=2).flatten(1)
        cuts = slice(0, 2 * self.first), slice(2 * self.first, signs.shape[1])
        return self.objective.mixtures(weights, points, shares, signs, self.rows[some], cuts)

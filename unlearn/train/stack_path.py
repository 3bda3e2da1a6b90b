"""The curvature that the removals of many points met on their way; see `path.py`, whose formulas these are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedHalves
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe
from unlearn.train.path import batches_on_path, quotient_length
from unlearn.train.stack_objective import StackedObjective

ROWS = 128  # gradients of one pass; more would leave the cache


@dataclass(frozen=True)
class Path:
    """Steps of one point, as `quotient_on_path` takes them.

    Attributes:
        row: of the stacked objective.
        recipe: the batches.
        before: M's weights at the first of the steps.
        now: M after the last of them.
        steps: that were taken in between.
        push: the removal, shape (dim,).
    """

    row: int
    recipe: Recipe
    before: Tensor
    now: Learner
    steps: range
    push: Tensor


@dataclass(frozen=True)
class StackedQuotient:
    """The mean slopes of the gradients on K paths, each over the length of its removal.

    All gradients of a product, of every point, batch and sign, are rows of a few passes.

    Attributes:
        objective: the losses.
        rows: of the objective, shape (K,).
        before: weights at the first of the steps, shape (K, dim).
        now: weights after the last of them, shape (K, dim).
        progress: of each batch on its path, in [0, 1), shape (K, n).
        points: of the batches, shape (K, n, b).
        shares: of the points in their batches' losses, shape (K, n, b).
        halves: weights of the batches in the means of the first half and of the second, shape (K, 2, n).
        lengths: of the removals, float64, shape (K,).
    """

    objective: StackedObjective
    rows: Tensor
    before: Tensor
    now: Tensor
    progress: Tensor
    points: Tensor
    shares: Tensor
    halves: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, objective: StackedObjective, paths: Sequence[Path], most: int) -> "StackedQuotient":
        """Gather the batches.

        Args:
            objective: the losses.
            paths: one a point.
            most: how many points of a training set to look at; see `quotient_on_path`.

        Returns:
            The operators. A path with fewer batches than others has some of weight 0.
        """
        picked = [batches_on_path(path.recipe, path.steps, most) for path in paths]
        count = max(1, *map(len, picked))  # M' may have taken no step on any path
        width = max((len(batch.indices) for batches in picked for batch in batches), default=1)
        before = torch.stack([path.before for path in paths])
        shape = len(paths), count, width
        points, shares = torch.zeros(shape, dtype=torch.int64), before.new_zeros(shape)
        progress, halves = before.new_zeros(shape[:2]), before.new_zeros(len(paths), 2, count)
        for k, (path, batches) in enumerate(zip(paths, picked, strict=True)):
            whole = path.recipe.objective.renormalise == "batch_size"
            for i, batch in enumerate(batches):
                size = len(batch.kept)
                points[k, i, :size] = batch.kept
                shares[k, i, :size] = 1 / (len(batch.indices) if whole else size)
                progress[k, i] = (batch.step - path.steps.start) / len(path.steps)
            for half in range(2):
                own = range(half, len(batches), 2)
                halves[k, half, list(own)] = 1 / max(len(own), 1)
        return cls(
            objective,
            torch.tensor([path.row for path in paths]),
            before,
            torch.stack([path.now.weights for path in paths]),
            progress,
            points,
            shares,
            halves,
            torch.tensor([quotient_length(path.push, path.now.weights) for path in paths], dtype=torch.float64),
        )

    def operator(self) -> StackedHalves:
        """Give the means of all batches, as those of every other batch and the rest.

        Returns:
            The operators; one of a single batch has a share of 1.
        """
        many = (self.halves > 0).sum(2)
        return StackedHalves(self.both, many[:, 0] / many.sum(1).clamp(min=1))

    def both(self, vectors: Tensor, going: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply the slopes of each half of the batches.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed, bool, shape (K,).

        Returns:
            Two of shape (K, dim); zero in rows that are not needed.
        """
        out = vectors.new_zeros(len(vectors), 2, vectors.shape[1])
        for some in going.nonzero().flatten().split(max(ROWS // (2 * self.points.shape[1]), 1)):
            out[some] = self._slopes(vectors, some)
        return out[:, 0], out[:, 1]

    def _slopes(self, vectors: Tensor, some: Tensor) -> Tensor:
        step = self.lengths[some] / torch.linalg.vector_norm(vectors[some], dim=1, dtype=torch.float64)
        displacement = (vectors[some] * step[:, None].to(vectors))[:, None]
        on_path = torch.lerp(self.before[some, None], self.now[some, None], self.progress[some, :, None])
        weights = torch.cat([on_path + displacement, on_path - displacement], dim=1)
        points, shares = (each[some].repeat(1, 2, 1) for each in (self.points, self.shares))
        rows = self.rows[some].repeat_interleave(weights.shape[1])
        _, found = self.objective.gradients(weights.flatten(0, 1), points.flatten(0, 1), shares.flatten(0, 1), rows)
        halves = self.halves[some] / (2 * step[:, None, None]).to(vectors)
        return torch.bmm(torch.cat([halves, -halves], dim=2), found.view_as(weights))

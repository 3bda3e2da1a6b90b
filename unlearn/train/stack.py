"""SGD of many small learners as one computation: same network and loss, each with its own weights, points and rates.

A small network leaves most of a step to Python. Stacked, K learners cost little more than one: weights are the rows of
one matrix, a step is one forward and one backward pass for all rows (`stack_objective.py`). What each learner computes
is what `unlearn/train/loop.py` computes for it alone, up to the order of sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import Diverged
from unlearn.values.schedule import Batch


@dataclass(frozen=True)
class Row:
    """One learner of a stack.

    Attributes:
        recipe: its loss, schedule, learning rate and optimiser.
        learner: where it starts; from then on its tensors are views of the stack.
        on_kept: whether it never sees the forget set, as M'.
    """

    recipe: Recipe
    learner: Learner
    on_kept: bool


@dataclass(frozen=True)
class StackedStep:
    """A step that all rows have just taken.

    Attributes:
        steps: of each row.
        failed: rows whose loss was not finite; they stay where they are from now on.
    """

    steps: Sequence[Step]
    failed: dict[int, Diverged]


@dataclass(frozen=True)
class _Epoch:
    """What every row does in an epoch: points and shares (steps, rows, b), and whether it moves (steps, rows)."""

    batches: list[Sequence[Batch]]
    points: Tensor
    shares: Tensor
    moves: Tensor


def losses_of(rows: Sequence[Row]) -> StackedObjective:
    """Stack the losses of rows.

    Args:
        rows: of one stack.

    Returns:
        Their losses; the prepared training set is a copy, so hold one of it.
    """
    return StackedObjective.of([row.recipe.objective for row in rows])


def train_stacked(rows: Sequence[Row], objective: StackedObjective) -> Iterator[StackedStep]:
    """Train all rows in step, changing their learners in place, and pause after each step.

    Semantics are those of `unlearn.train.loop.train`: a row on kept points takes no step where its whole batch is
    forgotten. A row that diverges doesn't disturb the others.

    Args:
        rows: schedules of equal length.
        objective: their losses (`losses_of`), for which they must share what `StackedObjective` says.

    Yields:
        Each step, after all rows have taken it.
    """
    recipes = [row.recipe for row in rows]
    distinct = list({id(recipe): recipe for recipe in recipes}.values())  # M and M' share theirs
    stack = _Stack.of(objective, rows)
    dtype = stack.weights.dtype
    for epoch in range(max((recipe.schedule.epochs for recipe in recipes), default=0)):
        plan = _plan(rows, epoch, dtype)
        for place, batches in enumerate(zip(*plan.batches, strict=True)):
            step = batches[0].step
            if step >= recipes[0].schedule.total_steps:
                return
            by_recipe = {id(recipe): recipe.rate.at(step) for recipe in distinct}
            rates = [by_recipe[id(recipe)] for recipe in recipes]
            lrs = torch.tensor(rates, dtype=dtype)[:, None]
            finite = stack.step_(plan.points[place], plan.shares[place], plan.moves[place], lrs)
            lost = [] if bool(finite.all()) else (~finite).nonzero().flatten().tolist()
            failed = {row: Diverged(step + 1, rates[row]) for row in lost}
            yield StackedStep([Step(batch, lr) for batch, lr in zip(batches, rates, strict=True)], failed)


@dataclass(frozen=True)
class _Stack:
    """State of some rows, one a row: matrices of shape (r, dim), columns of shape (r, 1), and vectors of shape (r,)."""

    objective: StackedObjective
    weights: Tensor
    velocity: Tensor
    gradient: Tensor
    loss: Tensor
    momentum: Tensor
    decay: Tensor
    alive: Tensor

    @classmethod
    def of(cls, objective: StackedObjective, rows: Sequence[Row]) -> "_Stack":
        weights = torch.stack([row.learner.weights for row in rows])
        optimizers = [row.recipe.optimizer for row in rows]
        self = cls(
            objective,
            weights,
            torch.stack([row.learner.velocity for row in rows]),
            torch.zeros_like(weights),
            weights.new_zeros(len(rows)),
            weights.new_tensor([[optimizer.momentum] for optimizer in optimizers]),
            weights.new_tensor([[optimizer.weight_decay] for optimizer in optimizers]),
            torch.ones(len(rows), dtype=torch.bool),
        )
        for place, row in enumerate(rows):
            row.learner.weights, row.learner.velocity = self.weights[place], self.velocity[place]
            row.learner.gradient, row.learner.loss = self.gradient[place], self.loss[place]
        return self

    def step_(self, points: Tensor, shares: Tensor, moves: Tensor, lrs: Tensor) -> Tensor:
        """Take a step in place; a row whose loss is not finite stays where it is. Gives whether each is."""
        losses, pull = self.objective.gradients(self.weights, points, shares, out=self.gradient)
        self.loss.copy_(losses)
        moving = moves & self.alive
        finite = losses.isfinite() | ~moving
        self.alive.logical_and_(finite)
        moving &= finite
        if bool(self.decay.any()):
            pull = torch.addcmul(pull, self.weights, self.decay)
        if bool(self.momentum.any()):
            pull = torch.addcmul(pull, self.velocity, self.momentum)
        if bool(moving.all()):
            self.velocity.copy_(pull)
            self.weights.addcmul_(lrs, pull, value=-1)
        else:
            self.velocity[moving] = pull[moving]
            self.weights[moving] -= lrs[moving] * pull[moving]
        return finite


def _plan(rows: Sequence[Row], epoch: int, dtype: torch.dtype) -> _Epoch:
    recipes = {id(row.recipe): row.recipe for row in rows}  # M and M' share theirs
    epochs = {key: recipe.schedule.epoch(epoch) for key, recipe in recipes.items()}
    sizes = {key: torch.tensor([batch.indices.shape[0] for batch in own]) for key, own in epochs.items()}
    width = max(int(each.max()) for each in sizes.values())
    padded = {
        key: pad_sequence([batch.indices for batch in own], batch_first=True, padding_value=-1)
        for key, own in epochs.items()
    }
    points, shares, moves = [], [], []
    for row in rows:
        key = id(row.recipe)
        given, whole = F.pad(padded[key], (0, width - padded[key].shape[1]), value=-1), sizes[key]
        seen = given >= 0
        if row.on_kept:
            seen &= ~row.recipe.schedule.forgotten[given]
        counts = seen.sum(1)
        divisor = whole if row.recipe.objective.renormalise == "batch_size" else counts.clamp(min=1)
        points.append(given * seen)
        shares.append(seen / divisor[:, None].to(dtype))
        moves.append(counts > 0)
    batches = [epochs[id(row.recipe)] for row in rows]
    return _Epoch(batches, torch.stack(points, 1), torch.stack(shares, 1), torch.stack(moves, 1))

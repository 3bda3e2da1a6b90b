"""SGD of many small learners as one computation: same network and loss, each with its own weights, points and rates.

A small network leaves most of a step to Python. Stacked, K learners cost little more than one: weights are the rows of
one matrix, a step is one forward and one backward pass for all rows (`torch.func.vmap`). What each learner computes is
what `unlearn/train/loop.py` computes for it alone, up to the order of sums.
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
    """What every row does in an epoch: points and shares (steps, rows, b), and whether it steps (steps, rows)."""

    batches: list[list[Batch]]
    points: Tensor
    shares: Tensor
    steps: Tensor


def train_stacked(rows: Sequence[Row]) -> Iterator[StackedStep]:
    """Train all rows in step, changing their learners in place, and pause after each step.

    Semantics are those of `unlearn.train.loop.train`: a row on kept points takes no step where its whole batch is
    forgotten. A row that diverges doesn't disturb the others.

    Args:
        rows: schedules of equal length; see `StackedObjective` for what their objectives must share.

    Yields:
        Each step, after all rows have taken it.
    """
    recipes = [row.recipe for row in rows]
    objective = StackedObjective.of([recipe.objective for recipe in recipes])
    weights, velocity, gradient, loss = _stack(rows)
    dtype = weights.dtype
    momentum = torch.tensor([[recipe.optimizer.momentum] for recipe in recipes], dtype=dtype)
    decay = torch.tensor([[recipe.optimizer.weight_decay] for recipe in recipes], dtype=dtype)
    with_momentum, with_decay = bool(momentum.any()), bool(decay.any())
    alive = torch.ones(len(rows), dtype=torch.bool)
    for epoch in range(max((recipe.schedule.epochs for recipe in recipes), default=0)):
        plan = _plan(rows, epoch, dtype)
        for place, batches in enumerate(zip(*plan.batches, strict=True)):
            step = batches[0].step
            if step >= recipes[0].schedule.total_steps:
                return
            rates = [recipe.rate.at(step) for recipe in recipes]
            losses, pull = objective.gradients(weights, plan.points[place], plan.shares[place], out=gradient)
            stepping = plan.steps[place] & alive
            finite = losses.isfinite() | ~stepping
            failed: dict[int, Diverged] = {}
            if not bool(finite.all()):
                failed = {int(row): Diverged(step + 1, rates[row]) for row in (~finite).nonzero().flatten().tolist()}
                alive &= finite
                stepping &= finite
            loss.copy_(losses)
            if with_decay:
                pull = torch.addcmul(pull, weights, decay)
            if with_momentum:
                pull = torch.addcmul(pull, velocity, momentum)
            sizes = torch.tensor(rates, dtype=dtype)[:, None]
            if bool(stepping.all()):
                velocity.copy_(pull)
                weights.sub_(sizes * pull)
            else:
                velocity[stepping] = pull[stepping]
                weights[stepping] -= sizes[stepping] * pull[stepping]
            yield StackedStep([Step(batch, lr) for batch, lr in zip(batches, rates, strict=True)], failed)


def _stack(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights = torch.stack([row.learner.weights for row in rows])
    velocity = torch.stack([row.learner.velocity for row in rows])
    gradient, loss = torch.zeros_like(weights), weights.new_zeros(len(rows))
    for place, row in enumerate(rows):
        row.learner.weights, row.learner.velocity = weights[place], velocity[place]
        row.learner.gradient, row.learner.loss = gradient[place], loss[place]
    return weights, velocity, gradient, loss


def _plan(rows: Sequence[Row], epoch: int, dtype: torch.dtype) -> _Epoch:
    schedules = {id(row.recipe.schedule): row.recipe.schedule for row in rows}
    epochs = {key: list(schedule.epoch(epoch)) for key, schedule in schedules.items()}
    batches = [epochs[id(row.recipe.schedule)] for row in rows]
    width = max(len(batch.indices) for batch in batches[0])
    points, shares, steps = [], [], []
    for row, own in zip(rows, batches, strict=True):
        seen = [batch.kept if row.on_kept else batch.indices for batch in own]
        sizes = torch.tensor([len(each) for each in seen])
        whole = torch.tensor([len(batch.indices) for batch in own])
        padded = pad_sequence(seen, batch_first=True)
        padded = F.pad(padded, (0, width - padded.shape[1]))
        divisor = whole if row.recipe.objective.renormalise == "batch_size" else sizes.clamp(min=1)
        points.append(padded)
        shares.append((torch.arange(width) < sizes[:, None]) / divisor[:, None].to(dtype))
        steps.append(sizes > 0)
    return _Epoch(batches, torch.stack(points, 1), torch.stack(shares, 1), torch.stack(steps, 1))

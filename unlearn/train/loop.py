"""The one SGD loop: any number of learners in step on one schedule."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from unlearn.models.network import clone
from unlearn.train.learner import SGD, Learner
from unlearn.train.objective import Objective
from unlearn.values.errors import Diverged
from unlearn.values.rates import LearningRate
from unlearn.values.schedule import Batch, Schedule


@dataclass(frozen=True)
class Recipe:
    """All that determines a training run but the initial weights.

    Attributes:
        objective: the loss.
        schedule: which points when.
        rate: the learning rate of each step.
        optimizer: momentum and weight decay.
    """

    objective: Objective
    schedule: Schedule
    rate: LearningRate
    optimizer: SGD


@dataclass(frozen=True)
class Step:
    """A step that was just taken.

    Attributes:
        batch: its points; `batch.step + 1` steps have been taken.
        lr: its learning rate.
    """

    batch: Batch
    lr: float

    @property
    def taken(self) -> int:
        """Steps taken so far."""
        return self.batch.step + 1


def train(
    recipe: Recipe,
    on_all: Sequence[Learner],
    on_kept: Sequence[Learner],
    *,
    check_every: Sequence[int] = (1,),
    start: int = 0,
) -> Iterator[Step]:
    """Train learners in step, changing them in place, and pause after each step.

    A learner that trains on the kept points takes no step where the whole batch is forgotten: weights and velocity stay
    as they are while the schedule, and so the learning rate, goes on. Learners share each batch and its augmentation,
    and nothing that one does reaches another.

    Args:
        recipe: loss, schedule, learning rate, optimiser.
        on_all: learners that see every point, such as M.
        on_kept: learners that never see the forget set, such as M'.
        check_every: losses are looked at after multiples of these steps, and at the end; looking waits for the device.
        start: the first step to take.

    Yields:
        Each step, after all learners have taken it.

    Raises:
        Diverged: a loss was NaN or infinite.
    """
    objective, device = recipe.objective, recipe.objective.split.labels.device
    bound = {id(m): objective.bind(m.weights, m.buffers) for m in (*on_all, *on_kept)}
    unchecked: list[tuple[int, torch.Tensor]] = []
    for batch in recipe.schedule.batches(start):
        draws = objective.draws(batch.epoch)
        lr = recipe.rate.at(batch.step)
        indices = batch.indices.to(device, non_blocking=True)  # which a waiting copy would hold up at every step
        kept = batch.kept.to(device, non_blocking=True) if batch.is_visit else indices
        groups = [(indices, [*on_all, *on_kept])] if kept is indices else [(indices, on_all), (kept, on_kept)]
        for points, learners in groups:
            if not learners or not len(points):
                continue
            inputs = objective.inputs(points, draws)
            gradients = []
            for learner in learners:  # on CUDA side by side
                learner.loss, gradient = bound[id(learner)].gradient(
                    points, inputs, count=len(indices), train=learner.train_mode, step=batch.step
                )
                gradients.append(gradient)
                unchecked.append((batch.step, learner.loss))
            for learner, gradient in zip(learners, gradients, strict=True):
                bound[id(learner)].wait()
                recipe.optimizer.step_(learner, gradient, lr)
        taken = batch.step + 1
        if any(taken % every == 0 for every in check_every) or taken == recipe.schedule.total_steps:
            _check(unchecked, recipe)
            unchecked.clear()
        yield Step(batch, lr)


def check_intervals(device: torch.device, *measured: int) -> tuple[int, ...]:
    """Say after which multiples of steps losses are looked at.

    Args:
        device: looking waits for a GPU, and costs nothing on a CPU.
        measured: steps that are waited for in any case.

    Returns:
        For `check_every` of `train`.
    """
    return (50 if device.type == "cuda" else 1, *measured)


def _check(losses: list[tuple[int, torch.Tensor]], recipe: Recipe) -> None:
    if not losses:
        return
    finite = torch.stack([loss for _, loss in losses]).isfinite().tolist()
    if not all(finite):
        step = losses[finite.index(False)][0]
        raise Diverged(step + 1, recipe.rate.at(step))


def removal_gradient(recipe: Recipe, at: Learner, batches: Sequence[Batch]) -> torch.Tensor:
    """Sum over batches the gradient of M's loss minus that of M', all at the same weights.

    For a batch that is forgotten whole this is its gradient; for points of a batch it is what taking them out changes
    in the step, (1/b) sum_k grad l(w, x*_k) where M' divides by the batch size. Buffers are not touched.

    Args:
        recipe: the loss and its augmentation.
        at: gives weights and buffers.
        batches: those that hold forgotten points.

    Returns:
        Shape (dim,).
    """
    objective, device = recipe.objective, at.weights.device
    total = torch.zeros_like(at.weights)
    for batch in batches:
        draws = objective.draws(batch.epoch)
        for sign, points in ((1, batch.indices), (-1, batch.kept)):
            if len(points):
                _, gradient = objective.gradient(
                    at.weights,
                    clone(at.buffers),
                    points.to(device),
                    draws=draws,
                    count=len(batch.indices),
                    train=True,
                    step=batch.step,
                )
                total.add_(gradient, alpha=sign)
    return total


def removal_of(recipe: Recipe, step: Step, original: Learner) -> torch.Tensor:
    """Give M's gradient minus that of M' on the points it keeps, at the weights that M's last step started from.

    Args:
        recipe: the loss and its augmentation.
        step: a step that held some forgotten points, just taken.
        original: M, with that step's gradient.

    Returns:
        Shape (dim,).
    """
    assert original.gradient is not None
    device = original.weights.device
    before = torch.add(original.weights, original.velocity, alpha=step.lr)
    _, gradient = recipe.objective.gradient(
        before,
        clone(original.buffers),
        step.batch.kept.to(device),
        draws=recipe.objective.draws(step.batch.epoch),
        count=len(step.batch.indices),
        train=original.train_mode,
        step=step.batch.step,
        as_trained=True,  # as M's own, from which it is taken
    )
    return original.gradient - gradient

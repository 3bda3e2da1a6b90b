"""What training keeps for the methods. Memory does not grow with the steps but for what is listed as growing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.curvature.transport import Flow
from unlearn.train.carried import Carried
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_gradient
from unlearn.train.visits import KEPT, SUMS, Visits
from unlearn.values.errors import UserError
from unlearn.values.schedule import Batch, Schedule

# what can be recorded, and how many vectors of the size of the model it takes
RECORDS = {
    "initial_gradient": "one",
    "first_gradient": "one",
    "updates": "one",
    "checkpoint_gradients": "two",
    "visits": "a bounded number",
    "carried": "a bounded number",
    "checkpoints": "one a checkpoint",
}


def vectors_needed(records: frozenset[str], schedule: Schedule, checkpoint_every: int) -> int:
    """Count the vectors that a recording will hold at its end, at most.

    Args:
        records: names of `RECORDS`.
        schedule: of the recorded phase.
        checkpoint_every: K.

    Returns:
        How many vectors of the size of the model, w_0 not counted.
    """
    growing = schedule.total_steps // checkpoint_every if "checkpoints" in records else 0
    for name in records & {"visits", "carried"}:
        growing += 2 * min(schedule.visits(), KEPT) + SUMS + (0 if name == "visits" else 3)
    fixed = {"one": 1, "two": 2}
    return growing + sum(fixed.get(RECORDS[name], 0) for name in records)


def check_records(records: frozenset[str]) -> None:
    """Refuse unknown names.

    Args:
        records: what the user listed.

    Raises:
        UserError: a name is not one of `RECORDS`.
    """
    unknown = sorted(records - RECORDS.keys())
    if unknown:
        raise UserError(f"training.record={unknown[0]}: choose from auto, {', '.join(RECORDS)}")


@dataclass
class Recording:
    """What was seen while M trained.

    Attributes:
        recipe: of the recorded phase.
        records: names of `RECORDS`.
        checkpoint_every: K, steps between checkpoints.
        initial: w_0 with its buffers.
        first_pass: the batches of an epoch that hold a forgotten point: the first epoch that has any.
        steps: t, how many steps M has taken.
        visits: how many of them held a forgotten point.
        retained: how many points M' has been trained on.
        rate_sum: sum of lr over all steps so far.
        plain: sum over visits of p * lr, its first-order effect under plain SGD, with p how many of the forgotten
            points it held, as a share of those in the first pass: an epoch adds up to one pass, whatever its batches.
        momentum_aware: sum over visits s of p * sum_{i=s..t} lr_i mu^(i-s), its effect by step t under momentum mu.
        initial_gradient: of the removal at w_0, summed over the first pass.
        first_gradient: the same at w_1, the weights just after the first visit.
        update_sum: sum over visits of w_{s+1} - w_s.
        checkpoint_correction: sum over visits of p * lr * (removal gradient at the newest checkpoint before it).
        visited: what each visit did to M.
        carried: what has become of the removals.
        checkpoints: weights every K steps, on the CPU.
    """

    recipe: Recipe
    initial: Learner
    records: frozenset[str]
    checkpoint_every: int
    first_pass: list[Batch] = field(default_factory=list)
    steps: int = 0
    visits: int = 0
    retained: int = 0
    rate_sum: float = 0.0
    plain: float = 0.0
    momentum_aware: float = 0.0
    initial_gradient: Tensor | None = None
    first_gradient: Tensor | None = None
    update_sum: Tensor | None = None
    checkpoint_correction: Tensor | None = None
    visited: Visits | None = None
    carried: Carried | None = None
    checkpoints: list[Tensor] = field(default_factory=list)
    _carried: float = 0.0
    _checkpoint: Learner | None = None
    _checkpoint_gradient: Tensor | None = None

    @classmethod
    def start(cls, recipe: Recipe, initial: Learner, records: frozenset[str], checkpoint_every: int) -> "Recording":
        """Begin before the first step.

        Args:
            recipe: of the recorded phase.
            initial: w_0; copied.
            records: names of `RECORDS`.
            checkpoint_every: K, steps between checkpoints.

        Returns:
            A recording with the gradient at w_0 taken, where asked for.
        """
        start = Learner.start(initial.weights, initial.buffers)
        self = cls(recipe, start, records, checkpoint_every)
        if recipe.schedule.forget:  # an epoch has no visit where all forgotten points are in the tail that it drops
            passes = (_visits(recipe.schedule.epoch(epoch)) for epoch in range(recipe.schedule.epochs))
            self.first_pass = next(filter(None, passes), [])
        zeros = torch.zeros_like(initial.weights)
        if "initial_gradient" in records:
            self.initial_gradient = removal_gradient(recipe, start, self.first_pass)
        if "updates" in records:
            self.update_sum = zeros.clone()
        if "visits" in records:
            self.visited = Visits(recipe)
        if "carried" in records:
            self.carried = Carried.start(recipe, start)
        if "checkpoint_gradients" in records:
            self._checkpoint, self.checkpoint_correction = start, zeros.clone()
        return self

    def flow(self, start: int = 0) -> Flow:
        """Describe the SGD so far, for carrying removals through it.

        Args:
            start: the first step that counts.

        Returns:
            Learning rate of each step taken since, momentum and weight decay.
        """
        optimizer = self.recipe.optimizer
        rates = [self.recipe.rate.at(step) for step in range(start, self.steps)]
        return Flow(rates, optimizer.momentum, optimizer.weight_decay, start)

    def observe(self, step: Step, original: Learner) -> None:
        """Look at M just after a step.

        Args:
            step: the step.
            original: M; its gradient, velocity and weights are read.
        """
        momentum = self.recipe.optimizer.momentum
        self.rate_sum += step.lr
        self.steps = step.taken
        self.retained += len(step.batch.kept)
        share = _forgotten([step.batch]) / _forgotten(self.first_pass) if step.batch.is_visit else 0.0
        self._carried = momentum * self._carried + share
        self.momentum_aware += step.lr * self._carried
        if step.batch.is_visit:
            self.visits += 1
            self.plain += step.lr * share
            self._observe_visit(step, original, share)
        if step.taken % self.checkpoint_every == 0:
            if "checkpoints" in self.records:
                self.checkpoints.append(original.weights.to("cpu", copy=True))
            if "checkpoint_gradients" in self.records:
                self._checkpoint = Learner.start(original.weights, original.buffers)
                self._checkpoint_gradient = None

    def _observe_visit(self, step: Step, original: Learner, share: float) -> None:
        if "first_gradient" in self.records and self.first_gradient is None:
            self.first_gradient = removal_gradient(self.recipe, original, self.first_pass)
        if self.visited is not None:
            self.visited.observe(step, original)
        if self.carried is not None:
            self.carried.visits.observe(step, original)
        if self.update_sum is not None:
            self.update_sum.add_(original.velocity, alpha=-step.lr)
        if self.checkpoint_correction is not None and self._checkpoint is not None:
            if self._checkpoint_gradient is None:
                self._checkpoint_gradient = removal_gradient(self.recipe, self._checkpoint, self.first_pass)
            self.checkpoint_correction.add_(self._checkpoint_gradient, alpha=step.lr * share)


def _visits(batches: Sequence[Batch]) -> list[Batch]:
    return [batch for batch in batches if batch.is_visit]


def _forgotten(batches: Sequence[Batch]) -> int:
    return sum(len(batch.indices) - len(batch.kept) for batch in batches)


@dataclass(frozen=True)
class Trained:
    """What a method may look at, at one moment of training.

    Attributes:
        recipe: of the recorded phase.
        original: M. Methods must not change it.
        retrained: M'. Only `retrain` and the oracles of tests look at it.
        recording: what was kept.
        seed: for the stream "method".
    """

    recipe: Recipe
    original: Learner
    retrained: Learner
    recording: Recording
    seed: int

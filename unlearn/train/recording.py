"""What training keeps for the methods. Memory does not grow with the steps but for what is listed as growing."""

from dataclasses import dataclass, field, replace

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
    "first_gradient": "two",
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
        first_pass: the visits at which forgotten points took part for the first time; all others are in `kept` there.
        seen: these points.
        steps: t, how many steps M has taken.
        visits: how many of them held a forgotten point.
        retained: how many points M' has been trained on.
        rate_sum: sum of lr over all steps so far.
        plain_sum: sum over visits of n * lr, n the forgotten points that it held.
        aware_sum: sum over visits s of n * sum_{i=s..t} lr_i mu^(i-s).
        initial_gradient: of the removal at w_0, summed over the first pass; None before it.
        first_gradient: the same at w_1, the weights just after the first visit.
        update_sum: sum over visits of w_{s+1} - w_s.
        checkpoint_correction: sum over visits of lr * (its removal gradient at the newest checkpoint before it); after
            the first pass, of the first pass's gradient there times n over its points.
        visited: what each visit did to M.
        carried: what has become of the removals.
        checkpoints: weights every K steps, on the CPU.
    """

    recipe: Recipe
    initial: Learner
    records: frozenset[str]
    checkpoint_every: int
    first_pass: list[Batch] = field(default_factory=list)
    seen: frozenset[int] = frozenset()
    steps: int = 0
    visits: int = 0
    retained: int = 0
    rate_sum: float = 0.0
    plain_sum: float = 0.0
    aware_sum: float = 0.0
    initial_gradient: Tensor | None = None
    first_gradient: Tensor | None = None
    update_sum: Tensor | None = None
    checkpoint_correction: Tensor | None = None
    visited: Visits | None = None
    carried: Carried | None = None
    checkpoints: list[Tensor] = field(default_factory=list)
    _carried: float = 0.0
    _second: Learner | None = None
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
            A recording of nothing.
        """
        start = Learner.start(initial.weights, initial.buffers)
        self = cls(recipe, start, records, checkpoint_every)
        zeros = torch.zeros_like(initial.weights)
        if "updates" in records:
            self.update_sum = zeros.clone()
        if "visits" in records:
            self.visited = Visits(recipe)
        if "carried" in records:
            self.carried = Carried.start(recipe, start)
        if "checkpoint_gradients" in records:
            self._checkpoint, self.checkpoint_correction = start, zeros.clone()
        return self

    @property
    def plain(self) -> float:
        """How many times lr the gradient of the first pass has moved the weights by, to first order under plain SGD."""
        return self.plain_sum / len(self.seen) if self.seen else 0.0

    @property
    def momentum_aware(self) -> float:
        """The same under momentum, by step t."""
        return self.aware_sum / len(self.seen) if self.seen else 0.0

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
        self._carried = momentum * self._carried + step.batch.taken_out
        self.aware_sum += step.lr * self._carried
        if step.batch.is_visit:
            self.visits += 1
            self.plain_sum += step.lr * step.batch.taken_out
            self._observe_visit(step, original)
        if step.taken % self.checkpoint_every == 0:
            if "checkpoints" in self.records:
                self.checkpoints.append(original.weights.to("cpu", copy=True))
            if "checkpoint_gradients" in self.records:
                self._checkpoint = Learner.start(original.weights, original.buffers)
                self._checkpoint_gradient = None

    def _observe_visit(self, step: Step, original: Learner) -> None:
        fresh = self._fresh(step.batch)
        if fresh is not None:
            self.first_pass.append(fresh)
            self._observe_first(fresh, original)
        if self.visited is not None:
            self.visited.observe(step, original)
        if self.carried is not None:
            self.carried.visits.observe(step, original)
        if self.update_sum is not None:
            self.update_sum.add_(original.velocity, alpha=-step.lr)
        if self.checkpoint_correction is not None and self._checkpoint is not None:
            gradient, share = self._at_checkpoint(step.batch, fresh)
            self.checkpoint_correction.add_(gradient, alpha=step.lr * share)

    def _fresh(self, batch: Batch) -> Batch | None:
        """Give a visit with only those points forgotten that were not before; None where there are none."""
        if len(self.seen) == len(self.recipe.schedule.forget):
            return None
        gone = set(batch.indices.tolist()) - set(batch.kept.tolist())
        new = gone - self.seen
        self.seen |= new
        if new == gone:
            return batch
        kept = torch.tensor([point for point in batch.indices.tolist() if point not in new], dtype=torch.int64)
        return replace(batch, kept=kept) if new else None

    def _observe_first(self, fresh: Batch, original: Learner) -> None:
        if "initial_gradient" in self.records:
            self.initial_gradient = self._more(self.initial_gradient, self.initial, fresh)
        if "first_gradient" in self.records:
            if self._second is None:
                self._second = Learner.start(original.weights, original.buffers)
            self.first_gradient = self._more(self.first_gradient, self._second, fresh)

    def _more(self, gradient: Tensor | None, at: Learner, fresh: Batch) -> Tensor:
        more = removal_gradient(self.recipe, at, [fresh])
        return more if gradient is None else gradient.add_(more)

    def _at_checkpoint(self, batch: Batch, fresh: Batch | None) -> tuple[Tensor, float]:
        assert self._checkpoint is not None
        if fresh is batch:
            gradient = removal_gradient(self.recipe, self._checkpoint, [batch])
            self._checkpoint_gradient = gradient if len(self.first_pass) == 1 else None
            return gradient, 1.0
        if self._checkpoint_gradient is None or fresh is not None:
            self._checkpoint_gradient = removal_gradient(self.recipe, self._checkpoint, self.first_pass)
        return self._checkpoint_gradient, batch.taken_out / len(self.seen)


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

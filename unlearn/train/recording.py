"""What training keeps for the methods, in memory that does not grow with the steps."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unlearn.curvature.transport import Flow
from unlearn.train.carried import Carried
from unlearn.train.checkpointed import Checkpointed
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_gradient
from unlearn.train.visits import Group, Visits
from unlearn.values.errors import UserError
from unlearn.values.schedule import Batch

RECORDS = ("initial_gradient", "first_gradient", "updates", "checkpoint_gradients", "visits", "carried")


def check_records(records: frozenset[str]) -> None:
    """Refuse unknown names.

    Args:
        records: what the user listed.

    Raises:
        UserError: a name is not one of `RECORDS`.
    """
    unknown = sorted(records - set(RECORDS))
    if unknown:
        raise UserError(f"training.record={unknown[0]}: choose from auto, {', '.join(RECORDS)}")


@dataclass
class Recording:
    """What was seen while M trained.

    Attributes:
        recipe: of the recorded phase.
        initial: w_0 with its buffers.
        records: names of `RECORDS`.
        checkpoint_every: K, steps between checkpoints.
        first_pass: the visits at which forgotten points took part for the first time; all others are in `kept` there.
        seen: these points.
        steps: t, how many steps M has taken.
        visit_count: how many of them held a forgotten point.
        retrain_points: how many points M' has been trained on.
        rate_sum: sum of lr over all steps so far.
        first_share: sum over the first pass of n / b, n the forgotten points among the b of a batch.
        plain_sum: sum over visits of (n / b) lr.
        aware_sum: sum over visits s of (n / b) sum_{i=s..t} lr_i mu^(i-s).
        initial_gradient: of the removal at w_0, summed over the first pass; None before it.
        first_gradient: the same at w_1, the weights just after the first visit.
        update_sum: sum over visits of w_{s+1} - w_s.
        checkpointed: the removal gradients at checkpoints.
        visits: what each visit did to M.
        carried: what the removals have become, as far as the forecast has carried them.
    """

    recipe: Recipe
    initial: Learner
    records: frozenset[str]
    checkpoint_every: int
    first_pass: list[Batch] = field(default_factory=list)
    seen: frozenset[int] = frozenset()
    steps: int = 0
    visit_count: int = 0
    retrain_points: int = 0
    rate_sum: float = 0.0
    first_share: float = 0.0
    plain_sum: float = 0.0
    aware_sum: float = 0.0
    initial_gradient: Tensor | None = None
    first_gradient: Tensor | None = None
    update_sum: Tensor | None = None
    checkpointed: Checkpointed | None = None
    visits: Visits | None = None
    carried: Carried | None = None
    _share_velocity: float = 0.0
    _second: Learner | None = None

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
        if "updates" in records:
            self.update_sum = torch.zeros_like(initial.weights)
        if "visits" in records:
            self.visits = Visits(recipe)
        if "carried" in records:
            self.carried = Carried.start(recipe, start)
        if "checkpoint_gradients" in records:
            self.checkpointed = Checkpointed.start(recipe, start)
        return self

    @property
    def plain(self) -> float:
        """By how many times the gradient of the first pass the weights have moved, to first order under plain SGD.

        The sum over visits of lr times the share of the batch, over that share in the first pass: lr for one visit.
        """
        return self.plain_sum / self.first_share if self.seen else 0.0

    @property
    def momentum_aware(self) -> float:
        """The same under momentum, by step t."""
        return self.aware_sum / self.first_share if self.seen else 0.0

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
        self.retrain_points += len(step.batch.kept)
        self._share_velocity = momentum * self._share_velocity + step.batch.share_out
        self.aware_sum += step.lr * self._share_velocity
        if step.batch.is_visit:
            self.visit_count += 1
            self.plain_sum += step.lr * step.batch.share_out
            self._observe_visit(step, original)
        if self.checkpointed is not None:
            self.checkpointed.observe(step)
            if step.taken % self.checkpoint_every == 0:
                self.checkpointed.move(original)

    def _observe_visit(self, step: Step, original: Learner) -> None:
        fresh = self._fresh(step.batch)
        if fresh is not None:
            self.first_pass.append(fresh)
            self.first_share += fresh.share_out
            self._observe_first(fresh, original)
        lists = [self.visits, None if self.carried is None else self.carried.visits]
        if any(each is not None for each in lists):
            visit = Group.of(self.recipe, step, original)
            for each in lists:
                if each is not None:
                    each.add(visit)
        if self.update_sum is not None:
            self.update_sum.add_(original.velocity, alpha=-step.lr)

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
            if self.steps == 1 and not len(fresh.kept) and self.recipe.objective.arithmetic == "float32":
                assert original.gradient is not None
                self.initial_gradient = original.gradient.clone()  # the step's own, which was taken at w_0
            else:
                self.initial_gradient = self._more(self.initial_gradient, self.initial, fresh)
        if "first_gradient" in self.records:
            if self._second is None:
                self._second = Learner.start(original.weights, original.buffers)
            self.first_gradient = self._more(self.first_gradient, self._second, fresh)

    def _more(self, gradient: Tensor | None, at: Learner, fresh: Batch) -> Tensor:
        more = removal_gradient(self.recipe, at, [fresh])
        return more if gradient is None else gradient.add_(more)


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

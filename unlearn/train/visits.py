"""What each visit of the forget set did to M, for carrying it on to the present."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.curvature.transport import Visit
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_of

KEPT = 8  # visits that are kept one by one


@dataclass
class Visits:
    """The visits so far, in memory that does not grow beyond a bound.

    Up to `KEPT` visits are kept as they were. From then on only their mean is, and stands for each of them. Points
    taken out of a batch cost a gradient a visit, so of those only the first `KEPT` go into the mean.

    Attributes:
        recipe: of the recorded phase.
        steps: the step of each visit.
        whole: whether M' took no step at it.
        kept: the first visits; empty once there were more than `KEPT`.
        summed: how many visits went into the sums.
        push_sum: the sum of their `push`.
        jump_sum: the sum of their `jump`.
    """

    recipe: Recipe
    steps: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    kept: list[Visit] = field(default_factory=list)
    summed: int = 0
    push_sum: Tensor | None = None
    jump_sum: Tensor | None = None

    def observe(self, step: Step, original: Learner) -> None:
        """Look at M just after a visit.

        Args:
            step: the step.
            original: M.
        """
        whole = not len(step.batch.kept)
        self.steps.append(step.batch.step)
        self.whole.append(whole)
        if len(self.steps) > KEPT:
            self.kept.clear()
            if not whole:
                return
        push, jump = (
            (original.velocity, self._jump(step, original))
            if whole
            else (removal_of(self.recipe, step, original), None)
        )
        self.summed += 1
        self.push_sum = push.clone() if self.push_sum is None else self.push_sum.add_(push)
        if jump is not None:
            self.jump_sum = jump.clone() if self.jump_sum is None else self.jump_sum.add_(jump)
        if len(self.steps) <= KEPT:
            self.kept.append(Visit(step.batch.step, whole, push.clone(), jump))

    def _jump(self, step: Step, original: Learner) -> Tensor | None:
        momentum, decay = self.recipe.optimizer.momentum, self.recipe.optimizer.weight_decay
        if not momentum:
            return None
        assert original.gradient is not None
        before = torch.add(original.weights, original.velocity, alpha=step.lr)
        pull = original.gradient.add(before, alpha=decay)
        return original.velocity - (original.velocity - pull) / momentum  # v+ = mu v + pull

    def all(self) -> list[Visit]:
        """List every visit.

        Returns:
            As they were, or each with the mean of all.
        """
        if self.kept or self.push_sum is None:
            return self.kept
        push = self.push_sum / self.summed
        jump = None if self.jump_sum is None else self.jump_sum / self.summed
        return [Visit(step, whole, push, jump) for step, whole in zip(self.steps, self.whole, strict=True)]

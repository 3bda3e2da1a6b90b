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

    Up to `KEPT` visits are kept as they were. From then on only their mean is, and stands for each of them.

    Attributes:
        recipe: of the recorded phase.
        steps: the step of each visit.
        whole: whether M' took no step at it.
        kept: the first visits; empty once there were more than `KEPT`.
        push_sum: the sum of their `push`.
        jump_sum: the sum of their `jump`.
    """

    recipe: Recipe
    steps: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    kept: list[Visit] = field(default_factory=list)
    push_sum: Tensor | None = None
    jump_sum: Tensor | None = None

    def observe(self, step: Step, original: Learner) -> None:
        """Look at M just after a visit.

        Args:
            step: the step.
            original: M.
        """
        momentum = self.recipe.optimizer.momentum
        whole = not len(step.batch.kept)
        push, jump = original.velocity, None
        if not whole:
            push = removal_of(self.recipe, step, original)
        elif momentum:
            assert original.gradient is not None
            before = torch.add(original.weights, original.velocity, alpha=step.lr)
            pull = original.gradient.add(before, alpha=self.recipe.optimizer.weight_decay)
            jump = push - (push - pull) / momentum  # v+ = mu v + pull
        self.steps.append(step.batch.step)
        self.whole.append(whole)
        self.push_sum = push.clone() if self.push_sum is None else self.push_sum.add_(push)
        if jump is not None:
            self.jump_sum = jump.clone() if self.jump_sum is None else self.jump_sum.add_(jump)
        if len(self.steps) <= KEPT:
            self.kept.append(Visit(step.batch.step, whole, push.clone(), jump))
        else:
            self.kept.clear()

    def all(self) -> list[Visit]:
        """List every visit.

        Returns:
            As they were, or each with the mean of all.
        """
        if self.kept or self.push_sum is None:
            return self.kept
        count = len(self.steps)
        push = self.push_sum / count
        jump = None if self.jump_sum is None else self.jump_sum / count
        return [Visit(step, whole, push, jump) for step, whole in zip(self.steps, self.whole, strict=True)]

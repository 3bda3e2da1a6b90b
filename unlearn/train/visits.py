"""What each visit of the forget set did to M, for carrying it on to the present."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.curvature.transport import Visit
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_of

KEPT = 8  # visits that are kept one by one


@dataclass
class Summed:
    """The visits of a kind, added up.

    Attributes:
        count: how many.
        push: the sum of their `push`; None before the first.
        jump: the sum of their `jump`; None where they have none.
    """

    count: int = 0
    push: Tensor | None = None
    jump: Tensor | None = None

    def add(self, push: Tensor, jump: Tensor | None) -> None:
        """Add one.

        Args:
            push: copied.
            jump: copied, or None.
        """
        self.count += 1
        self.push = push.clone() if self.push is None else self.push.add_(push)
        if jump is not None:
            self.jump = jump.clone() if self.jump is None else self.jump.add_(jump)

    def mean(self) -> tuple[Tensor, Tensor | None]:
        """Give the mean of `push` and of `jump`; there must be one."""
        assert self.push is not None
        return self.push / self.count, None if self.jump is None else self.jump / self.count


@dataclass
class Visits:
    """The visits so far, in memory that does not grow beyond a bound.

    Up to `KEPT` visits are kept as they were. From then on only the mean of each kind is, and stands for each of them:
    a batch forgotten whole pushes with a velocity, points of a batch with a difference of gradients. The latter costs
    a gradient a visit. Each visit counts: scattered ones hold different points.

    Attributes:
        recipe: of the recorded phase.
        steps: the step of each visit.
        whole: whether M' took no step at it.
        kept: the first visits; empty once there were more than `KEPT`.
        of_batches: those of batches forgotten whole.
        of_points: those of points of a batch.
    """

    recipe: Recipe
    steps: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    kept: list[Visit] = field(default_factory=list)
    of_batches: Summed = field(default_factory=Summed)
    of_points: Summed = field(default_factory=Summed)

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
        push, jump = (
            (original.velocity, self._jump(step, original))
            if whole
            else (removal_of(self.recipe, step, original), None)
        )
        (self.of_batches if whole else self.of_points).add(push, jump)
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
            As they were, or each with the mean of its kind.
        """
        if len(self.steps) <= KEPT:
            return self.kept
        means = {whole: (self.of_batches if whole else self.of_points).mean() for whole in set(self.whole)}
        return [Visit(step, whole, *means[whole]) for step, whole in zip(self.steps, self.whole, strict=True)]

    def nothing(self) -> bool:
        """Say whether there were none, or what they did adds up to zero."""
        pushes = (self.of_batches.push, self.of_points.push)
        return not any(push is not None and bool(push.any()) for push in pushes)

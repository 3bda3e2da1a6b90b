"""What each visit of the forget set did to M, for carrying it on to the present."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from unlearn.curvature.transport import Visit
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_of

KEPT = 8  # groups of visits; the visits are kept one by one until there are more


@dataclass(frozen=True)
class Group:
    """Visits of a kind that follow each other, added up: their mean stands for each of them.

    Attributes:
        whole: whether M' took no step at them.
        steps: of each, ascending.
        push: the sum of their `push`, shape (dim,).
        jump: the sum of their `jump`; None where they have none.
    """

    whole: bool
    steps: list[int]
    push: Tensor
    jump: Tensor | None

    @classmethod
    def of(cls, recipe: Recipe, step: Step, original: Learner) -> "Group":
        """Look at M just after a visit.

        Args:
            recipe: of the recorded phase.
            step: the step.
            original: M.

        Returns:
            The visit. Of points of a batch it costs a gradient.
        """
        whole = not len(step.batch.kept)
        push = original.velocity.clone() if whole else removal_of(recipe, step, original)
        return cls(whole, [step.batch.step], push, _jump(recipe, step, original) if whole else None)

    def joined(self, later: "Group") -> "Group":
        """Add up with a group.

        Args:
            later: of the same kind.

        Returns:
            Both in one.
        """
        jump = None if self.jump is None or later.jump is None else self.jump + later.jump
        return Group(self.whole, self.steps + later.steps, self.push + later.push, jump)

    def visits(self) -> list[Visit]:
        """List the visits.

        Returns:
            One a step; all share the mean vectors.
        """
        push, jump, count = self.push, self.jump, len(self.steps)
        if count > 1:
            push, jump = push / count, None if jump is None else jump / count
        return [Visit(step, self.whole, push, jump) for step in self.steps]


@dataclass
class Visits:
    """The visits so far, in memory that does not grow beyond a bound.

    Up to `KEPT` visits are kept as they were. From then on neighbours of a kind share their mean, those first that are
    fewest together: a batch forgotten whole pushes with a velocity, points of a batch with a difference of gradients.
    Each visit counts: scattered ones hold different points.

    Attributes:
        recipe: of the recorded phase.
        groups: by their first steps, ascending; by key, so that views of two moments share those that stayed.
    """

    recipe: Recipe
    groups: dict[int, Group] = field(default_factory=dict)

    @property
    def first(self) -> int | None:
        """The step of the first visit, or None."""
        return next(iter(self.groups), None)

    def add(self, visit: Group) -> None:
        """Take in a visit.

        Args:
            visit: later than all before.
        """
        self.groups[visit.steps[0]] = visit
        if len(self.groups) > KEPT:
            self._join()

    def _join(self) -> None:
        """Join the two neighbours of a kind that are fewest together."""
        of_kinds = [[group for group in self.groups.values() if group.whole == whole] for whole in (True, False)]
        neighbours = [pair for of_kind in of_kinds for pair in pairwise(of_kind)]
        earlier, later = min(neighbours, key=lambda pair: len(pair[0].steps) + len(pair[1].steps))
        del self.groups[later.steps[0]]
        self.groups[earlier.steps[0]] = earlier.joined(later)

    def all(self) -> list[Visit]:
        """List every visit.

        Returns:
            In the order of their steps; as they were, or each with the mean of its group.
        """
        every = (visit for group in self.groups.values() for visit in group.visits())
        return sorted(every, key=lambda visit: visit.step)

    def nothing(self) -> bool:
        """Say whether there were none, or what they did was nothing."""
        return not any(bool(group.push.any()) for group in self.groups.values())


def _jump(recipe: Recipe, step: Step, original: Learner) -> Tensor | None:
    momentum, decay = recipe.optimizer.momentum, recipe.optimizer.weight_decay
    if not momentum:
        return None
    assert original.gradient is not None
    before = torch.add(original.weights, original.velocity, alpha=step.lr)
    pull = original.gradient.add(before, alpha=decay)
    return original.velocity - (original.velocity - pull) / momentum  # v+ = mu v + pull

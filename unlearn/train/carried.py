"""The removals as they stand at the newest measured step, and what came after it."""

from dataclasses import dataclass, replace

from torch import Tensor

from unlearn.curvature.transport import Difference, Flow, Removal
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe
from unlearn.train.path import Segment
from unlearn.train.visits import Visits


@dataclass(frozen=True)
class Carried:
    """Where the transport of the removals stands. It goes on from there: curvature is never older than one segment.

    Attributes:
        steps: how many steps M had taken then.
        weights: of M then, shape (dim,).
        visits: since then; grows while M trains.
        difference: w - w' and v - v' as predicted then; None before the first visit.
        error: of d, estimated; the errors of the segments add, in units of weight.
        spread: between the predictions of two halves of the batches, in units of weight, the segments as independent.
        growth: how many times longer negative curvature has made d, as a logarithm; that of the segments added.
    """

    steps: int
    weights: Tensor
    visits: Visits
    difference: Difference | None = None
    error: float = 0.0
    spread: float = 0.0
    growth: float = 0.0

    @property
    def since(self) -> int:
        """The first step whose curvature the removals have met: where there were none before, that after a visit."""
        first = self.visits.first
        return self.steps if self.difference is not None or first is None else first + 1

    def segment(self, steps: int, now: Learner) -> Segment:
        """Describe the steps since.

        Args:
            steps: how many M has taken.
            now: M.

        Returns:
            What curvature is taken on.
        """
        return Segment(self.visits.recipe, self.weights, now, range(self.steps, steps), self.since)

    @classmethod
    def start(cls, recipe: Recipe, initial: Learner) -> "Carried":
        """Begin before the first step.

        Args:
            recipe: of the recorded phase.
            initial: M at w_0.

        Returns:
            Nothing carried.
        """
        return cls(0, initial.weights.clone(), Visits(recipe))

    def removal(self, flow: Flow) -> Removal | None:
        """Say what is to be carried on.

        Args:
            flow: the steps since.

        Returns:
            The removal; None where there is nothing, or it is zero.
        """
        removal = Removal(self.difference, self.visits.all(), flow)
        return removal if any(bool(part.any()) for part in removal.parts) else None

    def at(self, steps: int, original: Learner) -> "Carried":
        """Move on without a removal.

        Args:
            steps: how many steps M has taken.
            original: M.

        Returns:
            The same difference, at these steps.
        """
        return replace(self, steps=steps, weights=original.weights.clone(), visits=Visits(self.visits.recipe))

"""The gradients of the removals at checkpoints: each expansion is as short as the steps since the newest one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, removal_gradient
from unlearn.values.schedule import Batch


@dataclass
class Checkpointed:
    """What single-gradient unlearning at checkpoints adds back.

    Attributes:
        recipe: of the recorded phase.
        checkpoint: the newest.
        plain: sum over visits of lr times the visit's gradient, shape (dim,).
        settled: sum over visits s of sum_i lr_i mu^(i-s) times its gradient, i from s to just before the newest visit.
        decayed: sum over visits s of mu^(n-s) times its gradient, n the newest visit.
        due: sum_{i=n..t} lr_i mu^(i-n).
        fade: mu^(t-n).
        of_first_pass: the gradient of the whole first pass at the checkpoint; None where it was not needed there.
    """

    recipe: Recipe
    checkpoint: Learner
    plain: Tensor
    settled: Tensor
    decayed: Tensor
    due: float = 0.0
    fade: float = 1.0
    of_first_pass: Tensor | None = None

    @classmethod
    def start(cls, recipe: Recipe, initial: Learner) -> "Checkpointed":
        """Begin before the first step.

        Args:
            recipe: of the recorded phase.
            initial: w_0, the first checkpoint.

        Returns:
            Nothing to add back.
        """
        plain, settled, decayed = (torch.zeros_like(initial.weights) for _ in range(3))
        return cls(recipe, initial, plain, settled, decayed)

    def move(self, original: Learner) -> None:
        """Make M, as it is now, the checkpoint.

        Args:
            original: M; copied.
        """
        self.checkpoint, self.of_first_pass = Learner.start(original.weights, original.buffers), None

    def gradient(self, batch: Batch, fresh: Batch | None, first_pass: list[Batch], first_share: float) -> Tensor:
        """Give the removal gradient of a visit at the checkpoint.

        Args:
            batch: the visit.
            fresh: the same with only those points forgotten that were not before; None where there are none.
            first_pass: all such visits so far, with this one.
            first_share: sum of their shares n / b.

        Returns:
            Shape (dim,). Where points come back, that of the first pass, times this visit's share over `first_share`.
        """
        if fresh is batch:
            gradient = removal_gradient(self.recipe, self.checkpoint, [batch])
            self.of_first_pass = gradient if len(first_pass) == 1 else None
            return gradient
        if self.of_first_pass is None or fresh is not None:
            self.of_first_pass = removal_gradient(self.recipe, self.checkpoint, first_pass)
        return self.of_first_pass * (batch.share_out / first_share)

    def observe(self, lr: float, gradient: Tensor | None) -> None:
        """Take a step.

        Args:
            lr: its learning rate.
            gradient: of the visit; None where the step is none.
        """
        self.fade *= self.recipe.optimizer.momentum
        if gradient is not None:
            self.plain.add_(gradient, alpha=lr)
            self.settled.add_(self.decayed, alpha=self.due)
            self.decayed.mul_(self.fade).add_(gradient)
            self.due, self.fade = 0.0, 1.0
        self.due += lr * self.fade

    @property
    def momentum_aware(self) -> Tensor:
        """As `plain`, with the effect that momentum has given to each visit by now, shape (dim,)."""
        return self.settled.add(self.decayed, alpha=self.due)

"""The gradients of the removals at checkpoints: each expansion is as short as the steps since the newest one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step, removal_gradient


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
    """

    recipe: Recipe
    checkpoint: Learner
    plain: Tensor
    settled: Tensor
    decayed: Tensor
    due: float = 0.0
    fade: float = 1.0

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
        self.checkpoint = Learner.start(original.weights, original.buffers)

    def observe(self, step: Step) -> None:
        """Take a step; a visit costs the gradient of its removal at the checkpoint.

        Args:
            step: which M has just taken.
        """
        lr = step.lr
        self.fade *= self.recipe.optimizer.momentum
        if step.batch.is_visit:
            gradient = removal_gradient(self.recipe, self.checkpoint, [step.batch])
            self.plain.add_(gradient, alpha=lr)
            self.settled.add_(self.decayed, alpha=self.due)
            self.decayed.mul_(self.fade).add_(gradient)
            self.due, self.fade = 0.0, 1.0
        self.due += lr * self.fade

    @property
    def momentum_aware(self) -> Tensor:
        """As `plain`, with the effect that momentum has given to each visit by now, shape (dim,)."""
        return self.settled.add(self.decayed, alpha=self.due)

"""Gradient ascent: climb the loss of the forget set from M. Much used, and often harmful; a rival to read against.

w <- w + lr * grad L(w, D_f), over batches of the forget set. The field often cites the single-gradient paper for it;
it is a different method.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from unlearn.methods.method import Unlearned
from unlearn.models.network import clone
from unlearn.train.recording import Trained
from unlearn.values.errors import above, at_least
from unlearn.values.streams import seed_for


@dataclass(frozen=True)
class GradientAscent:
    """Gradient ascent on the forget set.

    Attributes:
        name: for logs.
        lr: step size.
        epochs: passes over the forget set.
    """

    name: str
    lr: float
    epochs: int
    online: ClassVar[bool] = False

    def __post_init__(self) -> None:
        above("method.lr", self.lr, 0)
        at_least("method.epochs", self.epochs, 0)

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def unlearn(self, trained: Trained) -> Unlearned:
        """Climb.

        Args:
            trained: M and the loss; forward passes are in train mode, on copies of the buffers, with dropout drawn
                anew for each, without augmentation but that which is drawn `once` for all epochs.

        Returns:
            M''.
        """
        objective, schedule = trained.recipe.objective, trained.recipe.schedule
        weights, buffers = trained.original.weights.clone(), clone(trained.original.buffers)
        forget = torch.tensor(schedule.forget, dtype=torch.int64, device=weights.device)
        draws = objective.frozen_draws
        objective = replace(objective, seed=seed_for(trained.seed, "method"))  # masks of its own, not those of M
        batches = forget.split(schedule.batch_size) * self.epochs if len(forget) else ()
        for step, points in enumerate(batches):
            _, gradient = objective.gradient(weights, buffers, points, draws=draws, step=step)
            weights.add_(gradient, alpha=self.lr)
        return Unlearned(weights, buffers, self.epochs * len(forget))

"""Fine-tuning: train M on the retain set and hope that it forgets. The weakest useful rival.

With noise added at the end it is the idea of descent-to-delete (Neel, Roth, Sharifi-Malvajerdi 2021); without it, as
here, it carries no certificate.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from unlearn.methods.method import Unlearned
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, check_intervals, train
from unlearn.train.recording import Trained
from unlearn.values.errors import above, at_least
from unlearn.values.rates import LearningRate
from unlearn.values.streams import seed_for


@dataclass(frozen=True)
class Finetune:
    """Training on the retain set.

    Attributes:
        name: for logs.
        lr: constant learning rate; momentum and weight decay are those of the recorded phase.
        epochs: passes over the retain set, each in an order of its own; `schedule.drop_last` holds here too.
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
        """Train on.

        Args:
            trained: M and the recipe of the recorded phase.

        Returns:
            M''.
        """
        seed = seed_for(trained.seed, "method")
        schedule = replace(
            trained.recipe.schedule,
            epochs=self.epochs,
            seed=seed,
            order="shuffle_each_epoch",
            unit=None,
            placement="in_place",
            max_steps=None,
        )
        objective = replace(trained.recipe.objective, renormalise="remaining", arithmetic="float32")
        if objective.frozen_draws is None:  # else M's own draws are part of its training set
            objective = replace(objective, seed=seed)
        recipe = Recipe(objective, schedule, LearningRate(self.lr), trained.recipe.optimizer)
        learner = Learner.start(trained.original.weights, trained.original.buffers)
        steps = train(recipe, [], [learner], check_every=check_intervals(learner.weights.device))
        points = sum(len(step.batch.kept) for step in steps)
        return Unlearned(learner.weights, learner.buffers, points)

"""Exact unlearning by naive retraining: w'' = w'. Its verification error is 0 by definition."""

from dataclasses import dataclass
from typing import ClassVar

from unlearn.methods.method import Unlearned
from unlearn.train.recording import Trained


@dataclass(frozen=True)
class Retrain:
    """Naive retraining.

    Attributes:
        name: for logs.
    """

    name: str
    online: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """Nothing: M' is trained in any case."""
        return frozenset()

    def unlearn(self, trained: Trained) -> Unlearned:
        """Give M'.

        Args:
            trained: M'.

        Returns:
            w'' = w', at the gradients of the recorded phase; a second pretraining (`retrain.start=initial`) is not
            counted.
        """
        return Unlearned(trained.retrained.weights, trained.retrained.buffers, trained.recording.retrain_points)

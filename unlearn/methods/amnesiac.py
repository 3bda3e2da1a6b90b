"""Amnesiac unlearning: subtract the recorded updates of the batches that held forgotten points.

Graves, Nagisetty, Ganesh 2021, "Amnesiac Machine Learning". w'' = w_t - sum_{visits s} (w_{s+1} - w_s). The whole
update of the batch is taken back, the share of its retained points, momentum and weight decay included.

The published method stores each update, in case any of its points must be forgotten later; here the forget set is known
before training, so their sum is enough.
"""

from dataclasses import dataclass
from typing import ClassVar

from unlearn.methods.method import Unlearned
from unlearn.train.recording import Trained


@dataclass(frozen=True)
class Amnesiac:
    """Amnesiac unlearning.

    Attributes:
        name: for logs.
    """

    name: str
    online: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """The sum of the updates."""
        return frozenset({"updates"})

    def unlearn(self, trained: Trained) -> Unlearned:
        """Take the updates back.

        Args:
            trained: M and its recording.

        Returns:
            w'' = w_t - sum of the updates.
        """
        assert trained.recording.update_sum is not None  # `needs` asked for it
        return Unlearned(trained.original.weights - trained.recording.update_sum, trained.original.buffers)

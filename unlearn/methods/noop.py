"""Doing nothing: w'' = w_t. Its verification error is the scale that every other method is read against."""

from dataclasses import dataclass
from typing import ClassVar

from unlearn.methods.method import Unlearned
from unlearn.train.recording import Trained


@dataclass(frozen=True)
class Nothing:
    """The no-op.

    Attributes:
        name: for logs.
    """

    name: str
    online: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def unlearn(self, trained: Trained) -> Unlearned:
        """Give M itself.

        Args:
            trained: M.

        Returns:
            w'' = w_t.
        """
        return Unlearned(trained.original.weights, trained.original.buffers)

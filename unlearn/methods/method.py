"""What a method is."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from unlearn.models.network import Buffers
from unlearn.train.recording import Trained


@dataclass(frozen=True)
class Unlearned:
    """M''.

    Attributes:
        weights: w'', flat, shape (dim,).
        buffers: BatchNorm statistics and the like.
        gradient_evaluations: gradients of single points that the request cost, those recorded in training not counted.
    """

    weights: Tensor
    buffers: Buffers
    gradient_evaluations: int = 0


class Method(Protocol):
    """A choice of the config group `method`: a frozen dataclass with these parts.

    `online` says that `unlearn` is cheap enough to be called at every measured step; other methods run at the end.
    """

    online: ClassVar[bool]
    name: str

    @property
    def needs(self) -> frozenset[str]:
        """What training must record, names of `unlearn.train.recording.RECORDS`."""
        ...

    def unlearn(self, trained: Trained) -> Unlearned:
        """Make M'' from M.

        Args:
            trained: what may be looked at; nothing in it may be changed.

        Returns:
            M''.
        """
        ...

"""What a method is."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from unlearn.models.network import Buffers
from unlearn.train.recording import Trained
from unlearn.values.errors import Diverged, NotFinite, UserError


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


def applied(method: Method, trained: Trained) -> Unlearned:
    """Make M'' from M, and see that it is finite.

    Args:
        method: of unlearning.
        trained: what it may look at.

    Returns:
        M''.

    Raises:
        Diverged: M'' is NaN or infinite somewhere, or was on the way; the message names the method, since M and M' are
            as they should be.
        UserError: a GPU's memory is too small for the method, or it makes a batch of one point for BatchNorm.
        ValueError: the method's own.
    """
    try:
        done = method.unlearn(trained)
    except (Diverged, NotFinite):
        done = None
    except torch.OutOfMemoryError:
        advice = ": try a smaller method.chunk" if hasattr(method, "chunk") else ""
        device = trained.original.weights.device
        raise UserError(f"method={method.name}: does not fit the memory of {device}{advice}") from None
    except ValueError as problem:
        if "more than 1 value per channel" not in str(problem):
            raise
        reason = "comes to a batch of one point, of which BatchNorm has no statistics"
        raise UserError(f"method={method.name}: {reason}; choose another number of points") from None
    if done is None or not bool(done.weights.isfinite().all()):
        advice = "try a smaller method.lr" if hasattr(method, "lr") else "no figure of it means anything"
        step = trained.recording.steps
        error = Diverged.saying(f"method={method.name}: M'' is not finite at step {step}: {advice}", step)
        raise error
    return done

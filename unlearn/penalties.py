"""Floor 1: penalties added to the cross-entropy. Each is a frozen dataclass of a strength times one or two formulas."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.values.errors import at_least, choice
from unlearn.values.flat import norm


@dataclass(frozen=True)
class Penalty:
    """No penalty, and the base of the others.

    Every penalty is linear in its strength. `each_of_logits` and `unit_of_weights` leave the strength out, so that a
    stack of models whose strengths differ shares one formula (`unlearn/train/stack.py`).

    Attributes:
        name: for logs.
    """

    name: str

    @property
    def strength(self) -> float:
        """What the penalty is multiplied with."""
        return 0.0

    def each_of_logits(self, logits: Tensor) -> Tensor:
        """Penalise the output of each point, at strength 1.

        Args:
            logits: shape (b, num_classes).

        Returns:
            Shape (b,).
        """
        return logits.new_zeros(len(logits))

    def each_of_columns(self, logits: Tensor) -> Tensor:
        """Give `each_of_logits` where points are columns, which is quicker for many.

        Args:
            logits: shape (r, num_classes, b).

        Returns:
            Shape (r, b).
        """
        return self.each_of_logits(logits.mT.flatten(0, 1)).unflatten(0, (len(logits), -1))

    def unit_of_weights(self, weights: Tensor) -> Tensor:
        """Penalise weights, whatever the batch, at strength 1.

        Args:
            weights: flat, shape (dim,).

        Returns:
            A scalar.
        """
        return weights.new_zeros(())

    def of_logits(self, logits: Tensor) -> Tensor:
        """Penalise outputs, as a mean over the batch.

        Args:
            logits: shape (b, num_classes).

        Returns:
            A scalar.
        """
        if not self.strength:  # the default; a dozen small operations a pass would give 0
            return logits.new_zeros(())
        return self.strength * self.each_of_logits(logits).mean()

    def of_weights(self, weights: Tensor) -> Tensor:
        """Penalise weights, whatever the batch.

        Args:
            weights: flat, shape (dim,).

        Returns:
            A scalar.
        """
        return self.strength * self.unit_of_weights(weights)


@dataclass(frozen=True)
class SDPenalty(Penalty):
    """The SD loss of the paper: gamma * mean over the batch of std over the logits, with Bessel's correction.

    Attributes:
        gamma: strength.
        normalisation: `per_class` divides the std by the number of classes as well, which is the scale of the gammas of
            the reference code; `none` is the formula as written.
    """

    gamma: float
    normalisation: str

    def __post_init__(self) -> None:
        at_least("penalty.gamma", self.gamma, 0)
        choice("penalty.normalisation", self.normalisation, ("per_class", "none"))

    @property
    def strength(self) -> float:
        """The gamma."""
        return self.gamma

    def each_of_logits(self, logits: Tensor) -> Tensor:
        """Give std_c(logits), divided by the number of classes with `per_class`.

        Args:
            logits: shape (b, num_classes).

        Returns:
            Shape (b,).
        """
        spread = spread_of(logits)
        return spread / logits.shape[1] if self.normalisation == "per_class" else spread

    def each_of_columns(self, logits: Tensor) -> Tensor:
        """Give `each_of_logits` where points are columns, by sums over all of them at once.

        Args:
            logits: shape (r, num_classes, b).

        Returns:
            Shape (r, b).
        """
        classes = logits.shape[1]
        from_first = logits - logits[:, :1]  # exactly 0 where all are equal, and so is what comes of it
        centred = from_first - from_first.mean(1, keepdim=True)
        spread = _root(centred.square().sum(1) / (classes - 1))
        return spread / classes if self.normalisation == "per_class" else spread


@dataclass(frozen=True)
class L2Penalty(Penalty):
    """The rival of the SD loss: gamma / 2 * norm(weights)^2, the same as weight decay gamma.

    Attributes:
        gamma: strength.
        detached: whether the norm is added as a number without a gradient, as the reference code's text scripts do.
    """

    gamma: float
    detached: bool

    def __post_init__(self) -> None:
        at_least("penalty.gamma", self.gamma, 0)

    @property
    def strength(self) -> float:
        """The gamma."""
        return self.gamma

    def unit_of_weights(self, weights: Tensor) -> Tensor:
        """Give norm(weights)^2 / 2; where `detached`, norm(weights) without a gradient.

        Args:
            weights: flat, shape (dim,).

        Returns:
            A scalar.
        """
        if self.detached:
            return norm(weights.detach()).to(weights)
        return weights.dot(weights) / 2


def spread_of(logits: Tensor) -> Tensor:
    """Standard deviation of each row with Bessel's correction, with a zero gradient where all logits are equal.

    Args:
        logits: shape (b, num_classes).

    Returns:
        Shape (b,).
    """
    return _root(logits.var(dim=1))


def _root(variance: Tensor) -> Tensor:
    flat = variance == 0
    # the derivative of the square root is infinite at 0; a subgradient there is 0
    return torch.where(flat, 0.0, torch.where(flat, 1.0, variance).sqrt())

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

    def slope_of_columns(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Give `each_of_columns` with its slope.

        Args:
            logits: shape (r, num_classes, b).

        Returns:
            Each, shape (r, b), and the derivative by the logits of its point, shape (r, num_classes, b).
        """
        point = logits.detach().requires_grad_()
        each = self.each_of_columns(point)
        if not each.requires_grad:
            return each, torch.zeros_like(logits)
        return each.detach(), torch.autograd.grad(each.sum(), point)[0]

    def bend_of_columns(self, logits: Tensor, along: Tensor) -> Tensor:
        """Give what the slope of `slope_of_columns` moves by, to first order.

        Args:
            logits: shape (r, num_classes, b).
            along: what the logits move by, in the same shape.

        Returns:
            Shape (r, num_classes, b).
        """
        point = logits.detach().requires_grad_()
        each = self.each_of_columns(point)
        if not each.requires_grad:
            return torch.zeros_like(logits)
        (slope,) = torch.autograd.grad(each.sum(), point, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(logits)
        return torch.autograd.grad(slope, point, along, materialize_grads=True)[0]

    def unit_of_weights(self, weights: Tensor) -> Tensor:
        """Penalise weights, whatever the batch, at strength 1.

        Args:
            weights: flat, shape (dim,).

        Returns:
            A scalar.
        """
        return weights.new_zeros(())

    def unit_of_rows(self, weights: Tensor) -> Tensor:
        """Give `unit_of_weights` of many models at once.

        Args:
            weights: shape (r, dim).

        Returns:
            Shape (r,).
        """
        if type(self).unit_of_weights is Penalty.unit_of_weights:
            return weights.new_zeros(len(weights))
        found: Tensor = torch.func.vmap(self.unit_of_weights)(weights)
        return found

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
    """The SD loss: gamma * mean over the batch of std over the logits, with Bessel's correction.

    Source: Thudi, Deza, Chandrasekaran, Papernot 2022, *Unrolling SGD* (arXiv 2109.13398).

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
        return self._columns(logits)[1] * self._scale(logits)

    def slope_of_columns(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Give `each_of_columns` with its slope, c / ((n - 1) s) for n centred logits c and their deviation s.

        Args:
            logits: shape (r, num_classes, b).

        Returns:
            Each, shape (r, b), and the derivative by the logits of its point, shape (r, num_classes, b).
        """
        (centred, spread, inverse), scale = self._columns(logits), self._scale(logits)
        return spread * scale, centred * (inverse * (scale / (logits.shape[1] - 1)))[:, None]

    def bend_of_columns(self, logits: Tensor, along: Tensor) -> Tensor:
        """Give what the slope moves by: (v - u (u'v) / (n - 1)) / ((n - 1) s), with u = c / s and v centred.

        Args:
            logits: shape (r, num_classes, b).
            along: what the logits move by, in the same shape.

        Returns:
            Shape (r, num_classes, b).
        """
        (centred, _, inverse), others = self._columns(logits), logits.shape[1] - 1
        unit = centred * inverse[:, None]
        moved = along - along.mean(1, keepdim=True)
        moved = moved - unit * ((unit * moved).sum(1, keepdim=True) / others)
        return moved * (inverse * (self._scale(logits) / others))[:, None]

    def _scale(self, logits: Tensor) -> float:
        return 1 / logits.shape[1] if self.normalisation == "per_class" else 1.0

    def _columns(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give centred logits, their deviation s, and 1 / s, which is 0 where s is."""
        from_first = logits - logits[:, :1]  # exactly 0 where all are equal, and so is what comes of it
        centred = from_first - from_first.mean(1, keepdim=True)
        spread = _root(centred.square().sum(1) / (logits.shape[1] - 1))
        return centred, spread, torch.where(spread == 0, 0.0, 1 / spread)


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

    def unit_of_rows(self, weights: Tensor) -> Tensor:
        """Give `unit_of_weights` of many models at once.

        Args:
            weights: shape (r, dim).

        Returns:
            Shape (r,).
        """
        if self.detached:
            return torch.linalg.vector_norm(weights.detach(), dim=1, dtype=torch.float64).to(weights)
        return weights.square().sum(1) / 2


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

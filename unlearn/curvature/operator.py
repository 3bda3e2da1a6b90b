"""The seam between losses and eigenvalue estimators: a symmetric operator on the flat weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from unlearn.curvature.layers import Economical
from unlearn.values.flat import norm


class Operator(Protocol):
    """A symmetric linear map on vectors of length `dim`."""

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def matvec(self, vector: Tensor) -> Tensor:
        """Apply the map.

        Args:
            vector: shape (dim,).

        Returns:
            Shape (dim,).
        """
        ...


@dataclass
class Hessian:
    """The exact Hessian of a weighted sum of losses, by double backward.

    H v = sum_k c_k d/dw (grad L_k(w) . v). A graph of a gradient that is kept is built on the first product and serves
    the others too: of this L_k they cost about two backward passes. The others are built anew for each product, one
    after the other: half as much work again, and the memory of one whatever their number. The product is the same.
    (Forward-over-reverse, the usual choice there, took longer and more memory on a ResNet-18.)

    Attributes:
        weights: w, the flat point at which the Hessian is taken, shape (dim,).
        losses: pairs (c_k, L_k); L_k maps flat weights to a scalar and must not depend on anything that changes between
            products.
        keep: how many graphs are kept between products, of the first losses; None keeps all.
    """

    weights: Tensor
    losses: Sequence[tuple[float, Callable[[Tensor], Tensor]]]
    keep: int | None = None
    _graphs: list[tuple[float, list[Tensor], list[Tensor]]] = field(default_factory=list, init=False, repr=False)

    @property
    def dim(self) -> int:
        """Number of weights."""
        return len(self.weights)

    @property
    def _kept(self) -> int:
        return len(self.losses) if self.keep is None else self.keep

    def _built(self) -> Iterator[tuple[float, list[Tensor], list[Tensor]]]:
        yield from self._graphs
        for share, loss in self.losses[len(self._graphs) :]:
            point = self.weights.detach().requires_grad_()
            with Economical(point) as built:
                value = loss(point)
            slopes = torch.autograd.grad(value, built.leaves, create_graph=True, allow_unused=True)
            # what the loss does not depend on, or only as a sum of a term of its own, has no curvature
            curved = [(leaf, slope) for leaf, slope in zip(built.leaves, slopes, strict=True) if _depends(slope)]
            leaves, gradients = [leaf for leaf, _ in curved], [slope for _, slope in curved]
            if len(self._graphs) < self._kept:
                self._graphs.append((share, leaves, gradients))
            yield share, leaves, gradients

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the Hessian with a vector.

        Args:
            vector: shape (dim,).

        Returns:
            H v, shape (dim,).
        """
        total = torch.zeros_like(vector)
        for place, (share, leaves, gradients) in enumerate(self._built()):
            if not leaves:  # the loss is linear in the weights
                continue
            given = [self._place(leaf, vector) for leaf in leaves]
            retain = place < self._kept
            products = torch.autograd.grad(gradients, leaves, given, retain_graph=retain, allow_unused=True)
            for leaf, product in zip(leaves, products, strict=True):
                if product is not None:
                    self._place(leaf, total).add_(product, alpha=share)
        return total

    def _place(self, leaf: Tensor, vector: Tensor) -> Tensor:
        """Give the part of a vector that belongs to a leaf, which is a view of the weights."""
        return vector.narrow(0, leaf.storage_offset() - self.weights.storage_offset(), len(leaf))


def _depends(slope: Tensor | None) -> bool:
    return slope is not None and slope.requires_grad


@dataclass
class GaussNewton:
    """The generalised Gauss-Newton matrix, J' H_z J: the Hessian without the curvature of the network itself.

    Positive semi-definite where the loss is convex in the logits z, as cross-entropy is. J v by differentiating J' u
    with respect to u (two reverse passes), so that no forward-mode rule is needed.

    Attributes:
        weights: w, shape (dim,).
        parts: triples (c_k, z_k, l_k): z_k maps flat weights to logits, l_k maps logits to a scalar.
        beside: what is added of a loss that does not look at logits, such as weight decay; None for nothing.
    """

    weights: Tensor
    parts: Sequence[tuple[float, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]
    beside: Hessian | None = None

    @property
    def dim(self) -> int:
        """Number of weights."""
        return len(self.weights)

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the Gauss-Newton matrix with a vector.

        Args:
            vector: shape (dim,).

        Returns:
            G v, shape (dim,).
        """
        total = torch.zeros_like(vector) if self.beside is None else self.beside.matvec(vector)
        for share, logits_of, loss_of in self.parts:
            point = self.weights.detach().requires_grad_()
            logits = logits_of(point)
            dummy = torch.zeros_like(logits, requires_grad=True)
            (pulled,) = torch.autograd.grad(logits, point, dummy, create_graph=True)  # J' u, linear in u
            (pushed,) = torch.autograd.grad(pulled, dummy, vector, retain_graph=True)  # J v
            top = logits.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss_of(top), top, create_graph=True)
            (curved,) = torch.autograd.grad(slope, top, pushed)  # H_z J v
            (product,) = torch.autograd.grad(logits, point, curved)
            total.add_(product, alpha=share)
        return total


@dataclass(frozen=True)
class Quotient:
    """The mean slope of gradients over a length, which stands for the Hessian.

    A v = sum_k c_k [g_k(h v) - g_k(-h v)] / (2 h) for a unit vector v. On a quadratic it is the Hessian. Where the loss
    has kinks, as with ReLU, the Hessian misses what the gradient jumps by; the quotient sees the kinks within reach.

    Attributes:
        dim: length of the vectors.
        parts: pairs (c_k, g_k); g_k maps a displacement of the weights to a gradient.
        length: h, in units of weight.
    """

    dim: int
    parts: Sequence[tuple[float, Callable[[Tensor], Tensor]]]
    length: float

    def matvec(self, vector: Tensor) -> Tensor:
        """Give the slope along a vector.

        Args:
            vector: shape (dim,), not zero.

        Returns:
            Shape (dim,).
        """
        step = self.length / float(norm(vector))
        total = torch.zeros_like(vector)
        for share, gradient in self.parts:
            for sign in (1, -1):
                total.add_(gradient(vector * (sign * step)), alpha=sign * share / (2 * step))
        return total


@dataclass(frozen=True)
class Halves:
    """A weighted mean of two operators, such as the Hessians on two halves of a sample.

    Attributes:
        first: on the one half.
        second: on the other.
        share: weight of the first, in (0, 1).
    """

    first: Operator
    second: Operator
    share: float

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.first.dim

    def both(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Apply each.

        Args:
            vector: shape (dim,).

        Returns:
            Two vectors of shape (dim,).
        """
        return self.first.matvec(vector), self.second.matvec(vector)

    def mean(self, first: Tensor, second: Tensor) -> Tensor:
        """Put the products of both together.

        Args:
            first: of the one half.
            second: of the other.

        Returns:
            share * first + (1 - share) * second.
        """
        return torch.lerp(second, first, self.share)

    def matvec(self, vector: Tensor) -> Tensor:
        """Apply the mean.

        Args:
            vector: shape (dim,).

        Returns:
            Shape (dim,).
        """
        return self.mean(*self.both(vector))


def dense(operator: Operator, like: Tensor) -> Tensor:
    """Write the operator out as a matrix, one product a column.

    Args:
        operator: any symmetric operator.
        like: a tensor of the type and device to use.

    Returns:
        Shape (dim, dim).
    """
    matrix = torch.empty(operator.dim, operator.dim, dtype=like.dtype, device=like.device)
    unit = torch.zeros(operator.dim, dtype=like.dtype, device=like.device)
    for place in range(operator.dim):
        unit[place] = 1
        matrix[:, place] = operator.matvec(unit)
        unit[place] = 0
    return matrix

"""The seam between losses and eigenvalue estimators: a symmetric operator on the flat weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


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
    """The exact Hessian of a weighted sum of losses, by double backward on graphs that are kept.

    H v = sum_k c_k d/dw (grad L_k(w) . v). The graph of each gradient is built on the first product and kept for the
    others, so a product costs about two backward passes.

    Attributes:
        weights: w, the flat point at which the Hessian is taken, shape (dim,).
        losses: pairs (c_k, L_k); L_k maps flat weights to a scalar and must not depend on anything that changes between
            products.
    """

    weights: Tensor
    losses: Sequence[tuple[float, Callable[[Tensor], Tensor]]]
    _graphs: list[tuple[float, Tensor, Tensor]] = field(default_factory=list, init=False, repr=False)

    @property
    def dim(self) -> int:
        """Number of weights."""
        return len(self.weights)

    def _build(self) -> None:
        for share, loss in self.losses:
            point = self.weights.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
            self._graphs.append((share, point, gradient))

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply the Hessian with a vector.

        Args:
            vector: shape (dim,).

        Returns:
            H v, shape (dim,).
        """
        if not self._graphs:
            self._build()
        total = torch.zeros_like(vector)
        for share, point, gradient in self._graphs:
            if not gradient.requires_grad:  # the loss is linear in the weights
                continue
            (product,) = torch.autograd.grad(gradient, point, vector, retain_graph=True, materialize_grads=True)
            total.add_(product, alpha=share)
        return total


@dataclass(frozen=True)
class Matrix:
    """A symmetric matrix as an operator: built cases for tests, and small dense problems.

    Attributes:
        entries: shape (dim, dim).
    """

    entries: Tensor

    @property
    def dim(self) -> int:
        """Number of rows."""
        return len(self.entries)

    def matvec(self, vector: Tensor) -> Tensor:
        """Multiply.

        Args:
            vector: shape (dim,).

        Returns:
            Shape (dim,).
        """
        return self.entries @ vector


def dense(operator: Operator, like: Tensor) -> Tensor:
    """Write the operator out as a matrix, one product a column. An oracle for tests.

    Args:
        operator: any symmetric operator.
        like: a tensor of the type and device to use.

    Returns:
        Shape (dim, dim).
    """
    eye = torch.eye(operator.dim, dtype=like.dtype, device=like.device)
    return torch.stack([operator.matvec(column) for column in eye], dim=1)

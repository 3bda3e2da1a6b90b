"""Estimators of the eigenvalue of largest magnitude, over the operator seam."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov
from unlearn.curvature.operator import Operator, dense
from unlearn.values.errors import NotFinite, above, at_least
from unlearn.values.flat import dot, norm


@dataclass(frozen=True)
class Extreme:
    """An extreme eigenpair.

    Attributes:
        value: theta, the signed eigenvalue of largest magnitude.
        vector: its unit eigenvector, shape (dim,).
        residual: norm(A x - theta x), which bounds the distance from theta to the nearest eigenvalue.
        products: operator products spent.
        converged: whether the error estimate fell under the tolerance.
        gap: distance from theta to the nearest other Ritz value; 0 where it is not known.
        error: the estimate of |theta - eigenvalue|, min(residual, 4 residual^2 / gap).
        ahead: A x / theta, a power step on from the vector at no product: where to start on an operator close by; None
            where it is not known.
    """

    value: float
    vector: Tensor
    residual: float
    products: int
    converged: bool
    gap: float = 0.0
    error: float = float("nan")
    ahead: Tensor | None = None


class Estimator(Protocol):
    """A choice of the config group `curvature`."""

    def __call__(self, operator: Operator, start: Tensor) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: symmetric.
            start: where to start, shape (dim,), not zero; its type and device are used throughout.

        Returns:
            The eigenpair.
        """
        ...


@dataclass(frozen=True)
class Lanczos:
    """Lanczos with full reorthogonalisation: the best eigenvalue that the products so far can give.

    Stops when min(r, 4 r^2 / gap) < tolerance * |theta|, where r is the residual of the leading Ritz pair and gap its
    distance to the nearest other Ritz value (for a symmetric operator the error of theta is of second order in r).

    Attributes:
        name: for logs.
        tolerance: relative error of theta to stop at.
        max_products: upper bound on products; also the number of vectors kept.
    """

    name: str
    tolerance: float
    max_products: int

    def __post_init__(self) -> None:
        above("curvature.tolerance", self.tolerance, 0)
        at_least("curvature.max_products", self.max_products, 1)

    def __call__(self, operator: Operator, start: Tensor, gap: float = 0.0) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: symmetric.
            start: shape (dim,), not zero.
            gap: where it is known from an operator close by, the first product can be enough.

        Returns:
            The eigenpair; products may be fewer than `max_products` where the Krylov space ends early.
        """
        space = Krylov.start(start)
        while True:
            space.expand(operator)
            values, vectors = torch.linalg.eigh(space.tridiagonal())
            lead = int(values.abs().argmax())
            theta = float(values[lead])
            residual = space.leftover * abs(float(vectors[-1, lead]))
            others = values[torch.arange(len(values)) != lead]
            if len(others):
                gap = float((others - theta).abs().min())
            error = error_of(residual, gap)
            converged = self.enough(error, theta, start.dtype) or space.exhausted
            if converged or space.products >= self.max_products:
                vector = space.combine(vectors[:, lead])
                ahead = power_step(vector, space.outside, space.leftover * float(vectors[-1, lead]), theta)
                return Extreme(theta, vector, residual, space.products, converged, gap, error, ahead)

    def enough(self, error: float, theta: float, dtype: torch.dtype) -> bool:
        """Say whether to stop.

        Args:
            error: the estimate of |theta - eigenvalue|.
            theta: the leading Ritz value.
            dtype: of the vectors.

        Returns:
            Whether the error is within the tolerance.
        """
        return error < self.tolerance * max(abs(theta), torch.finfo(dtype).tiny)


def error_of(residual: float, gap: float) -> float:
    """Estimate the error of a Ritz value.

    Args:
        residual: norm(A x - theta x).
        gap: its distance to the nearest other Ritz value; 0 where there is none.

    Returns:
        min(residual, 4 residual^2 / gap), an estimate of |theta - eigenvalue|.
    """
    # four times, because Ritz values that have not converged make the gap look wider than it is: with twice, one in ten
    # warm estimates on small networks was past a tolerance of 1e-3, with four times none of 400
    return min(residual, 4 * residual**2 / gap) if gap > residual else residual


def power_step(vector: Tensor, outside: Tensor | None, coefficient: float, theta: float) -> Tensor:
    """Give A x / theta from what the products so far have told.

    Args:
        vector: x, a unit Ritz vector, shape (dim,).
        outside: the unit vector that A x has beside x, shape (dim,); None where it has nothing.
        coefficient: of `outside` in A x.
        theta: the Ritz value.

    Returns:
        Shape (dim,); x itself where theta is zero.
    """
    return vector if outside is None or theta == 0 else torch.add(vector, outside, alpha=coefficient / theta)


@dataclass(frozen=True)
class PowerIteration:
    """Power iteration with the Rayleigh quotient, the estimator of the reference code (by way of PyHessian).

    Stops when the quotient changes by less than `tolerance`, relative; which says nothing about the error.

    Attributes:
        name: for logs.
        tolerance: relative change of theta to stop at.
        max_products: upper bound on products.
    """

    name: str
    tolerance: float
    max_products: int

    def __post_init__(self) -> None:
        above("curvature.tolerance", self.tolerance, 0)
        at_least("curvature.max_products", self.max_products, 1)

    def __call__(self, operator: Operator, start: Tensor) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: symmetric.
            start: shape (dim,), not zero.

        Returns:
            The eigenpair, one product behind in its vector.

        Raises:
            NotFinite: a product is not.
        """
        vector = start / norm(start).to(start)
        before = float("nan")
        for products in range(1, self.max_products + 1):
            product = operator.matvec(vector)
            theta = float(dot(product, vector))
            residual = float(norm(product - theta * vector))
            converged = abs(theta - before) < self.tolerance * (abs(before) + 1e-6)
            length = float(norm(product))
            if not math.isfinite(length):
                raise NotFinite
            if converged or length == 0 or products == self.max_products:
                break
            vector, before = product / length, theta
        return Extreme(theta, vector, residual, products, converged or length == 0)


@dataclass(frozen=True)
class Dense:
    """All eigenvalues of the matrix written out. Exact, for at most a few thousand weights.

    Attributes:
        name: for logs.
    """

    name: str

    def __call__(self, operator: Operator, start: Tensor) -> Extreme:
        """Find the eigenvalue of largest magnitude.

        Args:
            operator: symmetric.
            start: gives type and device.

        Returns:
            The eigenpair.

        Raises:
            NotFinite: the matrix is not.
        """
        matrix = dense(operator, start)
        if not matrix.isfinite().all():
            raise NotFinite
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        lead = int(values.abs().argmax())
        vector = vectors[:, lead]
        residual = float(norm(matrix @ vector - values[lead] * vector))
        return Extreme(float(values[lead]), vector, residual, operator.dim, True)

"""Estimators of the eigenvalue of largest magnitude, over the operator seam."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unlearn.curvature.operator import Operator, dense
from unlearn.curvature.spectrum import Extreme, eigenpairs
from unlearn.values.errors import NotFinite, above, at_least
from unlearn.values.flat import dot, norm


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

    def __call__(self, operator: Operator, start: Tensor) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: symmetric.
            start: shape (dim,), not zero.

        Returns:
            The eigenpair; products may be fewer than `max_products` where the Krylov space ends early.
        """
        return eigenpairs(operator, start, 1, "magnitude", self.tolerance, self.max_products)[0]


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
        return Extreme(float(values[lead]), vector, residual, operator.dim, True, residual)

"""The Krylov space of a symmetric operator and a vector: the one Lanczos recursion, for eigenvalues and for functions.

With basis Q (dim, m) and tridiagonal T = Q' A Q, a function of the operator on the start vector is

    f(A) b  =  norm(b) Q f(T) e_1        (exact where m = dim, or the space ends)

(Golub and Van Loan, Matrix Computations, 10.1; Higham, Functions of Matrices, 13.2.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.curvature.operator import Halves, Operator
from unlearn.values.errors import NotFinite
from unlearn.values.flat import combined, dot, norm


@dataclass
class Krylov:
    """An orthonormal basis of span(b, A b, A^2 b, ...), with full reorthogonalisation.

    Attributes:
        size: norm(b).
        basis: unit vectors, each of shape (dim,).
        diagonal: of T, one entry a product.
        off_diagonal: of T, one entry fewer.
        leftover: norm of what the last product had outside the basis.
        exhausted: whether the space is invariant: nothing is outside.
        half: where the operator is the mean of two halves A_1 and A_2, a row a product of Q' A_1 Q and of Q' A_2 Q, up
            to the diagonal; they come with the products of the whole at no cost.
    """

    size: float
    basis: list[Tensor]
    diagonal: list[float] = field(default_factory=list)
    off_diagonal: list[float] = field(default_factory=list)
    leftover: float = 0.0
    exhausted: bool = False
    half: list[tuple[list[float], list[float]]] = field(default_factory=list)
    _next: Tensor | None = None

    @classmethod
    def start(cls, vector: Tensor) -> "Krylov":
        """Begin with a vector and no product.

        Args:
            vector: b, shape (dim,), not zero.

        Returns:
            A space of dimension 1.
        """
        size = norm(vector)
        return cls(float(size), [vector / size.to(vector)])

    @property
    def products(self) -> int:
        """Operator products so far."""
        return len(self.diagonal)

    def expand(self, operator: Operator) -> None:
        """Spend one product. Does nothing more once the space is exhausted.

        Args:
            operator: A, the same at each call.

        Raises:
            NotFinite: the product is not.
        """
        if self.exhausted:
            return
        newest = self.advance()
        if isinstance(operator, Halves):
            first, second = operator.both(newest)
            product = operator.mean(first, second)
            one, other = ([float(dot(part, vector)) for vector in self.basis] for part in (first, second))
            self.half.append((one, other))
        else:
            product = operator.matvec(newest)
        self.absorb(product)

    def advance(self) -> Tensor:
        """Take the next vector into the basis.

        Returns:
            The vector whose product `absorb` waits for, shape (dim,).
        """
        if self._next is not None:
            self.off_diagonal.append(self.leftover)
            self.basis.append(self._next)
            self._next = None
        return self.basis[-1]

    def absorb(self, product: Tensor) -> None:
        """Take the product of the newest basis vector.

        Args:
            product: shape (dim,); not changed.

        Raises:
            NotFinite: it is not.
        """
        self.diagonal.append(float(dot(product, self.basis[-1])))
        product = product.clone()  # the operator may still hold it
        for _ in range(2):  # twice is enough to be orthogonal to working precision
            for vector in self.basis:
                product.addcmul_(vector, -dot(vector, product).to(product))  # in place: no new vector of this size
        self.leftover = float(norm(product))
        if not math.isfinite(self.leftover):
            raise NotFinite
        scale = max(map(abs, self.diagonal + self.off_diagonal))
        tiny = torch.finfo(product.dtype)
        self.exhausted = self.leftover <= max(tiny.eps * scale, tiny.tiny) or len(self.basis) == len(product)
        self._next = None if self.exhausted else product / self.leftover

    def tridiagonal(self) -> Tensor:
        """Write out T.

        Returns:
            float64, shape (m, m), on the CPU.
        """
        matrix = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        for row, entry in enumerate(self.off_diagonal):
            matrix[row, row + 1] = matrix[row + 1, row] = entry
        return matrix

    def halves(self) -> tuple[Tensor, Tensor] | None:
        """Write out the projections of both halves of the operator, each mirrored at its diagonal in the same way.

        A quotient over kinks is not quite symmetric; what one half lacks of that must not be laid to the other.

        Returns:
            Q' A_1 Q and Q' A_2 Q, float64, shape (m, m); None where the operator had no halves.
        """
        if len(self.half) != self.products:
            return None
        first, second = (torch.zeros(self.products, self.products, dtype=torch.float64) for _ in range(2))
        for row, both in enumerate(self.half):
            for matrix, entries in zip((first, second), both, strict=True):
                found = torch.tensor(entries, dtype=torch.float64)
                matrix[row, : len(entries)] = matrix[: len(entries), row] = found
        return first, second

    def combine(self, coefficients: Tensor) -> Tensor:
        """Leave the basis: Q c.

        Args:
            coefficients: c, shape (m,) with m at most the number of products.

        Returns:
            Shape (dim,).
        """
        return combined(coefficients[None].double(), self.basis[: len(coefficients)])[0]

    def coordinates(self, vector: Tensor) -> Tensor:
        """Enter the basis: Q' x.

        Args:
            vector: x, shape (dim,).

        Returns:
            float64, shape (m,), on the CPU; what x has outside the space is dropped.
        """
        return torch.stack([dot(each, vector) for each in self.basis[: self.products]]).cpu()

    def function(
        self, f: Callable[[Tensor], Tensor], start: Tensor | None = None, products: int | None = None
    ) -> Tensor:
        """Give the coordinates of f(A) b, one run for any number of functions.

        Args:
            f: maps eigenvalues, float64 of shape (m,), to values of the same shape.
            start: coordinates of b where it is another vector than the start of the space.
            products: use only the first so many, for an estimate of the error.

        Returns:
            Q' f(A) b = f(T) Q' b, float64, shape (m,).
        """
        m = products or self.products
        values, vectors = torch.linalg.eigh(self.tridiagonal()[:m, :m])
        if start is None:
            start = torch.zeros(m, dtype=torch.float64)
            start[0] = self.size
        return vectors @ (f(values) * (vectors.T @ start[:m]))

    def error(self, f: Callable[[Tensor], Tensor]) -> float:
        """Estimate the error of f(A) b by what the last product changed.

        Args:
            f: as for `function`.

        Returns:
            norm(f_m - f_{m-1}), in units of f(A) b; infinite after one product, 0 where the space is exhausted.
        """
        if self.exhausted:
            return 0.0
        if self.products < 2:
            return float("inf")
        change = self.function(f)
        change[:-1] -= self.function(f, products=self.products - 1)
        return float(torch.linalg.vector_norm(change))


def krylov(operator: Operator, vector: Tensor, products: int) -> Krylov:
    """Build a Krylov space.

    Args:
        operator: symmetric.
        vector: where it starts, shape (dim,), not zero.
        products: m; fewer are spent where the space ends before.

    Returns:
        The space.
    """
    space = Krylov.start(vector)
    for _ in range(products):
        space.expand(operator)
    return space

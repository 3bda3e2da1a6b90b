"""Curvature of many small models at once: products and Krylov spaces whose vectors are rows of a matrix.

The formulas are those of `operator.py` and `krylov.py`; here K operators, one a row, are multiplied in
one go. Sums run over memory that a processor's cache holds where the rows are few: cut many rows into chunks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class StackedOperator(Protocol):
    """K symmetric operators."""

    def matvec(self, vectors: Tensor, going: Tensor) -> Tensor:
        """Apply each to its row.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed, bool, shape (K,); others may be anything.

        Returns:
            Shape (K, dim).
        """
        ...


def runs(going: Tensor, most: int) -> Iterator[slice]:
    """Cut the rows that are needed into runs of neighbours, whose views need no copies.

    Args:
        going: bool, shape (K,).
        most: rows of a run.

    Yields:
        Each run.
    """
    start = stop = 0
    for row in going.nonzero().flatten().tolist():
        if row > stop or stop - start == most:
            if stop > start:
                yield slice(start, stop)
            start = row
        stop = row + 1
    if stop > start:
        yield slice(start, stop)


@dataclass
class StackedHessian:
    """The exact Hessians of K losses, by double backward through one kept graph.

    Attributes:
        weights: where, shape (K, dim).
        losses: maps weights, shape (K, dim), to the loss of each row.
    """

    weights: Tensor
    losses: Callable[[Tensor], Tensor]
    _graph: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    def matvec(self, vectors: Tensor, going: Tensor) -> Tensor:
        """Multiply each Hessian with its row.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed; the others cost as much.

        Returns:
            Shape (K, dim).
        """
        if self._graph is None:
            point = self.weights.detach().requires_grad_()
            # a loss depends on its own row alone, so the gradient of the sum holds each loss's own gradient
            (gradient,) = torch.autograd.grad(self.losses(point).sum(), point, create_graph=True)
            self._graph = point, gradient
        point, gradient = self._graph
        if not gradient.requires_grad:  # the losses are linear in the weights
            return torch.zeros_like(vectors)
        (product,) = torch.autograd.grad(gradient, point, vectors, retain_graph=True, materialize_grads=True)
        return product


@dataclass(frozen=True)
class StackedHalves:
    """K weighted means of two operators; see `Halves`.

    Attributes:
        both: applies the two of each row to its vector; arguments as for `matvec`.
        share: weight of the first of each row, shape (K,); 1 where there is no second.
    """

    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    share: Tensor

    def mean(self, first: Tensor, second: Tensor) -> Tensor:
        """Put the products of both together.

        Args:
            first: shape (K, dim).
            second: shape (K, dim).

        Returns:
            share * first + (1 - share) * second.
        """
        return torch.lerp(second, first, self.share[:, None].to(first))

    def matvec(self, vectors: Tensor, going: Tensor) -> Tensor:
        """Apply the means.

        Args:
            vectors: shape (K, dim).
            going: rows that are needed, bool, shape (K,).

        Returns:
            Shape (K, dim).
        """
        return self.mean(*self.both(vectors, going))


@dataclass
class StackedKrylov:
    """K Krylov spaces that grow together; see `Krylov`.

    Attributes:
        size: norm of each start, float64, shape (K,).
        basis: unit vectors, shape (K, at least m, dim); zero in rows that have stopped.
        diagonal: of each T, one float64 tensor of shape (K,) a product.
        off_diagonal: of each T, one fewer.
        leftover: norm of what the last product had outside the basis, shape (K,).
        products: of each row, shape (K,).
        exhausted: rows whose space is invariant, shape (K,).
        half: rows of Q' A_1 Q and of Q' A Q where the operators are `StackedHalves`; of shape (2, K, m) a product.
    """

    size: Tensor
    basis: Tensor
    diagonal: list[Tensor]
    off_diagonal: list[Tensor]
    leftover: Tensor
    products: Tensor
    exhausted: Tensor
    half: list[Tensor] = field(default_factory=list)

    @classmethod
    def start(cls, vectors: Tensor, room: int) -> "StackedKrylov":
        """Begin with one vector a row and no product.

        Args:
            vectors: shape (K, dim). A row of zeros is exhausted from the start.
            room: basis vectors to hold memory for; it grows where more come.

        Returns:
            Spaces of dimension 1.
        """
        size = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
        basis = vectors.new_zeros(len(vectors), room, vectors.shape[1])
        basis[:, 0] = torch.where(size > 0, 1 / size, 0.0).to(vectors)[:, None] * vectors
        none = torch.zeros(len(vectors), dtype=torch.int64)
        return cls(size, basis, [], [], torch.zeros_like(size), none, size == 0)

    def expand(self, operator: StackedOperator, going: Tensor) -> None:
        """Spend one product on each row that still goes and is not exhausted.

        Args:
            operator: the same at each call.
            going: bool, shape (K,); a row that has stopped must not go again.
        """
        going = going & ~self.exhausted
        m = len(self.diagonal)
        if m:
            self.off_diagonal.append(self.leftover)
        newest = self.basis[:, m]
        known, parts = self.basis[:, : m + 1], list[Tensor]()
        if isinstance(operator, StackedHalves):
            first, second = operator.both(newest, going)
            product = operator.mean(first, second)
            parts.append(torch.bmm(first[:, None], known.mT))
        else:
            product = operator.matvec(newest, going)
        self.diagonal.append((product * newest).sum(1, dtype=torch.float64))
        rest = product[:, None]  # rows, not columns: times those a batched product takes ten times as long
        for _ in range(2):  # twice is enough to be orthogonal to working precision
            parts.append(torch.bmm(rest, known.mT))
            rest = torch.baddbmm(rest, parts[-1], known, alpha=-1)
        if isinstance(operator, StackedHalves):
            self.half.append(torch.stack(parts[:2])[:, :, 0].double())
        product = rest[:, 0]
        self.leftover = torch.linalg.vector_norm(product, dim=1, dtype=torch.float64)
        scale = torch.stack([entry.abs() for entry in self.diagonal + self.off_diagonal]).amax(0)
        tiny = torch.finfo(product.dtype)
        ended = (self.leftover <= (tiny.eps * scale).clamp(min=tiny.tiny)) | (m + 1 == product.shape[1])
        self.products += going
        self.exhausted = self.exhausted | (going & ended)
        if m + 1 == self.basis.shape[1]:
            self.basis = torch.cat([self.basis, torch.zeros_like(self.basis)], dim=1)
        onward = torch.where(going & ~ended, 1 / self.leftover, 0.0)
        self.basis[:, m + 1] = onward.to(product)[:, None] * product

    def tridiagonal(self, rows: Tensor, products: int | None = None) -> Tensor:
        """Write out T of rows that went at every product until then.

        Args:
            rows: which, shape (r,).
            products: m, the first so many; None takes all.

        Returns:
            float64, shape (r, m, m).
        """
        m = len(self.diagonal) if products is None else products
        matrix = torch.diag_embed(torch.stack(self.diagonal[:m], dim=1)[rows])
        if m > 1:
            off = torch.stack(self.off_diagonal[: m - 1], dim=1)[rows]
            matrix += torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        return matrix

    def halves(self, rows: Tensor, products: int, share: Tensor) -> tuple[Tensor, Tensor]:
        """Write out the projections of both halves of `StackedHalves`; see `Krylov.halves`.

        Args:
            rows: which, shape (r,).
            products: m, the first so many.
            share: weight of the first half of each, shape (r,).

        Returns:
            Two, float64, shape (r, m, m).
        """
        found = torch.zeros(2, len(rows), products, products, dtype=torch.float64)
        for m, entries in enumerate(self.half[:products]):
            found[:, :, m, : m + 1] = found[:, :, : m + 1, m] = entries[:, rows]
        (first, whole), part = found, share.double()[:, None, None]
        return first, (whole - part * first) / (1 - part)


def stacked_krylov(operator: StackedOperator, starts: Tensor, products: int) -> tuple[StackedKrylov, Tensor]:
    """Build a Krylov space in each row, as `krylov` does it for one.

    Args:
        operator: symmetric in each row.
        starts: shape (K, dim), not zero.
        products: m; fewer are spent where a space ends before.

    Returns:
        The spaces; and which of them are finite, bool, shape (K,).
    """
    space = StackedKrylov.start(starts, products + 1)
    sound = torch.ones(len(starts), dtype=torch.bool)
    for _ in range(products):
        going = sound & ~space.exhausted
        if not bool(going.any()):
            break
        space.expand(operator, going)
        sound &= ~going | space.leftover.isfinite()
    return space, sound

"""A matrix behind the operator seam."""

from dataclasses import dataclass

import torch
from torch import Tensor


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


def symmetric(eigenvalues, seed=0):
    """A matrix of given eigenvalues, and its eigenvectors."""
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    stream = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=stream, dtype=torch.float64))
    return Matrix(q @ values.diag() @ q.T), q


def start(dim, seed=1):
    """A random vector."""
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

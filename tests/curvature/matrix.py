"""A matrix behind the operator seam."""

from dataclasses import dataclass

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

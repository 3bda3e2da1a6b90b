"""A model's trainable parameters as one flat vector, and the distances between such vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

PIECE = 2**15  # entries that are summed at once
CUDA_PIECE = 2**20  # columns of a matrix at once, there: in float64 whole vectors would take as much as a graph


@dataclass(frozen=True)
class Layout:
    """Where each named parameter lies in the flat vector.

    Attributes:
        names: parameter names in the module's own order.
        shapes: the shape of each.
        channels_last: names of the convolutions' weights, shape (o, i, h, w), whose entries lie in the order
            (o, h, w, i), as a module in torch's memory format `channels_last` has them.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    channels_last: frozenset[str] = frozenset()

    @classmethod
    def of(cls, module: nn.Module) -> "Layout":
        """Read the layout of a module's trainable parameters.

        Args:
            module: any module; parameters with `requires_grad=False` are left out.

        Returns:
            The layout.
        """
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        last = {name for name, p in named.items() if p.dim() == 4 and _is_channels_last(p)}
        return cls(tuple(named), tuple(p.shape for p in named.values()), frozenset(last))

    @property
    def sizes(self) -> list[int]:
        """The number of entries of each parameter."""
        return [prod(shape) for shape in self.shapes]

    @property
    def dim(self) -> int:
        """The length of the flat vector."""
        return sum(self.sizes)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy named tensors into one new vector.

        Args:
            tensors: at least the names of this layout, in its shapes.

        Returns:
            A vector of length `dim`.
        """
        found = ((name, tensors[name].detach()) for name in self.names)
        rows = [(t.permute(0, 2, 3, 1) if name in self.channels_last else t).reshape(-1) for name, t in found]
        return torch.cat(rows)

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Look at a flat vector as named tensors; gradients flow back to the vector.

        Args:
            vector: length `dim`.

        Returns:
            Name to view; writing to a view writes to the vector.
        """
        # one split has one backward (a concatenation); slicing each would add up dim-sized vectors
        parts = zip(self.names, vector.split(self.sizes), self.shapes, strict=True)
        return {name: self._view(part, name, shape) for name, part, shape in parts}

    def _view(self, part: Tensor, name: str, shape: torch.Size) -> Tensor:
        if name not in self.channels_last:
            return part.view(shape)
        outer, inner, *window = shape
        return part.view(outer, *window, inner).permute(0, 3, 1, 2)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _pieces(vector: Tensor) -> tuple[Tensor, ...]:
    # on a CPU torch writes the whole vector out in float64 before it sums; memory that is new each time costs more than
    # the sum itself, and pieces use the same little again
    return vector.reshape(-1).split(PIECE if vector.device.type == "cpu" else max(vector.numel(), 1))


def _norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dtype=torch.float64)


def norm(vector: Tensor) -> Tensor:
    """L2 norm, accumulated in float64 (float32 is 0.2 % off on 11 M entries).

    Args:
        vector: any shape.

    Returns:
        A float64 scalar tensor on the vector's device.
    """
    if vector.numel() <= PIECE:
        return _norm(vector)
    return torch.linalg.vector_norm(torch.stack([_norm(part) for part in _pieces(vector)]))


def norms(rows: Tensor) -> Tensor:
    """L2 norm of each row, as `norm` does it.

    Args:
        rows: shape (r, n).

    Returns:
        float64, shape (r,).
    """
    parts = rows.split(PIECE, dim=1) if rows.device.type == "cpu" else (rows,)
    each = [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts]
    return torch.linalg.vector_norm(torch.stack(each), dim=0)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product, accumulated in float64 for the same reason as `norm`.

    Args:
        a: any shape.
        b: the same shape.

    Returns:
        A float64 scalar tensor.
    """
    return torch.stack([(x * y).sum(dtype=torch.float64) for x, y in zip(_pieces(a), _pieces(b), strict=True)]).sum()


def gram(rows: Sequence[Tensor]) -> Tensor:
    """Inner products of each vector with each, accumulated in float64.

    Args:
        rows: r vectors of shape (dim,); they are not put together in memory.

    Returns:
        float64, shape (r, r), on the CPU.
    """
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for given in _stacked_pieces(rows):
        total.addmm_(given, given.T)
    return total.cpu()


def combined(coefficients: Tensor, rows: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Linear combinations of vectors, summed in float64 whatever is said of TF32.

    Args:
        coefficients: float64, shape (r, s).
        rows: s vectors of shape (dim,).
        out: memory, shape (r, dim), which may be that of the vectors themselves; None takes new memory.

    Returns:
        Shape (r, dim), of the vectors' type.
    """
    coefficients = coefficients.to(rows[0].device)
    out = rows[0].new_empty(len(coefficients), len(rows[0])) if out is None else out
    start = 0
    for given in _stacked_pieces(rows):
        stop = start + given.shape[1]
        out[:, start:stop] = coefficients @ given  # a piece is copied before it is written
        start = stop
    return out


def _stacked_pieces(rows: Sequence[Tensor]) -> Iterator[Tensor]:
    """Give vectors as rows of float64 matrices, a piece of their length at a time."""
    length = len(rows[0])
    size = PIECE if rows[0].device.type == "cpu" else CUDA_PIECE
    for start in range(0, length, size):
        yield torch.stack([row[start : start + size] for row in rows]).double()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """L2 distance of two flat vectors, norm(a - b), accumulated in float64.

    Args:
        a: weights.
        b: weights of the same shape.

    Returns:
        A float64 scalar tensor, in units of weight.
    """
    return torch.linalg.vector_norm(torch.stack([_norm(x - y) for x, y in zip(_pieces(a), _pieces(b), strict=True)]))


def buffer_distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """L2 distance over the floating-point buffers of two models (BatchNorm's running statistics).

    Buffers are not parameters: this number stands beside the verification error, never inside it.

    Args:
        a: buffers by name.
        b: buffers by the same names.

    Returns:
        A float64 scalar tensor; 0 where there are no such buffers.
    """
    squares = [distance(a[name], b[name]) ** 2 for name in a if a[name].is_floating_point()]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)

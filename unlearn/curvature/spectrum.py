"""Eigenpairs at the ends of a spectrum, from one Krylov space.

Lanczos finds the ends first. A Ritz pair (theta, x) of the space has a residual r = norm(A x - theta x) that costs
nothing to know; the nearest eigenvalue is within r of theta, and, for a symmetric A whose other eigenvalues are at a
distance `gap`, within r^2 / gap (Parlett, The Symmetric Eigenvalue Problem, 11.7).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov
from unlearn.curvature.operator import Operator
from unlearn.values.errors import at_least, choice

Found = TypeVar("Found")


@dataclass(frozen=True)
class Extreme:
    """An eigenpair at an end of a spectrum.

    Attributes:
        value: theta, the eigenvalue, signed.
        vector: its unit eigenvector, shape (dim,).
        residual: norm(A x - theta x), which bounds the distance from theta to the nearest eigenvalue; of a recycled
            search that of the leading Ritz pair of what it multiplied, which says how far that was from an eigenvector.
        products: operator products spent.
        converged: whether the error estimate fell under the tolerance.
        error: the estimate of |theta - eigenvalue|.
    """

    value: float
    vector: Tensor
    residual: float
    products: int
    converged: bool
    error: float = float("nan")


Search = Generator[Tensor, Tensor, Found]  # yields what is to be multiplied, is sent the product, ends with `Found`


def eigenpairs(
    operator: Operator, start: Tensor, count: int, which: str, tolerance: float, max_products: int
) -> list[Extreme]:
    """Find eigenpairs at the ends of a spectrum by Lanczos; arguments and stop rule as for `search`.

    Args:
        operator: symmetric.
        start: shape (dim,), not zero.
        count: how many pairs.
        which: `magnitude`, `highest`, `lowest` or `both`.
        tolerance: relative.
        max_products: upper bound.

    Returns:
        The pairs in the order of `which`, leading first; `products` is what all together took.
    """
    return driven(search(start, count, which, tolerance, max_products), operator.matvec)[1]


def driven(asking: Search[Found], matvec: Callable[[Tensor], Tensor]) -> Found:
    """Run a search on one operator.

    Args:
        asking: the search.
        matvec: multiplies.

    Returns:
        What the search ends with.
    """
    try:
        vector = next(asking)
        while True:
            vector = asking.send(matvec(vector))
    except StopIteration as end:
        found: Found = end.value
        return found


def search(
    start: Tensor, count: int, which: str, tolerance: float, max_products: int
) -> Search[tuple[Krylov, list[Extreme]]]:
    """Search for eigenpairs at the ends of a spectrum by Lanczos with full reorthogonalisation.

    Stops when min(r, 4 r^2 / gap) < tolerance * |theta| for each pair asked for, where r is the residual of the Ritz
    pair and gap its distance to the nearest other Ritz value. One start vector finds one vector of an eigenvalue that
    is there several times.

    Args:
        start: shape (dim,), not zero; its type and device are used throughout.
        count: how many pairs; fewer come back where the space ends before.
        which: `magnitude`, the largest |theta|; `highest`; `lowest`; or `both`, in turn from the high and the low end.
        tolerance: relative error of each theta to stop at.
        max_products: upper bound on products; also the number of vectors kept.

    Yields:
        A unit vector, shape (dim,), whose product with a symmetric operator is to be sent back.

    Returns:
        The Krylov space, and the pairs in the order of `which`, leading first; `products` is what all together took.
    """
    choice("which", which, ("magnitude", "highest", "lowest", "both"))
    at_least("count", count, 1)
    space = Krylov.start(start)
    while True:
        space.absorb((yield space.advance()))
        values, vectors = torch.linalg.eigh(space.tridiagonal())
        chosen = _order(values, which)[:count]
        found = []
        for place in chosen:
            theta, coefficients = float(values[place]), vectors[:, place]
            others = values[torch.arange(len(values)) != place]
            near = float((others - theta).abs().min()) if len(others) else 0.0
            residual = space.leftover * abs(float(coefficients[-1]))
            error = error_of(residual, near)
            converged = enough(error, theta, tolerance, start.dtype) or space.exhausted
            found.append((theta, coefficients, residual, converged, error))
        done = len(found) == count and all(converged for *_, converged, _ in found)
        if done or space.exhausted or space.products >= max_products:
            return space, [
                Extreme(theta, space.combine(coefficients), residual, space.products, converged, error)
                for theta, coefficients, residual, converged, error in found
            ]


def _order(values: Tensor, which: str) -> list[int]:
    up = range(len(values))  # ascending
    if which == "magnitude":
        return values.abs().argsort(descending=True).tolist()
    if which == "both":
        ends = [place for pair in zip(reversed(up), up, strict=True) for place in pair]
        return list(dict.fromkeys(ends))
    return list(reversed(up) if which == "highest" else up)


def enough(error: float, theta: float, tolerance: float, dtype: torch.dtype) -> bool:
    """Say whether an eigenvalue is known well enough.

    Args:
        error: the estimate of |theta - eigenvalue|.
        theta: the Ritz value.
        tolerance: relative.
        dtype: of the vectors.

    Returns:
        Whether the error is within the tolerance.
    """
    return error < tolerance * max(abs(theta), torch.finfo(dtype).tiny)


def error_of(residual: float, gap: float) -> float:
    """Estimate the error of a Ritz value.

    Args:
        residual: norm(A x - theta x).
        gap: its distance to the nearest other Ritz value; 0 where there is none.

    Returns:
        min(residual, 4 residual^2 / gap), an estimate of |theta - eigenvalue|.
    """
    # four times, because Ritz values that have not converged make the gap look wider than it is: with twice, one in ten
    # estimates on small networks was past a tolerance of 1e-3, with four times 2 of 400, by a tenth
    return min(residual, 4 * residual**2 / gap) if gap > residual else residual

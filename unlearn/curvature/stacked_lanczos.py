"""Leading eigenvalues of many operators at once; the formulas are those of `estimators.py` and `tracker.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.spectrum import Extreme, enough, error_of, power_step
from unlearn.curvature.stacked import StackedKrylov, StackedOperator
from unlearn.curvature.tracker import Warmth


def stacked_lanczos(
    lanczos: Lanczos, operator: StackedOperator, starts: Tensor, gaps: Sequence[float], rows: Sequence[int]
) -> dict[int, Extreme]:
    """Estimate the eigenvalue of largest magnitude of each row, as `Lanczos` does it for one.

    Args:
        lanczos: tolerance and most products.
        operator: symmetric in each row.
        starts: shape (K, dim), not zero in the rows that count.
        gaps: of each row, 0 where it is not known.
        rows: which rows count.

    Returns:
        By row, the estimate at the product where it converged. What the others go on to does not change it. NaN where
        the operator is not finite.
    """
    space = StackedKrylov.start(starts, 8)
    going = torch.zeros(len(starts), dtype=torch.bool)
    going[list(rows)] = True
    found: dict[int, Extreme] = {}
    while bool(going.any()):
        space.expand(operator, going)
        sound = torch.stack([space.diagonal[-1], space.leftover]).isfinite().all(0)
        for k in (going & ~sound).nonzero().flatten().tolist():
            nan = float("nan")
            found[k] = Extreme(nan, starts[k], nan, int(space.products[k]), False)
        going &= sound
        which = going.nonzero().flatten()
        values, vectors = torch.linalg.eigh(space.tridiagonal(which))
        m = values.shape[1]
        for k, own, pairs in zip(which.tolist(), values, vectors, strict=True):
            lead = int(own.abs().argmax())
            theta = float(own[lead])
            residual = float(space.leftover[k]) * abs(float(pairs[-1, lead]))
            gap = gaps[k]
            if m > 1:
                gap = float((own[torch.arange(m) != lead] - theta).abs().min())
            error = error_of(residual, gap)
            converged = enough(error, theta, lanczos.tolerance, starts.dtype) or bool(space.exhausted[k])
            if converged or m >= lanczos.max_products:
                vector = pairs[:, lead].to(starts) @ space.basis[k, :m]
                outside = None if space.exhausted[k] else space.basis[k, m]
                ahead = power_step(vector, outside, float(space.leftover[k]) * float(pairs[-1, lead]), theta)
                found[k] = Extreme(theta, vector, residual, m, converged, gap, error, ahead)
                going[k] = False
    return found


@dataclass
class StackedTracker:
    """Follows the leading eigenvalue of each row over training; see `Tracker`.

    Attributes:
        lanczos: the estimator.
        warmth: how yesterday's eigenvectors are used.
        last: the newest estimate of each row.
        since_cold: estimates since the last random start.
    """

    lanczos: Lanczos
    warmth: Warmth
    last: dict[int, Extreme] = field(default_factory=dict)
    since_cold: int = 0

    def __call__(self, operator: StackedOperator, probes: Tensor, rows: Sequence[int]) -> dict[int, Extreme]:
        """Estimate the eigenvalue of largest magnitude of each row.

        Args:
            operator: today's.
            probes: random directions, shape (K, dim).
            rows: those that still count; never more than at the call before.

        Returns:
            Today's estimates by row; `products` counts the re-check as well.
        """
        found: dict[int, Extreme] = {}
        if self.last and self.warmth.enabled:
            yesterday = probes.clone()
            yesterday[list(rows)] = torch.stack([self.last[k].onward for k in rows])
            lengths = torch.linalg.vector_norm(probes, dim=1, dtype=torch.float64).to(probes)
            starts = yesterday + probes * (self.warmth.mix / lengths)[:, None]
            gaps = [self.last[k].gap if k in self.last else 0.0 for k in range(len(probes))]
            found = stacked_lanczos(self.lanczos, operator, starts, gaps, rows)
        if not found or self.since_cold >= self.warmth.recheck:
            cold = stacked_lanczos(self.lanczos, operator, probes, [0.0] * len(probes), rows)
            found = {k: _larger(found.get(k), cold[k]) for k in rows}
            self.since_cold = 0
        self.since_cold += 1
        self.last = found
        return found


def _larger(warm: Extreme | None, cold: Extreme) -> Extreme:
    if warm is None:
        return cold
    keep = cold if abs(cold.value) > abs(warm.value) else warm
    return replace(keep, products=warm.products + cold.products, gap=cold.gap)

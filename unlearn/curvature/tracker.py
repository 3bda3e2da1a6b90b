"""One eigenvalue followed over training: warm starts, made safe."""

from dataclasses import dataclass, replace

from torch import Tensor

from unlearn.curvature.estimators import Estimator, Lanczos
from unlearn.curvature.operator import Operator
from unlearn.curvature.spectrum import Extreme
from unlearn.values.errors import at_least, fraction
from unlearn.values.flat import norm


@dataclass(frozen=True)
class Warmth:
    """How yesterday's eigenvector is used.

    Attributes:
        enabled: start from it at all.
        mix: the share of a random direction that is mixed into it, as a norm; at a crossing of eigenvalues it lets the
            new leader in. The Rayleigh quotient loses about mix^2 by it.
        recheck: every so many estimates the search starts from a random direction, and the larger of both counts.
    """

    enabled: bool
    mix: float
    recheck: int

    def __post_init__(self) -> None:
        fraction("measure.warm.mix", self.mix)
        at_least("measure.warm.recheck", self.recheck, 1)


@dataclass
class Tracker:
    """Estimates the leading eigenvalue of one operator after another.

    The Rayleigh quotient of yesterday's eigenvector is off by the square of the angle it has turned since; with the gap
    of yesterday's spectrum the residual of one product tells whether that is small enough. Where it is not, Lanczos
    goes on from there. The start is yesterday's vector after the power step that its last product is good for.

    Attributes:
        estimator: `Lanczos` is warm-started; any other starts cold every time.
        warmth: how.
        last: the newest estimate.
        since_cold: estimates since the last random start.
    """

    estimator: Estimator
    warmth: Warmth
    last: Extreme | None = None
    since_cold: int = 0

    def __call__(self, operator: Operator, probe: Tensor) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: today's.
            probe: a random direction, shape (dim,), used for the mix and for cold starts.

        Returns:
            Today's estimate; `products` counts the re-check as well.
        """
        found = self._warm(operator, probe)
        if found is None or self.since_cold >= self.warmth.recheck:
            spent = 0 if found is None else found.products
            cold = self.estimator(operator, probe)
            keep = cold if found is None or abs(cold.value) > abs(found.value) else found
            # the gap of a random start is of the whole spectrum; that of a warm one may miss a neighbour
            found = replace(keep, products=spent + cold.products, gap=cold.gap)
            self.since_cold = 0
        self.since_cold += 1
        self.last = found
        return found

    def _warm(self, operator: Operator, probe: Tensor) -> Extreme | None:
        if self.last is None or not self.warmth.enabled or not isinstance(self.estimator, Lanczos):
            return None
        length = norm(probe).to(probe)
        start = self.last.onward + probe * (self.warmth.mix / length)
        return self.estimator(operator, start, self.last.gap)

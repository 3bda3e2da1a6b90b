"""One eigenvalue followed over training: warm starts, made safe."""

from dataclasses import dataclass, replace

from torch import Tensor

from unlearn.curvature.estimators import Estimator, Lanczos
from unlearn.curvature.known import Known
from unlearn.curvature.operator import Operator
from unlearn.curvature.recycled import AROUND, AUDIT, recycled
from unlearn.curvature.spectrum import Extreme, Search, driven, search
from unlearn.values.errors import at_least, fraction
from unlearn.values.flat import norm

PATIENCE = 12  # products after which yesterday's pairs are given up; Lanczos rarely takes as many


@dataclass(frozen=True)
class Warmth:
    """How yesterday's eigenpairs are used.

    Attributes:
        enabled: start from them at all.
        mix: the share of a random direction that is mixed into the leading one, as a norm; at a crossing of eigenvalues
            it lets a leader in that is not among the pairs.
        recheck: every so many estimates the search looks along a random direction as well.
    """

    enabled: bool
    mix: float
    recheck: int

    def __post_init__(self) -> None:
        fraction("measure.warm.mix", self.mix)
        at_least("measure.warm.recheck", self.recheck, 1)


@dataclass
class Tracker:
    """Estimates the leading eigenvalue of one operator after another; see `recycled.py`.

    Attributes:
        estimator: `Lanczos` is warm-started; any other starts cold every time.
        warmth: how.
        known: eigenpairs of the newest operator; None before the first.
        since_cold: estimates since a random direction was last looked along.
    """

    estimator: Estimator
    warmth: Warmth
    known: Known | None = None
    since_cold: int = 0

    def __call__(self, operator: Operator, probe: Tensor) -> Extreme:
        """Estimate the eigenvalue of largest magnitude.

        Args:
            operator: today's.
            probe: a random direction, shape (dim,), used for the mix, re-checks and cold starts.

        Returns:
            Today's estimate; `products` counts a re-check's as well.
        """
        if not isinstance(self.estimator, Lanczos):
            return self.estimator(operator, probe)
        return driven(self.search(self.estimator, probe), operator.matvec)

    def search(self, lanczos: Lanczos, probe: Tensor) -> Search[Extreme]:
        """Search as `__call__` does, with someone else's products.

        Args:
            lanczos: tolerance and most products.
            probe: as for `__call__`.

        Yields:
            A unit vector, shape (dim,), whose product with today's operator is to be sent back.

        Returns:
            Today's estimate.
        """
        known, self.known = self.known, None  # so that pairs of both days are never held at once
        found, due = None, known is None or self.since_cold >= self.warmth.recheck
        if known is not None and self.warmth.enabled:
            patience = min(PATIENCE + AROUND * due, lanczos.max_products)
            aside = probe if due else None
            found, known = yield from recycled(
                self._mixed(known.vectors[0], probe), known, lanczos.tolerance, patience, aside
            )
        spent = 0 if found is None else found.products
        # fewer products than were spent would hardly come closer
        if found is None or (not found.converged and lanczos.max_products - spent >= spent):
            # a space of few products does not tell by how much the operator changes from one estimate to the next
            learned = None if known is None else (known.drift, known.caution)
            # of all pairs: whichever of them leads now, the search has something along it
            start = probe if known is None or due else self._mixed(known.vectors.sum(0), probe)
            known = None
            found, known = yield from _anew(lanczos, start, spent)
            if learned is not None:
                known = replace(known, drift=learned[0], caution=learned[1], unaudited=AUDIT)
        self.known = known if self.warmth.enabled else None
        self.since_cold = 1 if due else self.since_cold + 1
        return found

    def _mixed(self, vector: Tensor, probe: Tensor) -> Tensor:
        return vector + probe * (self.warmth.mix / norm(probe).to(probe))


def _anew(lanczos: Lanczos, start: Tensor, spent: int) -> Search[tuple[Extreme, Known]]:
    """Search without yesterday's pairs; products already spent are counted in."""
    space, (found,) = yield from search(start, 1, "magnitude", lanczos.tolerance, lanczos.max_products - spent)
    return replace(found, products=spent + found.products), Known.of(space)

"""The leading eigenvalue of an operator, where eigenpairs of one close by are known.

Lanczos forgets all of yesterday's Krylov space but one vector. Here all of its pairs are kept, as a surrogate of
today's operator (`known.py`), whose leading eigenvalue is the estimate. Its eigenvector is where the next product is
worth most (the step of Davidson 1975, with yesterday's operator as the preconditioner); the surrogate's own doubt says
whether one is needed. An audit is a product along R, where nothing is known: it says what curvature lies there, and
whether the error estimates were too small. It costs nothing where the next product lies there for the most part anyway;
now and then one is spent all the same. More rarely a re-check spends a few on the Krylov space of a random direction,
where a leader that no pair knows would show.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from unlearn.curvature.known import CAUTION, FADE, Known, surrogate_of
from unlearn.curvature.spectrum import Extreme, Search
from unlearn.values.flat import norm

AUDIT = 6  # estimates in a row that nothing but their own products has checked, at most
LOST = 0.5  # relative change of the leading value beyond which yesterday's pairs say nothing of today's operator
UNKNOWN = 0.5  # share of the next direction along R from which on its product is spent along R alone
AROUND = 6  # products of a re-check
MOST = 10.0  # times, more is not learned from one surprise


def recycled(
    start: Tensor, known: Known, tolerance: float, max_products: int, probe: Tensor | None = None
) -> Search[tuple[Extreme, Known]]:
    """Search for the eigenvalue of largest magnitude.

    Stops when the error estimate of `known.Surrogate` is under tolerance * |theta|, or, not converged, when the
    first product shows that little is left of the operator close by. (A small residual is no
    reason to stop: it says that an eigenvalue is near, not that it is the leading one.)

    Args:
        start: shape (dim,), not zero; yesterday's leading vector, or close to it.
        known: of the operator close by; used up, its memory is taken for what is known then.
        tolerance: relative error of theta to stop at.
        max_products: upper bound on products.
        probe: for a re-check, a random direction, shape (dim,); None for none.

    Yields:
        A unit vector, shape (dim,), whose product is to be sent back, to be kept.

    Returns:
        The eigenpair, its value that of the surrogate; and what is known now.

    Raises:
        NotFinite: a product is not.
    """
    start = start / norm(start).to(start)  # under the same name: what came in is as long as the model
    basis, products = [start], []
    caution, judged, before = known.caution, CAUTION, None
    audit, audited = known.unaudited >= AUDIT and probe is None, False
    while True:
        products.append((yield basis[-1]))
        m = len(basis)
        surrogate = surrogate_of(basis, products, known, audited=audited)
        value, vector, error = surrogate.lead(tolerance)
        if before is not None:
            judged = max(judged, CAUTION * _misjudged(*before, value, tolerance))
            caution = max(judged, FADE * known.caution)
        converged = caution * error <= tolerance * abs(value)
        lost = m == 1 and surrogate.change > LOST
        step, before = None, (value, error)
        if m < max_products and not lost:
            if probe is not None and m <= AROUND:
                step = _aside(probe, basis[0]) if m == 1 else surrogate.outside(surrogate.matrix[m - 1], m)
                before = None  # what random directions change says nothing about the error estimate
            elif m == 1 and (audit or (not converged and surrogate.unknown(vector) > UNKNOWN)):
                step = surrogate.outside(vector, surrogate.beyond)
                audited = step is not None
            if step is None and not converged:
                step = surrogate.outside(vector, m)
        if step is None:
            checked = audited or (probe is not None and m > AROUND)
            pairs = replace(surrogate.pairs(), caution=caution, unaudited=0 if checked else known.unaudited + 1)
            lead = pairs.vectors[0].clone()  # a view would keep all pairs in memory
            reported = math.inf if lost else caution * error
            return Extreme(value, lead, surrogate.residual(), m, converged and not lost, reported), pairs
        basis.append(step)


def _aside(vector: Tensor, unit: Tensor) -> Tensor | None:
    """Give the direction of what a vector has at right angles to a unit vector; None where it has nothing."""
    outside = vector - (unit @ vector) * unit
    length = norm(outside)
    if float(length) <= torch.finfo(vector.dtype).eps ** 0.5 * float(norm(vector)):
        return None
    return outside / length.to(vector)


def _misjudged(before: float, error: float, after: float, tolerance: float) -> float:
    """Say by how many times its error estimate a value has moved with one more product, where it moved at all."""
    moved = abs(after - before)
    if moved <= tolerance / 100 * abs(after):  # nothing to learn from: it may be rounding
        return 0.0
    return min(moved / error, MOST) if error else MOST * bool(moved)

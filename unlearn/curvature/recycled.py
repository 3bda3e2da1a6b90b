"""The leading eigenvalue of an operator, where eigenpairs of one close by are known.

Lanczos forgets all of yesterday's Krylov space but one vector. Here all of its pairs are kept, as a model: after a
product the operator is known on what was multiplied, B, and elsewhere it is taken for what it was yesterday,

    Q' A Q  =  [ B' A B     .           .    ]      on Q = [B, V, R], orthonormal: V what the pairs have outside of B,
               [ V' A B     V' A0 V     .    ]      R what the products A B have outside of both. Points stand for the
               [ R' A B     0           o    ]      transposes; the first column is exact, the second yesterday's,
                                                    and o is the curvature last seen along such a vector of R.

The model's leading eigenvalue is the estimate, right to second order in what the pairs have turned, even before the
next product; its eigenvector is where the next product is worth most (the step of Davidson 1975, with yesterday's
operator as the preconditioner). How far the estimate moves when the part that is not exact is changed by as much as it
may be off says whether another product is needed. Now and then, at an audit, a product is spent along R all the same,
where nothing is known: it says what curvature lies there, and whether the error estimates were too small.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov
from unlearn.curvature.spectrum import Extreme
from unlearn.values.errors import NotFinite
from unlearn.values.flat import combined, gram, norm

Array = np.ndarray
Search = Generator[Tensor, Tensor, tuple[Extreme, "Known"]]  # yields what is to be multiplied, is sent the product
KEPT = 8  # pairs; a classifier has about as many outlying eigenvalues as classes
SHED = 1e-2  # length below which what a kept vector has outside of the multiplied ones is left out
FADE = 0.5  # of the drift and of the misjudgement seen before, an estimate on
AUDIT = 4  # estimates in a row that nothing but their own products has checked, at most
# chosen on digits (CNN and MLP, with and without momentum, seed 0): fewer products with either lower, larger errors too
SHARE = 0.8  # of the second eigenvalue: the most that curvature outside of all that is known is taken to be
SPREAD = 3.0  # times the spread of that curvature is in doubt
CAUTION = 2.0  # times the movement seen with one more product is expected with all further ones
LOST = 0.15  # relative change of the leading value beyond which yesterday's pairs are no model of today's operator
MOST = 10.0  # times, more is not learned from one surprise


@dataclass(frozen=True)
class Known:
    """Leading eigenpairs of an operator, exact or nearly so.

    Attributes:
        vectors: orthonormal rows, shape (k, dim), leading first.
        values: of each.
        doubts: by how much each value may be off, relative: what the operator has drifted since it was multiplied.
        drift: by how much the leading value has lately changed between two estimates, relative.
        caution: times the error estimate must be under the tolerance; more where estimates were lately too small.
        unaudited: estimates since the last audit.
        outer: curvature last seen along a unit vector x that a product had outside of all that was known: its mean
            x' A x, and its spread, the norm of what A x has outside of x and B.
    """

    vectors: Tensor
    values: list[float]
    doubts: list[float]
    drift: float = 0.0
    caution: float = CAUTION
    unaudited: int = 0
    outer: tuple[float, float] = (0.0, math.inf)

    @classmethod
    def of(cls, space: Krylov) -> "Known":
        """Keep the leading Ritz pairs of a Krylov space.

        Args:
            space: with at least one product.

        Returns:
            At most `KEPT` pairs.
        """
        values, vectors = torch.linalg.eigh(space.tridiagonal())
        chosen = values.abs().argsort(descending=True)[:KEPT]
        upright = torch.from_numpy(_upright(vectors[:, chosen].numpy()))
        rows = torch.stack([space.combine(vector) for vector in upright.T])
        return cls(rows, values[chosen].tolist(), [0.0] * len(chosen), outer=(space.diagonal[-1], space.leftover))


@dataclass(frozen=True)
class _Model:
    """The operator on Q, as the module describes it. Small matrices are numpy's: torch takes longer over them.

    Attributes:
        given: B, V and A B, g vectors of shape (dim,); Q' = frame @ given.
        frame: shape (n, g).
        multiplied: how many of Q are in B.
        beyond: how many of Q are in B and V.
        matrix: shape (n, n).
        doubt: by how much the part that is not exact may be off, shape (n, n), not negative.
        residual: norm(A x - theta x) of the leading Ritz pair of B.
        change: of the leading value, relative.
        drift: of the operator, relative: that change, or what is left of those before.
    """

    given: list[Tensor]
    frame: Array
    multiplied: int
    beyond: int
    matrix: Array
    doubt: Array
    residual: float
    change: float
    drift: float

    def lead(self, tolerance: float) -> tuple[float, Array, float]:
        """Find the leading eigenvalue.

        Args:
            tolerance: relative, of the eigenvalue.

        Returns:
            The eigenvalue; the vector of Q to look at next, shape (n,): its eigenvector, but where that has next to
            nothing outside of B, or the doubt would let one lead that is mostly outside, the one that the doubt
            favours; and how far the doubt would move the eigenvalue.
        """
        cases = np.stack([self.matrix, self.matrix + self.doubt, self.matrix - self.doubt])
        values, vectors = np.linalg.eigh(cases)
        places = np.abs(values).argmax(1)
        sizes = np.abs(values[range(3), places])
        sure, *shifted = vectors[range(3), :, places]
        bold = shifted[int(sizes[1:].argmax())]
        settled = np.square(sure[self.multiplied :]).sum() < tolerance / 4
        rival = settled or np.square(bold[self.multiplied :]).sum() > 0.5
        return float(values[0, places[0]]), bold if rival else sure, float(np.abs(sizes[1:] - sizes[0]).max())

    def vectors(self, coefficients: Array) -> Tensor:
        """Leave the model.

        Args:
            coefficients: shape (r, n).

        Returns:
            Shape (r, dim).
        """
        return combined(torch.from_numpy(coefficients @ self.frame), self.given)


def recycled(start: Tensor, known: Known, tolerance: float, max_products: int) -> Search:
    """Search for the eigenvalue of largest magnitude.

    Stops when the error estimate of the module's description is under tolerance * |theta|, or, not converged, when the
    first product shows that little is left of the operator close by. (A small residual is no
    reason to stop: it says that an eigenvalue is near, not that it is the leading one.)

    Args:
        start: shape (dim,), not zero; yesterday's leading vector, or close to it.
        known: of the operator close by.
        tolerance: relative error of theta to stop at.
        max_products: upper bound on products.

    Yields:
        A unit vector, shape (dim,), whose product is to be sent back.

    Returns:
        The eigenpair, its value that of the model; and what is known now.

    Raises:
        NotFinite: a product is not.
    """
    basis, products = [start / norm(start).to(start)], []
    caution, judged, before = known.caution, CAUTION, None
    audit, outer = known.unaudited >= AUDIT, known.outer
    while True:
        products.append((yield basis[-1]).clone())
        model = _model(basis, products, known, outer)
        if audit and len(basis) == 2:
            outer = float(model.matrix[1, 1]), float(np.linalg.norm(model.matrix[2:, 1]))
            model = _model(basis, products, known, outer)
        value, vector, error = model.lead(tolerance)
        if before is not None:
            judged = max(judged, CAUTION * _misjudged(*before, value))
            caution = max(judged, FADE * known.caution)
        before = value, error
        converged = caution * error <= tolerance * abs(value)
        step, lost = None, len(basis) == 1 and model.change > LOST
        if audit and len(basis) == 1 and not lost:
            step = _outside(model, vector, model.beyond)
        if step is None and not converged and not lost and len(basis) < max_products:
            step = _outside(model, vector, len(basis))
        if step is None:
            unaudited = 0 if audit else known.unaudited + 1
            pairs = replace(_renewed(model), caution=caution, unaudited=unaudited, outer=outer)
            done = converged and not lost
            lead = pairs.vectors[0].clone()  # a view would keep all pairs in memory
            return Extreme(value, lead, model.residual, len(basis), done, caution * error), pairs
        basis.append(step)


def _misjudged(before: float, error: float, after: float) -> float:
    """Say by how many times its error estimate a value has moved with one more product."""
    moved = abs(after - before)
    return moved / error if moved < error * MOST else MOST


def _model(basis: list[Tensor], products: list[Tensor], known: Known, outer: tuple[float, float]) -> _Model:
    """Build the model."""
    given = [*basis, *known.vectors, *products]
    angles = gram(given).numpy()
    if not np.isfinite(angles).all():
        raise NotFinite
    g, m, last = len(angles), len(basis), len(basis) + len(known.values)
    size = np.abs(angles[:m, last:]).max()
    frame = _added(angles, np.zeros((0, g)), range(m), None)
    frame = _added(angles, frame, range(m, last), SHED)
    n = len(frame)
    # shorter than this it changes no digit of the eigenvalue, and may be rounding
    frame = _added(angles, frame, range(last, g), size * torch.finfo(basis[0].dtype).eps ** 0.5)
    at_products = frame @ angles[:, last:] @ frame[:m, :m].T  # A times the rows of Q that are in B
    onto, before = frame[m:n] @ angles[:, m:last], np.array(known.values)

    matrix, doubt = np.zeros((2, len(frame), len(frame)))
    matrix[:, :m], matrix[:m] = at_products, at_products.T
    matrix[:m, :m] = (at_products[:m] + at_products[:m].T) / 2
    matrix[m:n, m:n] = onto * before @ onto.T
    # no more than most of the second eigenvalue, else something unknown might always lead; each guess a little lower
    # than the one before, since among equal ones rounding would choose what is kept
    most = SHARE * float(np.sort(np.abs(before))[-2:][0])
    guess = max(-most, min(outer[0], most))
    order = known.unaudited * 1e-2 + np.arange(len(frame) - n) * 1e-3
    matrix[n:, n:] = np.diag(guess * (1 - order))

    values = np.linalg.eigvalsh(matrix)
    change = abs(float(values[np.abs(values).argmax()]) / known.values[0] - 1) if known.values[0] else 1.0
    drift = max(change, FADE * known.drift)
    doubt[m:n, m:n] = onto * (np.abs(before) * np.hypot(known.doubts, drift)) @ onto.T
    doubt[n:, n:] = min(SPREAD * outer[1], most - abs(guess)) * np.eye(len(frame) - n)
    ritz, vectors = np.linalg.eigh(matrix[:m, :m])
    residual = np.linalg.norm(matrix[m:, :m] @ vectors[:, np.abs(ritz).argmax()])
    return _Model(given, frame, m, n, matrix, doubt, float(residual), change, drift)


def _added(angles: Array, frame: Array, rows: range, short: float | None) -> Array:
    """Go on with an orthonormal frame by what some rows have outside of it, in coordinates.

    Args:
        angles: inner products of all rows, shape (g, g).
        frame: orthonormal so far, shape (n, g).
        rows: to add.
        short: what is no longer than this is left out; None where the rows are at right angles, up to rounding, and
            stay as they are.

    Returns:
        Shape (n', g).
    """
    fresh = np.eye(len(angles))[list(rows)]
    for _ in range(2):  # twice is enough to be orthogonal to working precision
        fresh = fresh - (fresh @ angles @ frame.T) @ frame
    squares, axes = np.linalg.eigh(fresh @ angles @ fresh.T)
    if short is None:
        return np.concatenate([frame, axes / np.sqrt(squares) @ axes.T @ fresh])
    long = squares > short**2
    return np.concatenate([frame, (axes[:, long] / np.sqrt(squares[long])).T @ fresh])


def _outside(model: _Model, vector: Array, first: int) -> Tensor | None:
    """Give the direction of what a vector of the model has from a row on; None where it has nothing."""
    outside = np.where(np.arange(len(vector)) >= first, vector, 0.0)
    length = np.linalg.norm(outside)
    if length <= torch.finfo(model.given[0].dtype).eps:
        return None
    step = model.vectors(outside[None] / length)[0]
    return step / norm(step).to(step)


def _renewed(model: _Model) -> Known:
    """Keep the leading pairs of the model."""
    values, vectors = np.linalg.eigh(model.matrix)
    chosen = np.abs(values).argsort()[::-1][:KEPT]
    values, vectors = values[chosen], _upright(vectors[:, chosen])
    doubts = (vectors * (model.doubt @ vectors)).sum(0) / np.maximum(np.abs(values), np.finfo(float).tiny)
    return Known(model.vectors(vectors.T), values.tolist(), doubts.tolist(), model.drift)


def _upright(columns: Array) -> Array:
    """Give each column the sign that makes its largest entry positive; eigenvectors come with either."""
    largest = columns[np.abs(columns).argmax(0), range(columns.shape[1])]
    return np.where(largest < 0, -columns, columns)

"""What is known of an operator: eigenpairs of one close by, and a few products of its own.

After a product the operator is known on what was multiplied, B, and elsewhere it is taken for what it was yesterday,

    Q' A Q  =  [ B' A B     .           .    ]      on Q = [B, V, R], orthonormal: V what the pairs have outside of B,
               [ V' A B     V' A0 V     .    ]      R what the products A B have outside of both. Points stand for the
               [ R' A B     0           o    ]      transposes; the first column is exact, the second yesterday's,
                                                    and o is a guess from the curvature last seen along such a vector.

This surrogate's leading eigenvalue is right to second order in what the pairs have turned. How far it moves when the
part that is not exact is changed by as much as it may be off is the estimate of its error.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov
from unlearn.curvature.outside import felt
from unlearn.values.errors import NotFinite
from unlearn.values.flat import combined, gram, norm

Array = np.ndarray
CAUTION = 2.0  # times the movement seen with one more product is expected with all further ones
KEPT = 8  # pairs; a classifier has about as many outlying eigenvalues as classes
SHED = 1e-2  # length below which what a kept vector has outside of the multiplied ones is left out
FADE = 0.5  # of the drift and of the misjudgement seen before, an estimate on
GROWN = 1.15  # times, yesterday's spectrum is taken to have grown at most
# chosen on digits (CNN and MLP, with and without momentum, seeds 3 to 8), for fewer products at errors no larger
SHARE = 0.9  # of the second eigenvalue: the most that curvature outside of all that is known is taken to be
FLOOR = 0.1  # of the first: no less than that


@dataclass(frozen=True)
class Known:
    """Leading eigenpairs of an operator, exact or nearly so.

    Attributes:
        vectors: orthonormal rows, shape (k, dim), leading first.
        values: of each.
        doubts: by how much each value may be off, relative: the operator's drift since it was multiplied.
        drift: by how much the leading value has lately changed between two estimates, relative.
        caution: times the error estimate must be under the tolerance; more where estimates were lately too small.
        unaudited: estimates since the last audit; after a restart as many as make one due.
        outer: curvature last seen along a unit vector x that a product had outside of all that was known: its mean
            x' A x, and its spread, the norm of what A x has outside of x and B; infinite where none was seen.
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
        rows = combined(torch.from_numpy(_upright(vectors[:, chosen].numpy()).T), space.basis[: space.products])
        # the last vector is the furthest out; where it is nearly one of few eigenvectors, it says nothing about others
        last, spread = space.diagonal[-1], space.leftover
        outer = (last, spread) if spread > abs(last) else cls.outer
        return cls(rows, values[chosen].tolist(), [0.0] * len(chosen), outer=outer)


@dataclass(frozen=True)
class Surrogate:
    """The operator on Q, as the module describes it. Small matrices are numpy's: torch takes longer over them.

    Attributes:
        given: B, V and A B, g vectors of shape (dim,); Q' = frame @ given.
        known: yesterday's pairs, of which V is made; `pairs` takes their memory.
        frame: shape (n, g).
        multiplied: how many of Q are in B.
        beyond: how many of Q are in B and V.
        matrix: shape (n, n).
        doubt: by how much the part that is not exact may be off, shape (n, n), not negative.
        values: eigenvalues of the matrix, shape (n,).
        axes: its eigenvectors, columns.
        change: of the leading value, relative.
        drift: of the operator, relative: that change, or what is left of those before.
        outer: as for `Known`, of today.
    """

    given: list[Tensor]
    known: Known
    frame: Array
    multiplied: int
    beyond: int
    matrix: Array
    doubt: Array
    values: Array
    axes: Array
    change: float
    drift: float
    outer: tuple[float, float]

    def lead(self, tolerance: float) -> tuple[float, Array, float]:
        """Find the leading eigenvalue.

        Args:
            tolerance: relative, of the eigenvalue.

        Returns:
            The eigenvalue; the vector of Q to look at next, shape (n,): its eigenvector, but where that has next to
            nothing outside of B, or the doubt would let one lead that is mostly outside, the one that the doubt
            favours; and how far the doubt would move the eigenvalue.
        """
        place = np.abs(self.values).argmax()
        value, sure = float(self.values[place]), self.axes[:, place]
        values, vectors = np.linalg.eigh(np.stack([self.matrix + self.doubt, self.matrix - self.doubt]))
        sizes = np.abs(values).max(1)
        shifted = int(sizes.argmax())
        bold = vectors[shifted][:, np.abs(values[shifted]).argmax()]
        settled = np.square(sure[self.multiplied :]).sum() < tolerance / 4
        rival = settled or np.square(bold[self.multiplied :]).sum() > 0.5
        return value, bold if rival else sure, float(np.abs(sizes - abs(value)).max())

    def residual(self) -> float:
        """Give norm(A x - theta x) of the leading Ritz pair of B."""
        m = self.multiplied
        ritz, vectors = np.linalg.eigh(self.matrix[:m, :m])
        return float(np.linalg.norm(self.matrix[m:, :m] @ vectors[:, np.abs(ritz).argmax()]))

    def unknown(self, vector: Array) -> float:
        """Say which share of what a vector of the surrogate has outside of B lies along R, of the squared length."""
        outside = np.square(vector)[self.multiplied :]
        beyond = outside[self.beyond - self.multiplied :]
        return float(beyond.sum() / outside.sum()) if outside.any() else 0.0

    def vectors(self, coefficients: Array) -> Tensor:
        """Leave the surrogate.

        Args:
            coefficients: shape (r, n).

        Returns:
            Shape (r, dim).
        """
        return combined(torch.from_numpy(coefficients @ self.frame), self.given)

    def outside(self, vector: Array, first: int) -> Tensor | None:
        """Give the direction of what a vector of the surrogate has from a row on.

        Args:
            vector: shape (n,).
            first: the row of Q.

        Returns:
            Shape (dim,); None where it has nothing there.
        """
        outside = np.where(np.arange(len(vector)) >= first, vector, 0.0)
        length = np.linalg.norm(outside)
        if length <= torch.finfo(self.given[0].dtype).eps * np.linalg.norm(vector):
            return None
        step = self.vectors(outside[None] / length)[0]
        return step / norm(step).to(step)

    def pairs(self) -> Known:
        """Keep the leading pairs, in the memory of yesterday's, which are lost: nothing is to be asked after that.

        Returns:
            At most `KEPT` of them.
        """
        chosen = np.abs(self.values).argsort()[::-1][:KEPT]
        values, vectors = self.values[chosen], _upright(self.axes[:, chosen])
        least = np.finfo(float).eps * abs(values[0]) or 1.0  # of an operator that is zero nothing is in doubt
        doubts = (vectors * (self.doubt @ vectors)).sum(0) / np.abs(values).clip(least)
        room = self.known.vectors if len(self.known.values) == len(values) else None
        rows = combined(torch.from_numpy(vectors.T @ self.frame), self.given, room)
        return Known(rows, values.tolist(), doubts.tolist(), self.drift, outer=self.outer)


def surrogate_of(basis: list[Tensor], products: list[Tensor], known: Known, *, audited: bool = False) -> Surrogate:
    """Build the surrogate.

    All of yesterday's spectrum is taken to have grown as its leader has: outliers sharpen together. What shrinks is
    left as it is; a value too high costs a product, one too low hides the next leader.

    Args:
        basis: B, unit vectors of shape (dim,), yesterday's leader first.
        products: A B.
        known: of yesterday.
        audited: whether the second of B is a direction outside of all that was known, so that curvature there was seen.

    Returns:
        The surrogate.

    Raises:
        NotFinite: a product is not.
    """
    given = [*basis, *known.vectors, *products]
    angles = gram(given).numpy()
    if not np.isfinite(angles).all():
        raise NotFinite
    g, m, last = len(angles), len(basis), len(basis) + len(known.values)
    frame = np.zeros((m, g))
    frame[:, :m] = np.linalg.inv(np.linalg.cholesky(angles[:m, :m]))  # at right angles, up to rounding, as they are
    frame = _added(angles, frame, range(m, last), SHED)
    n = len(frame)
    # shorter than this it changes no digit of the eigenvalue, and may be rounding, of the vectors or of the Gram matrix
    frame = _added(angles, frame, range(last, g), max(torch.finfo(basis[0].dtype).eps ** 0.5, 3e-6))
    at_products = frame @ angles[:, last:] @ frame[:m, :m].T  # A times the rows of Q that are in B
    leader = known.values[0]
    growth = min(max(float(angles[0, last]) / leader, 1.0), GROWN) if leader else 1.0
    onto, before = frame[m:n] @ angles[:, m:last], growth * np.array(known.values)

    matrix, doubt = np.zeros((2, len(frame), len(frame)))
    matrix[:, :m], matrix[:m] = at_products, at_products.T
    matrix[:m, :m] = (at_products[:m] + at_products[:m].T) / 2
    # where B has some of the outside these have some as well, left out: guesses for it cost a tenth more products
    matrix[m:n, m:n] = onto * before @ onto.T
    outer = growth * known.outer[0], growth * known.outer[1]
    if audited:
        outer = float(matrix[1, 1]), float(np.linalg.norm(matrix[2:, 1]))
    # at most most of the second eigenvalue, else something unknown might always lead; each guess a little lower than
    # the one before, since among equal ones rounding would choose what is kept
    most = max(SHARE * float(np.sort(np.abs(before))[-2:][0]), FLOOR * abs(float(before[0])))
    lead = float(np.abs(np.linalg.eigvalsh(matrix[:m, :m])).max())  # where it falls, what is outside weighs more
    guess, unsure = felt(outer, most, math.copysign(min(abs(float(before[0])), lead), float(before[0])))
    order = min(known.unaudited, 10) * 1e-2 + np.arange(len(frame) - n) * 1e-3
    matrix[n:, n:] = np.diag(guess * (1 - order))

    values, axes = np.linalg.eigh(matrix)
    change = abs(float(np.abs(values).max()) / abs(leader) - 1) if leader else 1.0
    drift = min(max(change, FADE * known.drift), 1.0)
    doubt[m:n, m:n] = onto * (np.abs(before) * np.hypot(known.doubts, drift)) @ onto.T
    doubt[n:, n:] = unsure * np.eye(len(frame) - n)
    return Surrogate(given, known, frame, m, n, matrix, doubt, values, axes, change, drift, outer)


def _added(angles: Array, frame: Array, rows: range, short: float) -> Array:
    """Go on with an orthonormal frame by what some rows have outside of it, in coordinates.

    Args:
        angles: inner products of all rows, shape (g, g).
        frame: orthonormal so far, shape (n, g).
        rows: to add.
        short: what is no longer than this, of a row of length 1, is left out.

    Returns:
        Shape (n', g).
    """
    lengths = np.sqrt(np.maximum(np.diag(angles), np.finfo(float).tiny))
    fresh = np.diag(1 / lengths)[rows.start : rows.stop]
    for _ in range(2):  # twice is enough to be orthogonal to working precision
        fresh = fresh - (fresh @ angles @ frame.T) @ frame
    squares, axes = np.linalg.eigh(fresh @ angles @ fresh.T)
    long = squares > short**2
    return np.concatenate([frame, (axes[:, long] / np.sqrt(squares[long])).T @ fresh])


def _upright(columns: Array) -> Array:
    """Give each column the sign that makes its largest entry positive; eigenvectors come with either."""
    largest = columns[np.abs(columns).argmax(0), range(columns.shape[1])]
    return np.where(largest < 0, -columns, columns)

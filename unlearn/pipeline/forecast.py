"""The Krylov unlearning error: v and the no-op distance predicted from M alone, and whether to trust them.

paper.md section 2: y = w' - w_t to first order in the removal, from a handful of products. What a method adds to the
weights is then off by norm((w'' - w_t) - y), and doing nothing by norm(y).

y goes from measured step to measured step: each carries it through the steps since the one before, with the curvature
that these steps had.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov, krylov
from unlearn.curvature.operator import Halves, Operator
from unlearn.curvature.transport import Removal, curved, transport
from unlearn.train.carried import Carried
from unlearn.train.learner import Learner
from unlearn.train.recording import Recording
from unlearn.values.flat import norm

ERROR = 0.2  # of norm(y): beyond, the last products still mattered
HALVES = 0.5  # of norm(y): beyond, other batches would have said something else
GROWTH = 2.0  # beyond, most of y is what negative curvature made of it, and first order does not hold for long


@dataclass(frozen=True)
class Forecast:
    """A prediction of w' - w_t.

    Attributes:
        carried: from which the next prediction goes on.
        y: the prediction, shape (dim,); None before the first visit, and where the removal is zero.
        error: estimated error of y, in units of weight.
        products: products spent at this step.
        flags: `unconverged`, the last product of the segments still mattered; `growth`, negative curvature; `lr_sigma`,
            lr times a Ritz value above 1; `half_samples`, two halves of the batches disagree; `batchnorm`, whose no-op
            distance it has under-predicted.
    """

    carried: Carried
    y: Tensor | None = None
    error: float = 0.0
    products: int = 0
    flags: tuple[str, ...] = ()


def forecast(
    recording: Recording, original: Learner, operator_along: Callable[[Tensor], Operator], products: int
) -> Forecast:
    """Predict w' - w_t.

    Args:
        recording: of M, with what was carried until the last prediction. Not changed; the next prediction goes on from
            `Forecast.carried`.
        original: M.
        operator_along: gives the curvature of the steps since the last prediction, for a removal; of two halves of the
            batches where they are to be compared.
        products: m, at most this many are spent.

    Returns:
        The prediction.
    """
    before = recording.carried
    assert before is not None  # the recording was asked for it
    flow = recording.flow(before.steps)
    removal, moved = before.removal(flow), before.at(recording.steps, original)
    if removal is None:
        return Forecast(moved)
    start = removal.flat().d
    if not bool(start.any()):
        return Forecast(replace(moved, difference=removal.flat()))
    operator = operator_along(start)
    space = krylov(operator, start, products)
    after = transport(space, removal, clamp=False)
    ritz = torch.linalg.eigvalsh(space.tridiagonal())
    carried = replace(
        moved,
        difference=after,
        error=before.error + _error(space, removal),
        spread=math.hypot(before.spread, _spread(space, operator, removal)),
        growth=before.growth + _growth(space, removal),
    )
    size = float(norm(after.d))
    reasons = {
        "unconverged": carried.error > ERROR * size,
        "growth": carried.growth > math.log(GROWTH),
        "lr_sigma": flow.rates[-1] * float(ritz.abs().max()) > 1,
        "half_samples": carried.spread > HALVES * size,
        "batchnorm": bool(original.buffers),
    }
    flags = tuple(flag for flag, holds in reasons.items() if holds)
    return Forecast(carried, -after.d, carried.error, space.products, flags)


def _error(space: Krylov, removal: Removal) -> float:
    """Say what the last product changed in d."""
    if space.exhausted:
        return 0.0
    if space.products < 2:
        return math.inf
    whole = space.tridiagonal()
    d, _ = curved(space, removal, whole, clamp=False)
    shorter, _ = curved(space, removal, whole[:-1, :-1], clamp=False)
    return float(torch.linalg.vector_norm(d - torch.cat([shorter, shorter.new_zeros(1)])))


def _growth(space: Krylov, removal: Removal) -> float:
    """Say by what factor negative curvature made d longer, as a logarithm."""
    values, vectors = torch.linalg.eigh(space.tridiagonal())
    flat, raised = removal.flat().d, vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
    sizes = [
        float(norm(flat + space.combine(curved(space, removal, matrix, clamp=False)[0])))
        for matrix in (space.tridiagonal(), raised)
    ]
    return math.log(sizes[0] / sizes[1]) if all(sizes) else 0.0


def _spread(space: Krylov, operator: Operator, removal: Removal) -> float:
    """Say how far two halves of the batches disagree on d."""
    halves = space.halves(operator.share) if isinstance(operator, Halves) else None
    if halves is None:
        return 0.0
    one, other = (curved(space, removal, half, clamp=False)[0] for half in halves)
    return float(torch.linalg.vector_norm(one - other))

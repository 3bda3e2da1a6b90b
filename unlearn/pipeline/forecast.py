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
from unlearn.curvature.transport import Difference, Removal, curved, entries
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


@dataclass(frozen=True)
class Opened:
    """A prediction that waits for curvature.

    Attributes:
        removal: what is carried.
        moved: what was carried before, at today's steps.
        flat: the removal carried as though there were no curvature; a Krylov space is started at its d.
    """

    removal: Removal
    moved: Carried
    flat: Difference


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
    opened = open_forecast(recording, original)
    if isinstance(opened, Forecast):
        return opened
    operator = operator_along(opened.flat.d)
    space = krylov(operator, opened.flat.d, products)
    share = operator.share if isinstance(operator, Halves) else None
    return close_forecast(recording, original, opened, space, share)


def open_forecast(recording: Recording, original: Learner) -> Forecast | Opened:
    """Say what a prediction needs curvature for.

    Args:
        recording: as for `forecast`.
        original: M.

    Returns:
        What is to be carried; or the forecast, where no curvature is needed.
    """
    before = recording.carried
    assert before is not None  # the recording was asked for it
    removal, moved = before.removal(recording.flow(before.steps)), before.at(recording.steps, original)
    if removal is None:
        return Forecast(moved)
    flat = removal.flat()
    if not bool(flat.d.any()):
        return Forecast(replace(moved, difference=flat))
    return Opened(removal, moved, flat)


def close_forecast(
    recording: Recording, original: Learner, opened: Opened, space: Krylov, share: float | None
) -> Forecast:
    """Predict w' - w_t once there is curvature.

    Args:
        recording: as for `forecast`.
        original: M.
        opened: what is carried.
        space: of the curvature of the steps since the last prediction, started at `opened.flat.d`.
        share: weight of the first half of the batches in their mean; None where there are no halves.

    Returns:
        The prediction.
    """
    before, removal, flat = recording.carried, opened.removal, opened.flat
    assert before is not None
    whole = space.tridiagonal()
    ritz, vectors = torch.linalg.eigh(whole)
    raised = vectors @ torch.diag(ritz.clamp(min=0)) @ vectors.T
    halves = None if share is None else space.halves(share)
    matrices = [whole, raised, whole[:-1, :-1], *(halves or ())]
    (d, u), (d_raised, _), (d_shorter, _), *of_halves = curved(entries(space, removal), removal, matrices, clamp=False)
    after = Difference(flat.d + space.combine(d), None if flat.u is None else flat.u + space.combine(u))
    size, size_raised = float(norm(after.d)), float(norm(flat.d + space.combine(d_raised)))
    carried = replace(
        opened.moved,
        difference=after,
        error=before.error + _error(space, d, d_shorter),
        spread=math.hypot(before.spread, _apart(of_halves)),
        growth=before.growth + (math.log(size / size_raised) if size and size_raised else 0.0),
    )
    reasons = {
        "unconverged": carried.error > ERROR * size,
        "growth": carried.growth > math.log(GROWTH),
        "lr_sigma": removal.flow.rates[-1] * float(ritz.abs().max()) > 1,
        "half_samples": carried.spread > HALVES * size,
        "batchnorm": bool(original.buffers),
    }
    flags = tuple(flag for flag, holds in reasons.items() if holds)
    return Forecast(carried, -after.d, carried.error, space.products, flags)


def _error(space: Krylov, d: Tensor, shorter: Tensor) -> float:
    """Say what the last product changed in d."""
    if space.exhausted:
        return 0.0
    if space.products < 2:
        return math.inf
    return float(torch.linalg.vector_norm(d - torch.cat([shorter, shorter.new_zeros(1)])))


def _apart(halves: list[tuple[Tensor, Tensor]]) -> float:
    """Say how far two halves of the batches disagree on d."""
    return float(torch.linalg.vector_norm(halves[0][0] - halves[1][0])) if halves else 0.0

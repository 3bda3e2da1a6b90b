"""The Krylov unlearning error: v and the no-op distance predicted from M alone, and whether to trust them.

y = w' - w_t to first order in the removal, from a handful of products. What a method adds to the weights is then off by
norm((w'' - w_t) - y), and doing nothing by norm(y).

y goes from measured step to measured step: each carries it through the steps since the one before, with the curvature
that these steps had.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unlearn.curvature.krylov import krylov
from unlearn.curvature.operator import Operator
from unlearn.curvature.transport import Difference, Removal, curved, entries
from unlearn.train.carried import Carried
from unlearn.train.learner import Learner
from unlearn.train.recording import Recording
from unlearn.values.flat import norms

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


@dataclass(frozen=True)
class Projected:
    """Curvature of K removals, projected on as many Krylov spaces of m products.

    Attributes:
        opened: what is carried; each space is started at its `flat.d`.
        whole: the operators, float64, shape (K, m, m).
        halves: those of two halves of the batches, as `whole`; None where there are none.
        coordinates: of each space, gives the coordinates of a vector.
        combine: maps coefficients in the bases, shape (K, c, m), to vectors, shape (K, c, dim).
        exhausted: whether the spaces are invariant.
    """

    opened: Sequence[Opened]
    whole: Tensor
    halves: tuple[Tensor, Tensor] | None
    coordinates: Sequence[Callable[[Tensor], Tensor]]
    combine: Callable[[Tensor], Tensor]
    exhausted: bool


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
    halves = space.halves()
    projected = Projected(
        [opened],
        space.tridiagonal()[None],
        None if halves is None else (halves[0][None], halves[1][None]),
        [space.coordinates],
        lambda coefficients: torch.stack([space.combine(each) for each in coefficients[0]])[None],
        space.exhausted,
    )
    return close_forecasts([recording], [original], projected)[0]


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


def close_forecasts(
    recordings: Sequence[Recording], originals: Sequence[Learner], projected: Projected
) -> list[Forecast]:
    """Predict w' - w_t once there is curvature.

    Args:
        recordings: of each M, as for `forecast`.
        originals: each M.
        projected: what is carried, and the curvature of the steps since the last predictions.

    Returns:
        The predictions.
    """
    removals, flats = [each.removal for each in projected.opened], [each.flat for each in projected.opened]
    matrices = [projected.whole, projected.whole[:, :-1, :-1], *(projected.halves or ())]
    whole, *others = [np.linalg.eigh(matrix.numpy()) for matrix in matrices]
    raised = whole[0].clip(min=0), whole[1]
    (d, u), (d_raised, _), (d_shorter, _), *of_halves = curved(
        entries(projected.coordinates, removals), removals, [whole, raised, *others], clamp=False
    )
    carries = any(flat.u is not None for flat in flats)
    moved = projected.combine(torch.stack([d, d_raised, u] if carries else [d, d_raised], dim=1))
    flat_d = torch.stack([flat.d for flat in flats])
    after, after_raised = flat_d + moved[:, 0], flat_d + moved[:, 1]
    predictions, sizes, raised_sizes = -after, norms(after).tolist(), norms(after_raised).tolist()
    errors = _errors(projected, d, d_shorter)
    aparts = torch.linalg.vector_norm(of_halves[0][0] - of_halves[1][0], dim=1).tolist() if of_halves else None
    found = []
    for k, (recording, original, opened) in enumerate(zip(recordings, originals, projected.opened, strict=True)):
        before, flat, size, size_raised = recording.carried, opened.flat, sizes[k], raised_sizes[k]
        assert before is not None
        carried = replace(
            opened.moved,
            difference=Difference(after[k], None if flat.u is None else flat.u + moved[k, 2]),
            error=before.error + errors[k],
            spread=math.hypot(before.spread, 0.0 if aparts is None else aparts[k]),
            growth=before.growth + (math.log(size / size_raised) if size and size_raised else 0.0),
        )
        reasons = {
            "unconverged": carried.error > ERROR * size,
            "growth": carried.growth > math.log(GROWTH),
            "lr_sigma": max(opened.removal.flow.rates) * float(np.abs(whole[0][k]).max()) > 1,
            "half_samples": carried.spread > HALVES * size,
            "batchnorm": bool(original.buffers),
        }
        flags = tuple(flag for flag, holds in reasons.items() if holds)
        found.append(Forecast(carried, predictions[k], carried.error, projected.whole.shape[1], flags))
    return found


def _errors(projected: Projected, d: Tensor, shorter: Tensor) -> list[float]:
    """Say what the last product changed in each d."""
    if projected.exhausted:
        return [0.0] * len(d)
    if d.shape[1] < 2:
        return [math.inf] * len(d)
    changed: list[float] = torch.linalg.vector_norm(d - F.pad(shorter, (0, 1)), dim=1).tolist()
    return changed

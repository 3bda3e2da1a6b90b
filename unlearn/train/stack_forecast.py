"""The forecasts of all runs of a stack at once: products in lockstep, and the small recursions side by side."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from unlearn.curvature.stacked import StackedKrylov, stacked_krylov
from unlearn.train.forecast import Forecast, Opened, Projected, close_forecasts, open_forecast
from unlearn.train.recording import Trained
from unlearn.train.stack_objective import StackedObjective
from unlearn.train.stack_path import SegmentOfRow, StackedQuotient


def stacked_forecasts(
    trained: Sequence[Trained],
    rows: Sequence[int],
    objective: StackedObjective,
    most: int,
    products: int,
) -> dict[int, Forecast | None]:
    """Predict w' - w_t of some runs, as `forecast` does it for one.

    Args:
        trained: M and its recording of every run.
        rows: the runs that count.
        objective: the losses of all runs.
        most: how many training points a forecast looks at.
        products: m, at most this many are spent on each run.

    Returns:
        By row, the forecast; None where the curvature is not finite.
    """
    found: dict[int, Forecast | None] = {}
    waiting: dict[int, Opened] = {}
    for row in rows:
        opened = open_forecast(trained[row].recording, trained[row].original)
        if isinstance(opened, Forecast):
            found[row] = opened
        else:
            waiting[row] = opened
    if not waiting:
        return found
    segments = [_segment(row, trained[row], opened) for row, opened in waiting.items()]
    operator = StackedQuotient.of(objective, segments, most).operator()
    starts = torch.stack([opened.flat.d for opened in waiting.values()])
    spaces, sound = stacked_krylov(operator, starts, products)
    places = list(waiting)
    for alike in _alike(spaces, sound, operator.share):
        own = [trained[places[place]] for place in alike]
        closed = close_forecasts(
            [each.recording for each in own],
            [each.original for each in own],
            _projected(spaces, operator.share, [waiting[places[place]] for place in alike], alike),
        )
        found.update(zip((places[place] for place in alike), closed, strict=True))
    return {row: found.get(row) for row in rows}


def _alike(spaces: StackedKrylov, sound: Tensor, share: Tensor) -> list[list[int]]:
    """Sort the spaces that are finite into those of equal size; mostly all are."""
    groups: dict[tuple[int, bool, bool], list[int]] = {}
    kinds = zip(spaces.products.tolist(), spaces.exhausted.tolist(), (share == 1).tolist(), strict=True)
    for place, (kind, finite) in enumerate(zip(kinds, sound.tolist(), strict=True)):
        if finite:
            groups.setdefault(kind, []).append(place)
    return list(groups.values())


def _projected(spaces: StackedKrylov, share: Tensor, opened: Sequence[Opened], places: list[int]) -> Projected:
    m = int(spaces.products[places[0]])
    rows = torch.tensor(places)
    basis = (spaces.basis if len(places) == len(spaces.basis) else spaces.basis[rows])[:, :m]
    return Projected(
        opened,
        spaces.tridiagonal(rows, m),
        None if float(share[places[0]]) == 1 else spaces.halves(rows, m, share[rows]),
        [partial(_coordinates, own) for own in basis],
        lambda coefficients: torch.bmm(coefficients.to(basis), basis),
        bool(spaces.exhausted[places[0]]),
    )


def _coordinates(basis: Tensor, vector: Tensor) -> Tensor:
    return (basis @ vector).double()


def _segment(row: int, trained: Trained, opened: Opened) -> SegmentOfRow:
    before = trained.recording.carried
    assert before is not None
    return SegmentOfRow(row, before.segment(trained.recording.steps, trained.original), opened.flat.d)

"""The forecasts of all points of a stack at once: products in lockstep, then each point's own small recursion."""

from collections.abc import Sequence

import torch

from unlearn.curvature.stacked import stacked_krylov
from unlearn.pipeline.forecast import Forecast, Opened, close_forecast, open_forecast
from unlearn.train.recording import Trained
from unlearn.train.stack_objective import StackedObjective
from unlearn.train.stack_path import Path, StackedQuotient


def stacked_forecasts(
    trained: Sequence[Trained],
    rows: Sequence[int],
    objective: StackedObjective,
    most: int,
    products: int,
) -> dict[int, Forecast | None]:
    """Predict w' - w_t of some points, as `forecast` does it for one.

    Args:
        trained: M and its recording of every point.
        rows: the points that count.
        objective: the losses of all points.
        most: how many training points a forecast looks at.
        products: m, at most this many are spent on each point.

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
    paths = [_path(row, trained[row], opened) for row, opened in waiting.items()]
    operator = StackedQuotient.of(objective, paths, most).operator()
    starts = torch.stack([opened.flat.d for opened in waiting.values()])
    spaces, sound = stacked_krylov(operator, starts, products)
    for place, (row, opened) in enumerate(waiting.items()):
        share = float(operator.share[place])
        found[row] = (
            close_forecast(
                trained[row].recording,
                trained[row].original,
                opened,
                spaces.alone(place),
                None if share == 1 else share,
            )
            if bool(sound[place])
            else None
        )
    return found


def _path(row: int, trained: Trained, opened: Opened) -> Path:
    before = trained.recording.carried
    assert before is not None
    steps = range(before.steps, trained.recording.steps)
    return Path(row, trained.recipe, before.weights, trained.original, steps, opened.flat.d)

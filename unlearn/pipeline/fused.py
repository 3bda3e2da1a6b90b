"""Many points of a sweep as one computation, where the network is small.

A point's numbers are those of `unlearn.pipeline.run.run` up to the order of sums, and it leaves the same files. All
points of a stack are computed first; then each is written, one after the other.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not

from unlearn.methods.method import applied
from unlearn.pipeline import forks, report
from unlearn.pipeline.measure import judge
from unlearn.pipeline.run import Ended, Outcome, check_same, conclude, recorded
from unlearn.pipeline.stack_curvature import StackCurvature, StackMeasurer
from unlearn.pipeline.stacking import StackedPoint
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.records.folder import RunFolder, taken
from unlearn.train.learner import Learner
from unlearn.train.loop import Step
from unlearn.train.recording import Trained
from unlearn.train.stack import Row, train_stacked
from unlearn.values.errors import Diverged
from unlearn.values.measurement import Measurement

FEWEST = 4  # points in a process


def compute(points: Sequence[StackedPoint]) -> None:
    """Run a stack up to its last step: pretraining, M and M' of all points, measuring.

    Processes share it out, as many as `threads` or the cores, each with a part of the points as a stack of its own.
    (Two threads took as long as one: a stack is many short operations, and Python lets one thread at a time start one.)

    Args:
        points: of one `stack_key`, each without a reason in `why_not`; `outcome`, and `ended` or `error` are filled. A
            point that diverges gets its `error`, and the others go on.

    Raises:
        UserError: a process was killed.
    """
    most = min(points[0].prepared.config.threads or cpu_count(), cpu_count(), len(points) // FEWEST)
    count = max(1, most) if forks.safe() else 1
    torch.set_num_threads(1)  # as in each process
    if count == 1:
        compute_here(points)
        return
    cuts = [len(points) * part // count for part in range(count + 1)]
    parts = [points[start:stop] for start, stop in pairwise(cuts)]
    computed = forks.forked(_computed, [(part, part is parts[0]) for part in parts])
    for part, found in zip(parts, computed, strict=True):
        for point, (outcome, ended, error) in zip(part, found, strict=True):
            point.outcome, point.ended, point.error = outcome, ended, error


def _computed(part: tuple[Sequence[StackedPoint], bool]) -> list[tuple[Outcome, Ended | None, Diverged | None]]:
    points, shown = part
    compute_here(points, shown=shown)
    return [(point.outcome, point.ended, point.error) for point in points]


def compute_here(points: Sequence[StackedPoint], *, shown: bool = True) -> None:
    """Do what `compute` does, in this process.

    Args:
        points: as for `compute`.
        shown: whether there are progress bars.
    """
    seconds = Stopwatch()
    _pretrain(points, seconds, shown=shown)
    _train(points, seconds, shown=shown)
    for point in points:
        spent = point.outcome.seconds.seconds
        for stage, total in seconds.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + total / len(points)
        if point.error is None:
            assert point.trained is not None
            assert point.unlearned is not None
            ended = Ended.of(point.trained, point.unlearned)
            # rows of the stack, each of which would hold on to all of it
            alone = {name: (weights.clone(), buffers) for name, (weights, buffers) in ended.models.items()}
            point.ended = replace(ended, models=alone)


def finish(point: StackedPoint, path: Path) -> dict[str, Any]:
    """Write what a point has to show, as a run of its own would.

    Args:
        point: computed.
        path: its folder; must not hold a run yet.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: the point did; what was measured until then is in the folder.
        UserError: the folder holds another run.
    """
    with taken(path):
        folder = RunFolder.create(path, point.settings)
        if (summary := folder.finished()) is not None:
            check_same(folder, point.prepared)
            return summary
        with recorded(point.cfg, point.settings, point.prepared, folder, point.outcome) as sink:
            for place, row in enumerate(point.outcome.rows):
                folder.put(place, row)
                sink.log(row)
            if point.error is not None:
                raise point.error
            assert point.ended is not None
            conclude(point.prepared, point.ended, folder, sink, point.outcome)
    return point.outcome.summary


def _pretrain(points: Sequence[StackedPoint], seconds: Stopwatch, *, shown: bool) -> None:
    originals = [Learner.fresh(point.prepared.network, point.prepared.device) for point in points]
    retrained: list[Learner | None] = [None] * len(points)
    config = points[0].prepared.config
    whole = config.pretraining.includes_forget
    if points[0].prepared.pretraining is not None:
        rows = []
        for point, learner in zip(points, originals, strict=True):
            assert point.prepared.pretraining is not None  # all points share the length of each phase
            rows.append(Row(point.prepared.pretraining, learner, not whole))
        owners = list(points)
        if whole and config.retrain.start == "initial":
            for place, point in enumerate(points):
                other = Learner.fresh(point.prepared.network, point.prepared.device)
                retrained[place] = other
                rows.append(Row(rows[place].recipe, other, True))
            owners += points
        total = rows[0].recipe.schedule.total_steps
        with seconds("pretrain"), report.progress(f"pretraining {len(points)} points", total, shown=shown) as advance:
            for step in train_stacked(rows):
                _fail(owners, {row: error.in_pretraining() for row, error in step.failed.items()})
                advance(step.steps[0].taken)
    for point, original, second in zip(points, originals, retrained, strict=True):
        w_0 = original if second is None else second
        point.trained = point.prepared.begin(Learner.start(original.weights, {}), Learner.start(w_0.weights, {}))
        point.measurer = StackMeasurer(point.prepared, point.outcome.seconds)


def _train(points: Sequence[StackedPoint], seconds: Stopwatch, *, shown: bool) -> None:
    trained = [cast(Trained, point.trained) for point in points]
    rows = [
        *(Row(each.recipe, each.original, on_kept=False) for each in trained),
        *(Row(each.recipe, each.retrained, on_kept=True) for each in trained),
    ]
    every, last = points[0].prepared.config.measure.every, trained[0].recipe.schedule.total_steps
    curvature = StackCurvature.of(points)
    steps = train_stacked(rows)
    with report.progress(f"training M and M' of {len(points)} points", last, shown=shown) as advance:
        while True:
            with seconds("train"):
                step = next(steps, None)
            if step is None:
                return
            _fail([*points, *points], step.failed)
            for point, own in zip(points, step.steps, strict=False):
                if point.error is None:
                    trained_point = cast(Trained, point.trained)
                    trained_point.recording.observe(own, trained_point.original)
            taken = step.steps[0].taken
            advance(taken)
            if taken % every and taken != last:
                continue
            with seconds("measure"):
                curvature.look(taken, seconds)
                for point, own in zip(points, step.steps, strict=False):
                    if point.error is None:
                        _measure(point, own, final=taken == last)


def _measure(point: StackedPoint, step: Step, *, final: bool) -> None:
    assert point.measurer is not None
    assert point.trained is not None
    method, trained = point.prepared.method, point.trained
    try:
        look = point.measurer.look(step, trained)
    except Diverged as error:
        point.error = error
        return
    done = None
    if method.online or final:
        try:
            with point.outcome.seconds("unlearn"):
                done = point.unlearned = applied(method, trained)
        except Diverged as error:
            point.error = error
    judged = judge(look, trained.original, trained.retrained, done)
    point.outcome.rows.append(Measurement(**look.columns, **judged))


def _fail(owners: Sequence[StackedPoint], failed: dict[int, Diverged]) -> None:
    for row, error in failed.items():
        if owners[row].error is None:
            owners[row].error = error

"""Many points of a sweep as one computation, where the network is small.

A point of the sweep is a run: its numbers are those of `unlearn.pipeline.run.run` up to the order of sums, and it
leaves the same files. All runs of a stack are computed first; then each is written, one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not

from unlearn.methods.method import applied
from unlearn.pipeline import forks, report
from unlearn.pipeline.conclude import Ended, Outcome, conclude
from unlearn.pipeline.measure import judge
from unlearn.pipeline.run import check_same, opened
from unlearn.pipeline.stack_curvature import Running, StackCurvature, StackMeasurer
from unlearn.pipeline.stacking import StackedRun
from unlearn.pipeline.stages import STAGES
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.records.folder import RunFolder, taken
from unlearn.store.alone import clear
from unlearn.train.learner import Learner
from unlearn.train.loop import Recipe, Step
from unlearn.train.stack import Row, losses_of, train_stacked
from unlearn.values.errors import Diverged
from unlearn.values.measurement import Measurement

FEWEST = 4  # runs in a process


def compute(runs: Sequence[StackedRun]) -> None:
    """Run a stack up to its last step: pretraining, M and M' of all runs, measuring.

    Processes share it out, as many as `threads` or the cores, each with a part of the runs as a stack of its own.
    (Two threads took as long as one: a stack is many short operations, and Python lets one thread at a time start one.)

    Args:
        runs: of one `stack_key`, each without a reason in `why_not`; `outcome`, and `ended` or `error` are filled. A
            run that diverges gets its `error`, and the others go on.

    Raises:
        UserError: a process was killed.
    """
    most = min(runs[0].prepared.config.threads or cpu_count(), cpu_count(), len(runs) // FEWEST)
    count = max(1, most) if forks.safe() else 1
    torch.set_num_threads(1)  # as in each process
    if count == 1:
        compute_here(runs)
        return
    cuts = [len(runs) * part // count for part in range(count + 1)]
    parts = [runs[start:stop] for start, stop in pairwise(cuts)]
    computed = forks.forked(_computed, [(part, part is parts[0]) for part in parts])
    for part, found in zip(parts, computed, strict=True):
        for run, (outcome, ended, error) in zip(part, found, strict=True):
            run.outcome, run.ended, run.error = outcome, ended, error


def _computed(part: tuple[Sequence[StackedRun], bool]) -> list[tuple[Outcome, Ended | None, Diverged | None]]:
    runs, shown = part
    compute_here(runs, shown=shown)
    return [(run.outcome, run.ended, run.error) for run in runs]


def compute_here(runs: Sequence[StackedRun], *, shown: bool = True) -> None:
    """Do what `compute` does, in this process.

    Args:
        runs: as for `compute`.
        shown: whether there are progress bars.
    """
    seconds = Stopwatch()
    running = _pretrain(runs, seconds, shown=shown)
    _train(running, seconds, shown=shown)
    for each in running:
        spent = each.run.outcome.seconds.seconds
        for stage, total in seconds.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + total / len(runs)
        if each.run.error is None:
            assert each.unlearned is not None  # at the last step
            ended = Ended.of(each.trained, each.unlearned)
            # rows of the stack, each of which would hold on to all of it
            alone = {name: (weights.clone(), buffers) for name, (weights, buffers) in ended.models.items()}
            each.run.ended = replace(ended, models=alone)


def finish(run: StackedRun, path: Path) -> dict[str, Any]:
    """Write what a run has to show, as a run of its own would.

    Args:
        run: computed.
        path: its folder; must not hold a run yet.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: the run did; what was measured until then is in the folder.
        UserError: the folder holds another run.
    """
    with taken(path):
        folder = RunFolder.create(path, run.settings)
        if (summary := folder.finished()) is not None:
            check_same(folder, run.prepared)
            return summary
        try:
            with opened(run.cfg, run.settings, run.prepared, folder, run.outcome) as sink:
                for place, row in enumerate(run.outcome.rows):
                    folder.put(place, row)
                    sink.log(row)
                if run.error is not None:
                    raise run.error
                assert run.ended is not None
                conclude(run.prepared, run.ended, folder, sink, run.outcome)
        finally:
            if folder.finished() is not None:
                clear(folder.path, STAGES)  # of an earlier start that was stopped alone
    return run.outcome.summary


def _pretrain(runs: Sequence[StackedRun], seconds: Stopwatch, *, shown: bool) -> list[Running]:
    originals = [Learner.fresh(run.prepared.network, run.prepared.device) for run in runs]
    retrained = originals
    config = runs[0].prepared.config
    if runs[0].prepared.pretraining is not None:
        sees_forget = config.pretraining.includes_forget
        recipes = [cast(Recipe, run.prepared.pretraining) for run in runs]  # all share the length of each phase
        rows = [Row(recipe, learner, not sees_forget) for recipe, learner in zip(recipes, originals, strict=True)]
        if config.pretrains_apart:
            retrained = [Learner.fresh(run.prepared.network, run.prepared.device) for run in runs]
            rows += [Row(recipe, learner, True) for recipe, learner in zip(recipes, retrained, strict=True)]
        total = recipes[0].schedule.total_steps
        with seconds("pretrain"), report.progress(f"pretraining {len(runs)} points", total, shown=shown) as advance:
            for step in train_stacked(rows, losses_of(rows)):
                _fail(runs, {row: error.in_pretraining() for row, error in step.failed.items()})
                advance(step.steps[0].taken)
    running = []
    for run, *starts in zip(runs, originals, retrained, strict=True):
        trained = run.prepared.begin(*(Learner.start(start.weights, {}) for start in starts))
        running.append(Running(run, trained, StackMeasurer(run.prepared, run.outcome.seconds)))
    return running


def _train(running: Sequence[Running], seconds: Stopwatch, *, shown: bool) -> None:
    rows = [
        *(Row(each.prepared.recorded, each.trained.original, on_kept=False) for each in running),
        *(Row(each.prepared.recorded, each.trained.retrained, on_kept=True) for each in running),
    ]
    first = running[0].prepared
    last = first.recorded.schedule.total_steps
    objective = losses_of(rows)
    curvature = StackCurvature.of(running, objective.take(slice(len(running))))
    steps = train_stacked(rows, objective)
    with report.progress(f"training M and M' of {len(running)} points", last, shown=shown) as advance:
        while True:
            with seconds("train"):
                step = next(steps, None)
            if step is None:
                return
            _fail([each.run for each in running], step.failed)
            for each, own in _going(running, step.steps):
                each.trained.recording.observe(own, each.trained.original)
            taken = step.steps[0].taken
            advance(taken)
            if not first.is_measured(taken):
                continue
            with seconds("measure"):
                curvature.look(taken, seconds)
                for each, own in _going(running, step.steps):
                    _measure(each, own, final=taken == last)


def _going(running: Sequence[Running], steps: Sequence[Step]) -> Iterator[tuple[Running, Step]]:
    """Pair those that have not failed with their step; the steps of M' come after all of M."""
    return ((each, step) for each, step in zip(running, steps, strict=False) if each.run.error is None)


def _measure(running: Running, step: Step, *, final: bool) -> None:
    run, trained = running.run, running.trained
    method, done = run.prepared.method, None
    try:
        look = running.measurer.look(step, trained)
    except Diverged as error:
        run.error = error
        return
    if method.online or final:
        try:
            with run.outcome.seconds("unlearn"):
                done = running.unlearned = applied(method, trained)
        except Diverged as error:
            run.error = error
    judged = judge(look, trained.original, trained.retrained, done)
    run.outcome.rows.append(Measurement(**look.columns, **judged))


def _fail(runs: Sequence[StackedRun], failed: dict[int, Diverged]) -> None:
    for row, error in failed.items():  # rows are all of M, then all of M'
        run = runs[row % len(runs)]
        if run.error is None:
            run.error = error

"""`--plan`: what a sweep would do, and about how long, before anything runs."""

import json
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unlearn.pipeline import sweep
from unlearn.pipeline.build import build
from unlearn.pipeline.config import plain
from unlearn.pipeline.keys import keeps_views
from unlearn.pipeline.measure import Measurer
from unlearn.pipeline.memory import explained
from unlearn.pipeline.numerics import settle
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.settings import SHARED
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.store.entries import key_of
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.values.errors import Diverged
from unlearn.values.nested import without
from unlearn.values.neutral import NEUTRAL
from unlearn.values.status import DONE

STEPS = 12  # timed; the first two, in which libraries warm up, do not count
PACES = (
    "dataset",
    "model",
    "device",
    "threads",
    "arithmetic",
    "curvature",
)  # points that agree on these take steps of one length


@dataclass(frozen=True)
class Pace:
    """How fast one kind of run goes.

    Attributes:
        step: seconds for one step of M and M'.
        look: seconds for one measured step, beyond that.
        start: seconds before the first step.
    """

    step: float
    look: float
    start: float


def show(jobs: Sequence[DictConfig], points: Sequence[sweep.Point], folder: Path, *, fused: bool = False) -> None:
    """Print the plan of a sweep. No run is started; data is loaded, and texts are encoded where the store has none.

    Args:
        jobs: the config of each point.
        points: of the sweep.
        folder: of the sweep.
        fused: whether points are to run as stacks, which share no training and keep nothing in the store.
    """
    left = [job for job, point in zip(jobs, points, strict=True) if sweep.state_of(folder / point.name) not in DONE]
    groups: dict[str, list[DictConfig]] = {}
    for job in left:
        groups.setdefault(training_of(job, alone=fused), []).append(job)
    paces: dict[str, Pace] = {}
    trainings, seconds, megabytes = 0, 0.0, 0.0
    for sharing in groups.values():
        job, kind = sharing[0], _kind(sharing[0])
        with explained(job.device):
            prepared = prepare(job)
            if kind not in paces:
                paces[kind] = pace(job)
        count = 1 if keeps_views(prepared) else _owners(sharing)
        trainings += count
        seconds += count * duration(prepared, paces[kind])
        megabytes += count * _megabytes(prepared) if job.store.enabled and not fused else 0.0
    table = Table(title=f"plan of {folder}", box=SIMPLE_HEAD, show_header=False)
    table.add_row("points", str(len(points)))
    table.add_row("  done already", str(len(points) - len(left)))
    table.add_row("trainings after sharing, not counting what the store has", str(trainings))
    table.add_row("time, one worker", f"about {_time(seconds)}")
    table.add_row("store", f"about {megabytes:.0f} MB")
    console = Console(markup=False)
    console.print(table)
    timed = f"from {STEPS - 2} timed steps of each of {len(paces)} kinds of run; methods come on top"
    console.print(f"{timed}; as separate runs: what fuses takes less" if fused else timed, style="dim")


def training_of(job: DictConfig, *, alone: bool = False) -> str:
    """Name the training that a point needs; points of one name share it, but for methods of which each needs its own.

    Args:
        job: the point's config.
        alone: whether it shares none, as without a store.

    Returns:
        A key.
    """
    resolved = plain(job)
    parts = without(resolved, (*NEUTRAL, "method", "conventions"))  # what conventions set stands where it takes effect
    parts["eval"] = job.conventions.eval_after_measuring
    method = build(job.method, "method")
    parts["needs"] = sorted(method.needs | SHARED)
    if alone or not job.store.enabled:
        parts["method"] = resolved["method"]
    return key_of(parts)


def pace(job: DictConfig) -> Pace:
    """Time a few steps of a run.

    Args:
        job: its config.

    Returns:
        How fast it goes.
    """
    start = time.perf_counter()
    prepared = prepare(job)
    settle(prepared)
    original = Learner.fresh(prepared.network, prepared.device)
    retrained = Learner.start(original.weights, original.buffers)
    trained = prepared.begin(original, retrained)
    measurer = Measurer(prepared, Stopwatch(prepared.device))
    begun = time.perf_counter() - start
    stamps, looks = [time.perf_counter()], []
    with suppress(Diverged):  # which the run will say, and other points may not; what was timed before counts
        for step in train(prepared.recorded, [original], [retrained]):
            trained.recording.observe(step, original)
            stamps.append(time.perf_counter())
            if step.taken in (1, 2, STEPS):
                measurer.look(step, trained)
                looks.append(time.perf_counter() - stamps[-1])
                stamps[-1] = time.perf_counter()
            if step.taken >= STEPS:
                break
    spans = [after - before for before, after in pairwise(stamps)] or [time.perf_counter() - stamps[0]]
    return Pace(statistics.median(spans), min(looks, default=0.0), begun)


def duration(prepared: Prepared, pace: Pace) -> float:
    """Estimate how long a training takes.

    Args:
        prepared: the run.
        pace: of its kind.

    Returns:
        Seconds.
    """
    steps = prepared.recorded.schedule.total_steps
    before = 0 if prepared.pretraining is None else prepared.pretraining.schedule.total_steps
    config = prepared.config
    models = 2 if config.pretrains_apart else 1
    return pace.start + (steps + models * before / 2) * pace.step + prepared.looks * pace.look


def _owners(sharing: Sequence[DictConfig]) -> int:
    """Count the pairs of a large network: one for each method that is judged on the way, one for all others."""
    methods = {json.dumps(plain(job.method), sort_keys=True): job for job in sharing}
    online = [build(job.method, "method").online for job in methods.values()]
    return sum(online) + (not all(online))


def _megabytes(prepared: Prepared) -> float:
    size, config = prepared.network.layout.dim * 4 / 1e6, prepared.config
    looks = prepared.looks if keeps_views(prepared) else 0
    # weights, velocity and gradient of M and M', and with what decay adds; weights, d and u that a forecast goes on
    # from, and its y
    sgd = config.optimizer
    view = 6 + 2 * (sgd.weight_decay > 0) + (3 + (sgd.momentum > 0) if config.measure.forecasts else 0)
    return (view * looks + 12) * size


def _kind(job: DictConfig) -> str:
    settings = plain(job)
    keys = ("arithmetic", "hessian_samples", "hessian_chunk", "hessian_kept", "krylov")
    measure = {key: settings["measure"][key] for key in keys}
    return json.dumps([[settings[key] for key in PACES], measure, settings["training"]["batch_size"]], default=str)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

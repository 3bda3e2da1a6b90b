"""Many points of a sweep as one computation, where the network is small: what fuses, and the run of a stack.

A point's numbers are those of `unlearn.pipeline.run.run` up to the order of sums, and it leaves the same files. All
points of a stack are computed first; then each is written, one after the other.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.stacked import StackedHalves, StackedHessian, StackedOperator, StackedTracker, stacked_krylov
from unlearn.data.split import Data
from unlearn.metrics import weight_space
from unlearn.pipeline import report
from unlearn.pipeline.forecast import Forecast, forecast_in, removal
from unlearn.pipeline.measure import Measurer
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.run import Outcome, conclude, recorded
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.records.provenance import code_state
from unlearn.train.hessian import SMALL
from unlearn.train.learner import Learner
from unlearn.train.loop import Step
from unlearn.train.recording import Recording, Trained
from unlearn.train.stack import Row, StackedObjective, train_stacked
from unlearn.values.errors import Diverged, UserError, at_least
from unlearn.values.streams import generator

# in what the points of one stack may differ; all else must be equal
FREE = (
    ("seed",),
    ("method",),
    ("forget",),
    ("optimizer",),
    ("logger",),
    ("figures",),
    ("conventions",),  # other keys have taken what they need from it
    ("penalty", "gamma"),
    ("pretraining", "lr"),
    ("pretraining", "decay"),
    ("pretraining", "momentum"),
    ("pretraining", "weight_decay"),
    ("schedule", "order"),
    ("schedule", "forget_batch"),
    ("schedule", "augmentation"),
    ("training", "record"),
    ("training", "checkpoint_every"),
    ("training", "save_weights"),
)
CHUNK = 8  # networks in one graph of a Hessian: as many as the processor's cache holds
THREADS = 2  # products of chunks in parallel; a third brought nothing where it was tried


@dataclass
class _Measurer(Measurer):
    """A measurer whose curvature was taken for the whole stack."""

    found: tuple[float | None, int] = (None, 0)
    ahead: Forecast | None = None

    def _sigma(self, original: Learner, step: int) -> tuple[float | None, int]:
        return self.found

    def _forecast(self, trained: Trained) -> Forecast | None:
        return self.ahead


@dataclass
class Point:
    """One point of a stack.

    Attributes:
        cfg: its composed config.
        prepared: ready to start.
        code: what code runs.
        outcome: its rows, and its share of the seconds.
        error: why it stopped early, or None.
        trained: M, M' and the recording; None before the recorded phase.
        measurer: holds the newest M''.
    """

    cfg: DictConfig
    prepared: Prepared
    code: dict[str, Any]
    outcome: Outcome
    error: Diverged | None = None
    trained: Trained | None = None
    measurer: _Measurer | None = None


def why_not(prepared: Prepared) -> str | None:
    """Say why a run cannot be stacked with others.

    Args:
        prepared: the run.

    Returns:
        Half a sentence, or None where it can.
    """
    network, modules = prepared.network, list(prepared.network.module.modules())
    if prepared.device.type != "cpu":
        return f"it runs on {prepared.device}, stacks on the CPU"
    if network.initial_buffers():
        return "its network has buffers (BatchNorm), which a stack does not keep"
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules):
        return "its network has dropout"
    if network.layout.dim >= SMALL:
        return f"its network has {network.layout.dim} weights; from {SMALL} on a stack brings nothing"
    if prepared.recorded.objective.draws(0) is not None:
        return "its inputs are augmented"
    if len(prepared.sample.points) and not isinstance(prepared.tracker.estimator, Lanczos):
        return "curvature is not lanczos"
    return None


def stack_key(cfg: DictConfig, prepared: Prepared) -> str:
    """Name what a point must share with others to be stacked with them.

    Args:
        cfg: its composed config.
        prepared: the run.

    Returns:
        Equal for two points exactly when they can share a stack.
    """
    settings = _plain(cfg)
    free = [path for path in FREE if path != ("forget",) or not cfg.schedule.drop_last]  # it may cost a batch there
    for *above, last in free:
        node = settings
        for name in above:
            node = node.get(name, {})
        node.pop(last, None)
    size = len(prepared.data.train), prepared.recorded.schedule.total_steps
    return json.dumps([settings, type(prepared.recorded.objective.penalty).__name__, size], sort_keys=True)


def stacks(configs: Sequence[DictConfig], most: int) -> tuple[list[dict[int, Point]], dict[int, str]]:
    """Sort the points of a sweep into stacks. Data that several would load is loaded once.

    Args:
        configs: composed, one a point; they are resolved in place.
        most: the most points of one stack.

    Returns:
        Stacks of two points or more, by their place in `configs`; and why each of the others is in none.

    Raises:
        UserError: `most` is too small.
    """
    at_least("hydra.launcher.most", most, 2)
    loaded: dict[str, Data] = {}
    reasons: dict[int, str] = {}
    groups: dict[str, dict[int, Point]] = {}
    code = code_state()
    for place, cfg in enumerate(configs):
        outcome = Outcome()
        try:
            with outcome.seconds("prepare"):
                OmegaConf.resolve(cfg)
                # without a subset the data does not depend on the seed
                seed = cfg.seed if cfg.dataset.get("train_size") else None
                data = json.dumps([_plain(cfg)["dataset"], seed, cfg.device])
                prepared = prepare(cfg, loaded.get(data))
        except (UserError, OmegaConfBaseException):
            reasons[place] = "its settings are wrong"  # alone, it says how
            continue
        reason = why_not(prepared)
        if reason is not None:
            reasons[place] = reason
            continue
        loaded.setdefault(data, prepared.data)
        groups.setdefault(stack_key(cfg, prepared), {})[place] = Point(cfg, prepared, code, outcome)
    found = []
    for group in groups.values():
        places = list(group)
        pieces = -(-len(places) // most)
        for piece in range(pieces):
            stack = {place: group[place] for place in places[piece::pieces]}
            if len(stack) > 1:
                found.append(stack)
            else:
                reasons[places[piece]] = "no other point shares its data, network, lengths and measuring"
    return found, reasons


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def compute(points: Sequence[Point]) -> None:
    """Run a stack up to its last step: pretraining, M and M' of all points, measuring.

    Args:
        points: of one `stack_key`, each without a reason in `why_not`; their outcomes are filled. A point that diverges
            gets its `error`, and the others go on.
    """
    seconds = Stopwatch()
    torch.set_num_threads(points[0].prepared.config.threads or 1)  # chunks share the cores out
    with _workers(points[0].prepared.config.threads) as workers:
        _pretrain(points, seconds)
        _train(points, seconds, workers)
    for point in points:
        spent = point.outcome.seconds.seconds
        for stage, total in seconds.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + total / len(points)


def finish(point: Point, path: Path) -> dict[str, Any]:
    """Write what a point has to show, as a run of its own would.

    Args:
        point: computed.
        path: its folder; must not hold a run yet.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: the point did; what was measured until then is in the folder.
    """
    with recorded(point.cfg, point.prepared, path, point.outcome, point.code) as (folder, sink):
        for row in point.outcome.rows:
            folder.append(row)
            sink.log(row)
        if point.error is not None:
            raise point.error
        assert point.trained is not None
        assert point.measurer is not None
        assert point.measurer.unlearned is not None
        conclude(point.prepared, point.trained, point.measurer.unlearned, folder, sink, point.outcome)
    report.line(point.outcome.summary, path)  # a table a point would take as long as a point
    return point.outcome.summary


@contextmanager
def _workers(asked: int | None) -> Iterator[Executor | None]:
    count = min(asked or THREADS, cpu_count())
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def _pretrain(points: Sequence[Point], seconds: Stopwatch) -> None:
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
        with seconds("pretrain"), report.progress(f"pretraining {len(points)} points", total) as advance:
            for step in train_stacked(rows):
                _fail(owners, step.failed)
                advance(step.steps[0].taken)
    for point, original, second in zip(points, originals, retrained, strict=True):
        prepared, w_0 = point.prepared, original if second is None else second
        start = Learner.start(original.weights, {})
        recording = Recording.start(
            prepared.recorded, start, prepared.records, prepared.config.training.checkpoint_every
        )
        twin = Learner.start(w_0.weights, {})
        point.trained = Trained(prepared.recorded, start, twin, recording, prepared.config.seed)
        point.measurer = _Measurer(prepared, point.outcome.seconds)


def _train(points: Sequence[Point], seconds: Stopwatch, workers: Executor | None) -> None:
    trained = [cast(Trained, point.trained) for point in points]
    rows = [
        *(Row(each.recipe, each.original, on_kept=False) for each in trained),
        *(Row(each.recipe, each.retrained, on_kept=True) for each in trained),
    ]
    every, last = points[0].prepared.config.measure.every, trained[0].recipe.schedule.total_steps
    curvature = _Curvature.of(points, workers)
    steps = train_stacked(rows)
    with report.progress(f"training M and M' of {len(points)} points", last) as advance:
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


def _measure(point: Point, step: Step, *, final: bool) -> None:
    assert point.measurer is not None
    assert point.trained is not None
    try:
        point.outcome.rows.append(point.measurer.measure(step, point.trained, final=final))
    except Diverged as error:
        point.error = error


def _fail(owners: Sequence[Point], failed: dict[int, Diverged]) -> None:
    for row, error in failed.items():
        if owners[row].error is None:
            owners[row].error = error


@dataclass
class _Curvature:
    """Sigma and the forecast of all points at once."""

    points: Sequence[Point]
    samples: list[tuple[StackedObjective, Tensor]]  # the whole sample, then its halves where there are two
    tracker: StackedTracker
    workers: Executor | None

    @classmethod
    def of(cls, points: Sequence[Point], workers: Executor | None) -> "_Curvature":
        first = points[0].prepared
        objective = StackedObjective.of([point.prepared.recorded.objective for point in points])
        chosen = torch.stack([point.prepared.sample.points for point in points])
        cut = chosen.shape[1] // 2
        parts = [chosen, *((chosen[:, :cut], chosen[:, cut:]) if cut else ())]
        estimator = first.tracker.estimator
        lanczos = estimator if isinstance(estimator, Lanczos) else Lanczos("unused", 1.0, 1)
        tracker = StackedTracker(lanczos, first.tracker.warmth)
        return cls(points, [(objective, part) for part in parts], tracker, workers)

    def look(self, step: int, seconds: Stopwatch) -> None:
        """Hand each point's measurer its sigma and its forecast."""
        settings = self.points[0].prepared.config.measure
        trained = [cast(Trained, point.trained) for point in self.points]
        weights = torch.stack([each.original.weights for each in trained])
        finite = weights.isfinite().all(dim=1)
        rows = [k for k, point in enumerate(self.points) if point.error is None and bool(finite[k])]
        if not rows or not self.samples[0][1].shape[1]:
            return
        with seconds("sigma"):
            probes = torch.stack([_probe(point, step) for point in self.points])
            found = self.tracker(self._hessian(weights, 0), probes, rows)
        for k in rows:
            sigma = weight_space.sigma_of(found[k].value, settings.sigma)
            cast(_Measurer, self.points[k].measurer).found = sigma, found[k].products
        if settings.krylov:
            with seconds("forecast"):
                self._forecasts(trained, weights, rows, settings.krylov)

    def _forecasts(self, trained: Sequence[Trained], weights: Tensor, rows: Sequence[int], products: int) -> None:
        pushes = torch.zeros_like(weights)
        for k in rows:
            push = removal(trained[k].recording)
            if push is not None:
                pushes[k] = push
        initial = torch.stack([each.recording.initial.weights for each in trained])
        between = torch.lerp(initial, weights, 0.5)
        share = None
        operator: StackedOperator
        if len(self.samples) == 1:
            operator = self._hessian(between, 0)
        else:
            sizes = [part.shape[1] for _, part in self.samples]
            share = sizes[1] / sizes[0]
            operator = StackedHalves(self._hessian(between, 1), self._hessian(between, 2), share)
        spaces = stacked_krylov(operator, pushes, products)
        finite = torch.stack(spaces.diagonal + spaces.beside + [spaces.leftover]).isfinite().all(0)
        for k in rows:
            known = bool(spaces.products[k]) and bool(finite[k])  # else nothing was forgotten yet, or it diverges
            cast(_Measurer, self.points[k].measurer).ahead = (
                forecast_in(spaces.row(k), share, trained[k].recording, has_buffers=False) if known else None
            )

    def _hessian(self, weights: Tensor, part: int) -> StackedHessian:
        objective, points = self.samples[part]
        shares = torch.full(points.shape, 1 / points.shape[1], dtype=weights.dtype)

        def losses(some: Tensor, rows: slice) -> Tensor:
            return objective.losses(some, points[rows], shares[rows], rows)

        return StackedHessian(weights, losses, CHUNK, self.workers)


def _probe(point: Point, step: int) -> Tensor:
    like = cast(Trained, point.trained).original.weights
    stream = generator(point.prepared.config.seed, "probe", step)
    return torch.randn(len(like), generator=stream, dtype=like.dtype)

"""One run: w_0, M and M' in step, unlearning, measuring, records, figures."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from unlearn.data.split import Split
from unlearn.figures.run import draw
from unlearn.log.sink import Sink
from unlearn.methods.method import Unlearned
from unlearn.metrics.accuracy import accuracy
from unlearn.models.network import Buffers
from unlearn.pipeline import report, stages
from unlearn.pipeline.interrupt import Watch
from unlearn.pipeline.measure import judge
from unlearn.pipeline.memory import told
from unlearn.pipeline.numerics import settle
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.stages import Job, Pair
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.pipeline.summary import summarise
from unlearn.records.folder import RunFolder, taken
from unlearn.records.provenance import provenance
from unlearn.store.entries import Alone, Store
from unlearn.train.hessian import SMALL
from unlearn.train.recording import Trained
from unlearn.values.errors import Diverged, UserError
from unlearn.values.measurement import Measurement

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run has to show, so far.

    Attributes:
        rows: the measured steps.
        seconds: by stage.
        summary: of the end.
        reused: by stage, whether the store had it.
    """

    rows: list[Measurement] = field(default_factory=list)
    seconds: Stopwatch = field(default_factory=Stopwatch)
    summary: dict[str, Any] = field(default_factory=dict)
    reused: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The models that a run ends with.

    Attributes:
        models: weights and buffers of `initial`, `original`, `retrained` and `unlearned`.
        gradient_evaluations: of the request; see `Unlearned`.
    """

    models: dict[str, tuple[Tensor, Buffers]]
    gradient_evaluations: int

    @classmethod
    def of(cls, trained: Trained, unlearned: Unlearned) -> "Ended":
        """Gather them.

        Args:
            trained: M, M' and the recording.
            unlearned: M''.

        Returns:
            The models.
        """
        learners = {"initial": trained.recording.initial, "original": trained.original, "retrained": trained.retrained}
        models = {name: (learner.weights, learner.buffers) for name, learner in learners.items()}
        models["unlearned"] = unlearned.weights, unlearned.buffers
        return cls(models, unlearned.gradient_evaluations)


def run(cfg: DictConfig, path: Path) -> dict[str, Any]:
    """Do the main job, or go on with it where it was stopped.

    Args:
        cfg: the composed config.
        path: the run's folder; must not hold another run. One that came to its end there is not done again.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: training left the finite numbers; what was measured until then is in the folder.
        UserError: something is wrong with the input, or the folder holds another run.
    """
    outcome = Outcome()
    with outcome.seconds("prepare"), told(cfg.device):
        prepared = prepare(cfg)
        settle(prepared)
    outcome.seconds.device = prepared.device
    settings = plain(cfg)
    watch = Watch(prepared.config.checkpoint.minutes)
    store = _store(prepared, path, watch)
    with taken(path):
        folder = RunFolder.create(path, settings)
        if (summary := folder.finished()) is not None:
            check_same(folder, prepared)
            logger.info("%s: is done already", path)
            return summary
        with recorded(cfg, settings, prepared, folder, outcome) as sink, watch, told(prepared.device):
            job = Job(prepared, outcome.seconds, watch, store, _user(folder.path, store), outcome.reused)
            pair = stages.pair(job, lambda row: _emit(row, folder, sink, outcome))
            if isinstance(store, Store):  # which has the pair now
                watch.stop("stopped after training; the store has M and M': the same command goes on from there")
            try:
                unlearned = stages.unlearned(job, pair.trained)
            except Diverged:
                _emit(_last(pair, None), folder, sink, outcome)  # M and M' were measured whatever became of M''
                raise
            _emit(_last(pair, unlearned), folder, sink, outcome)
            conclude(prepared, Ended.of(pair.trained, unlearned), folder, sink, outcome)
    watch.stop("stopped; this run is done")  # but no further one of its sweep
    return outcome.summary


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Resolve a config.

    Args:
        cfg: composed.

    Returns:
        It in plain types.
    """
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


@contextmanager
def recorded(
    cfg: DictConfig, settings: dict[str, Any], prepared: Prepared, folder: RunFolder, outcome: Outcome
) -> Iterator[Sink]:
    """Open a run's sink; write who, what and how before, and the summary after.

    Args:
        cfg: the composed config.
        settings: the same, resolved, in plain types.
        prepared: the run.
        folder: the run's.
        outcome: its summary is written at the end.

    Yields:
        The sink.

    Raises:
        Diverged: what the block raised; the summary says so.
    """
    folder.write_config(OmegaConf.to_yaml(cfg, resolve=True))
    record = _provenance(prepared)
    folder.write_json("provenance", record)
    shown = {**settings, "names": prepared.names}  # an agent's own parameter `method` hides `method.name` from W&B
    with prepared.logger.open(folder.path, shown, **report.labels(prepared.names, folder.path)) as sink:
        try:
            yield sink
        except Diverged as error:
            outcome.summary = summarise(outcome.rows, status="diverged", error=str(error), diverged_at=error.step)
            raise
        finally:
            if outcome.summary:
                folder.cut(len(outcome.rows))
                outcome.summary |= {"seconds": dict(outcome.seconds.seconds), "reused": outcome.reused}
                outcome.summary["computed_on"] = record["device"]
                folder.write_json("provenance", {**record, "seconds": outcome.summary["seconds"]})
                folder.write_json("summary", outcome.summary)  # it says that the run is done
                (folder.path / "failed.json").unlink(missing_ok=True)  # of an attempt before, in a sweep
                sink.summary(outcome.summary)


def _last(pair: Pair, unlearned: Unlearned | None) -> Measurement:
    judged = judge(pair.look, pair.trained.original, pair.trained.retrained, unlearned)
    return Measurement(**pair.look.columns, **judged)


def _emit(row: Measurement, folder: RunFolder, sink: Sink, outcome: Outcome) -> None:
    folder.put(len(outcome.rows), row)
    outcome.rows.append(row)
    sink.log(row)


def conclude(prepared: Prepared, ended: Ended, folder: RunFolder, sink: Sink, outcome: Outcome) -> None:
    """Evaluate, summarise and draw, after the last step.

    Args:
        prepared: the run.
        ended: the models at the end.
        folder: gets the weights, the summary and the figures.
        sink: gets the figures.
        outcome: gets the summary.
    """
    models = ended.models
    if prepared.config.training.save_weights:
        _save_weights(prepared, folder, models)
    with outcome.seconds("evaluate"):
        accuracies = {name: evaluate(prepared, *model) for name, model in models.items() if name != "initial"}
    summary = summarise(
        outcome.rows,
        status="completed",
        accuracy=accuracies,
        gradient_evaluations=ended.gradient_evaluations,
    )
    if prepared.config.figures:
        folder.write_json("summary", {**summary, "status": "drawing"})  # the figures read it
        with outcome.seconds("figures"):
            for figure in draw(folder.path):
                sink.figure(figure.stem, figure)
    outcome.summary = summary


def evaluate(prepared: Prepared, weights: Tensor, buffers: Buffers) -> dict[str, float | None]:
    """Give a model's accuracy, in eval mode and without augmentation.

    Args:
        prepared: the data and the forget set.
        weights: flat.
        buffers: BatchNorm statistics.

    Returns:
        Accuracy on `retain`, `forget` and `test`, in [0, 1]; None for an empty set.
    """
    data, is_forgotten = prepared.data, prepared.recorded.schedule.forgotten
    sets = {
        "retain": (data.train, (~is_forgotten).nonzero().flatten()),
        "forget": (data.train, is_forgotten.nonzero().flatten()),
        "test": (data.test, torch.arange(len(data.test))),
    }

    def predict(split: Split, points: Tensor) -> Tensor:
        return prepared.network.logits(weights, buffers, split.batch(points), train=False)

    chunk = 2048 if prepared.network.layout.dim < SMALL else 256
    return {
        name: accuracy(partial(predict, split), split.labels, points.to(prepared.device), chunk)
        for name, (split, points) in sets.items()
    }


def _store(prepared: Prepared, path: Path, watch: Watch) -> Store | Alone:
    settings = prepared.config.store
    if not settings.enabled:
        return Alone(path)
    told = "stopped while another run computed what this one needs: the same command goes on from there"
    store = Store(Path(settings.root).expanduser(), partial(watch.stop, told))
    store.open()  # where it cannot be, the run should not leave a folder
    return store


def _user(path: Path, store: Store | Alone) -> str:
    # from the store, so that it holds wherever that is looked at from, and tells nothing about the machine
    # resolved, since whoever follows `..` leaves a link's target, not the link
    return os.path.relpath(path.resolve(), store.root.resolve()) if isinstance(store, Store) else str(path)


def check_same(folder: RunFolder, prepared: Prepared) -> None:
    """Refuse a finished run with the same settings but other batches or data, whose files have changed since.

    Args:
        folder: of the finished run.
        prepared: the run that is asked for.

    Raises:
        UserError: they differ. Of features, which another machine rounds otherwise, the data is not compared.
    """
    now, then = _provenance(prepared), folder.read_json("provenance")
    parts = {"schedule": "other batches, or another forget set"}
    if not prepared.data.train.inputs.is_floating_point():
        parts["data"] = "other training data"
    for key, what in parts.items():
        if then and then.get(key) != now[key]:
            raise UserError(f"{folder.path}: holds a run on {what}; choose another folder")


def _save_weights(prepared: Prepared, folder: RunFolder, models: dict[str, tuple[Tensor, Buffers]]) -> None:
    for name, (weights, buffers) in models.items():
        folder.save_weights(name, {**prepared.network.layout.views(weights), **buffers})


def _provenance(prepared: Prepared) -> dict[str, Any]:
    device = prepared.device
    return provenance(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        seed=prepared.config.seed,
        schedule=prepared.recorded.schedule.fingerprint(),
        data=prepared.data.train.fingerprint(),
    )

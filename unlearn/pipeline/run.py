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
from joblib import cpu_count  # heeds affinity and container limits, as os.cpu_count does not
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from unlearn.data.split import Split
from unlearn.figures.run import draw
from unlearn.log.sink import Sink
from unlearn.methods.method import Unlearned
from unlearn.metrics.accuracy import accuracy
from unlearn.models.network import Buffers
from unlearn.pipeline import report
from unlearn.pipeline.measure import Measurer
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.pipeline.summary import summarise
from unlearn.records.folder import RunFolder
from unlearn.records.provenance import provenance
from unlearn.train.hessian import SMALL
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.train.recording import Recording, Trained, vectors_needed
from unlearn.values.errors import Diverged
from unlearn.values.measurement import Measurement

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run has to show, so far.

    Attributes:
        rows: the measured steps.
        seconds: by stage.
        summary: of the end.
    """

    rows: list[Measurement] = field(default_factory=list)
    seconds: Stopwatch = field(default_factory=Stopwatch)
    summary: dict[str, Any] = field(default_factory=dict)


def run(cfg: DictConfig, path: Path) -> dict[str, Any]:
    """Do the main job.

    Args:
        cfg: the composed config.
        path: the run's folder; must not hold a run yet.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: training left the finite numbers; what was measured until then is in the folder.
    """
    outcome = Outcome()
    with outcome.seconds("prepare"):
        prepared = prepare(cfg)
        _settle(prepared)
    outcome.seconds.device = prepared.device
    _announce(prepared)
    with recorded(cfg, prepared, path, outcome) as (folder, sink):
        _stages(prepared, folder, sink, outcome)
    report.show(outcome.summary, prepared.config.conventions.headline_error, path)
    return outcome.summary


@contextmanager
def recorded(
    cfg: DictConfig, prepared: Prepared, path: Path, outcome: Outcome, code: dict[str, Any] | None = None
) -> Iterator[tuple[RunFolder, Sink]]:
    """Open a run's folder and sink; write who, what and how before, and the summary after.

    Args:
        cfg: the composed config.
        prepared: the run.
        path: the run's folder; must not hold a run yet.
        outcome: its summary is written at the end.
        code: what code runs, where that is known already.

    Yields:
        The folder and the sink.

    Raises:
        Diverged: what the block raised; the summary says so.
    """
    folder = RunFolder.create(path)
    folder.write_config(OmegaConf.to_yaml(cfg, resolve=True))
    record = _provenance(prepared, code)
    folder.write_json("provenance", record)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    with prepared.logger.open(folder.path, config, **report.labels(prepared.names, folder.path)) as sink:
        try:
            yield folder, sink
        except Diverged as error:
            outcome.summary = summarise(outcome.rows, status="diverged", error=str(error), diverged_at=error.step)
            raise
        finally:
            if outcome.summary:
                outcome.summary["seconds"] = dict(outcome.seconds.seconds)
                folder.write_json("summary", outcome.summary)
                folder.write_json("provenance", {**record, "seconds": outcome.summary["seconds"]})
                sink.summary(outcome.summary)


def _stages(prepared: Prepared, folder: RunFolder, sink: Sink, outcome: Outcome) -> None:
    original, retrained = pretrain(prepared, outcome.seconds)
    recording = Recording.start(
        prepared.recorded, original, prepared.records, prepared.config.training.checkpoint_every
    )
    trained = Trained(prepared.recorded, original, retrained, recording, prepared.config.seed)
    unlearned = train_pair(prepared, trained, folder, sink, outcome)
    conclude(prepared, trained, unlearned, folder, sink, outcome)


def conclude(
    prepared: Prepared, trained: Trained, unlearned: Unlearned, folder: RunFolder, sink: Sink, outcome: Outcome
) -> None:
    """Evaluate, summarise and draw, after the last step.

    Args:
        prepared: the run.
        trained: M, M' and the recording.
        unlearned: M''.
        folder: gets the weights, the summary and the figures.
        sink: gets the figures.
        outcome: gets the summary.
    """
    original, retrained, recording = trained.original, trained.retrained, trained.recording
    models = {
        "initial": (recording.initial.weights, recording.initial.buffers),
        "original": (original.weights, original.buffers),
        "retrained": (retrained.weights, retrained.buffers),
        "unlearned": (unlearned.weights, unlearned.buffers),
    }
    if prepared.config.training.save_weights:
        _save_weights(prepared, folder, models)
    with outcome.seconds("evaluate"):
        accuracies = {name: evaluate(prepared, *model) for name, model in models.items() if name != "initial"}
    outcome.summary = summarise(
        outcome.rows,
        status="completed",
        accuracy=accuracies,
        gradient_evaluations=unlearned.gradient_evaluations,
    )
    folder.write_json("summary", outcome.summary)  # the figures read it
    if prepared.config.figures:
        with outcome.seconds("figures"):
            for figure in draw(folder.path):
                sink.figure(figure.stem, figure)


def pretrain(prepared: Prepared, seconds: Stopwatch) -> tuple[Learner, Learner]:
    """Make the start of the recorded phase.

    Args:
        prepared: the run.
        seconds: gets the stage `pretrain`.

    Returns:
        M and M' at w_0. They are equal but where `retrain.start=initial` and the pretraining sees the forget set.
    """
    original = Learner.fresh(prepared.network, prepared.device)
    recipe, config = prepared.pretraining, prepared.config
    retrained = None
    if recipe is not None:
        whole = config.pretraining.includes_forget
        if whole and config.retrain.start == "initial":
            retrained = Learner.fresh(prepared.network, prepared.device)
        others = [] if retrained is None else [retrained]
        learners = ([original], others) if whole else ([], [original])
        with seconds("pretrain"), report.progress("pretraining", recipe.schedule.total_steps) as advance:
            for step in train(recipe, *learners, check_every=_check_every(prepared.device)):
                advance(step.taken)
    w_0 = original if retrained is None else retrained
    return Learner.start(original.weights, original.buffers), Learner.start(w_0.weights, w_0.buffers)


def train_pair(prepared: Prepared, trained: Trained, folder: RunFolder, sink: Sink, outcome: Outcome) -> Unlearned:
    """Train M and M' in step, and measure on the way.

    Args:
        prepared: the run.
        trained: M, M' and the recording, at w_0; changed in place.
        folder: gets each measured row at once.
        sink: gets it too.
        outcome: gets the rows, and the seconds of the stages `train`, `measure`, `sigma` and `unlearn`.

    Returns:
        M'' at the end.
    """
    recipe, settings = prepared.recorded, prepared.config.measure
    last = recipe.schedule.total_steps
    measurer = Measurer(prepared, outcome.seconds)
    steps = train(recipe, [trained.original], [trained.retrained], check_every=_check_every(prepared.device))
    with report.progress("training M and M'", last) as advance:
        while True:
            with outcome.seconds("train"):
                step = next(steps, None)
            if step is None:
                break
            trained.recording.observe(step, trained.original)
            advance(step.taken)
            if step.taken % settings.every and step.taken != last:
                continue
            with outcome.seconds("measure"):
                row = measurer.measure(step, trained, final=step.taken == last)
                outcome.rows.append(row)
                folder.append(row)
                sink.log(row)
            if prepared.config.conventions.eval_after_measuring:
                trained.original.train_mode = False
    assert measurer.unlearned is not None  # the last step is always measured
    return measurer.unlearned


def evaluate(prepared: Prepared, weights: Tensor, buffers: Buffers) -> dict[str, float | None]:
    """Give a model's accuracy, in eval mode and without augmentation.

    Args:
        prepared: the data and the forget set.
        weights: flat.
        buffers: BatchNorm statistics.

    Returns:
        Accuracy on `retain`, `forget` and `test`, in [0, 1]; None for an empty set.
    """
    data = prepared.data
    is_forgotten = torch.zeros(len(data.train), dtype=torch.bool)
    is_forgotten[list(prepared.forget.indices)] = True
    sets = {
        "retain": (data.train, (~is_forgotten).nonzero().flatten()),
        "forget": (data.train, is_forgotten.nonzero().flatten()),
        "test": (data.test, torch.arange(len(data.test))),
    }

    def predict(split: Split, points: Tensor) -> Tensor:
        return prepared.network.logits(weights, buffers, split.batch(points), train=False)

    return {
        name: accuracy(partial(predict, split), split.labels, points.to(prepared.device))
        for name, (split, points) in sets.items()
    }


def _check_every(device: torch.device) -> int:
    return 50 if device.type == "cuda" else 1  # looking at a loss waits for a GPU


def _settle(prepared: Prepared) -> None:
    """Ask for the same numbers every time: no TF32, no choice of kernels by timing, a known number of threads."""
    available = int(os.environ.get("OMP_NUM_THREADS", cpu_count()))
    # small networks lose more by waiting for a second thread than it brings
    small = prepared.network.layout.dim < SMALL
    torch.set_num_threads(prepared.config.threads or (1 if small else available))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _announce(prepared: Prepared) -> None:
    vectors = vectors_needed(prepared.records, prepared.recorded.schedule, prepared.config.training.checkpoint_every)
    if "checkpoints" in prepared.records:
        size = vectors * prepared.network.layout.dim * 4 / 1e9
        logger.info("recording keeps %d vectors of the model's size: %.2f GB by the end", vectors, size)


def _save_weights(prepared: Prepared, folder: RunFolder, models: dict[str, tuple[Tensor, Buffers]]) -> None:
    for name, (weights, buffers) in models.items():
        folder.save_weights(name, {**prepared.network.layout.views(weights), **buffers})


def _provenance(prepared: Prepared, code: dict[str, Any] | None) -> dict[str, Any]:
    device = prepared.device
    return provenance(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        seed=prepared.config.seed,
        schedule=prepared.recorded.schedule.fingerprint(),
        data=prepared.data.train.fingerprint(),
        code=code,
    )

"""The end of a run: accuracies, weights, summary, figures."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unlearn.data.split import Split
from unlearn.figures.run import draw
from unlearn.log.sink import Sink
from unlearn.methods.method import Unlearned
from unlearn.metrics.accuracy import accuracy
from unlearn.models.network import Buffers
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.pipeline.summary import summarise
from unlearn.records.folder import RunFolder
from unlearn.train.hessian import SMALL
from unlearn.train.recording import Trained
from unlearn.values.measurement import Measurement


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


def _save_weights(prepared: Prepared, folder: RunFolder, models: dict[str, tuple[Tensor, Buffers]]) -> None:
    for name, (weights, buffers) in models.items():
        folder.save_weights(name, {**prepared.network.layout.views(weights), **buffers})

"""Sigma and forecasts of all points of a stack at once, handed to each point's own measurer."""

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.stacked import StackedHessian
from unlearn.curvature.stacked_lanczos import StackedTracker
from unlearn.metrics import weight_space
from unlearn.pipeline.forecast import Forecast
from unlearn.pipeline.measure import Measurer
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stack_forecast import stacked_forecasts
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.learner import Learner
from unlearn.train.recording import Trained
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import Diverged, NotFinite
from unlearn.values.streams import generator

CHUNK = 8  # networks in one graph of a Hessian: as many as the processor's cache holds


@dataclass
class StackMeasurer(Measurer):
    """A measurer whose curvature was taken for the whole stack.

    Attributes:
        found: sigma at this step, and the products it took.
        ahead: the forecast at this step; None where there is none.
        finite: whether curvature is, at this step.
    """

    found: tuple[float | None, int] = (None, 0)
    ahead: Forecast | None = None
    finite: bool = True

    def _sigma(self, original: Learner, step: int) -> tuple[float | None, int]:
        if not self.finite:
            raise NotFinite
        return self.found

    def _forecast(self, trained: Trained) -> Forecast | None:
        if self.ahead is not None:
            trained.recording.carried = self.ahead.carried
        return self.ahead


class Measured(Protocol):
    """What is read of a point: see `unlearn.pipeline.stacking.Point`."""

    prepared: Prepared
    error: Diverged | None
    trained: Trained | None
    measurer: StackMeasurer | None


@dataclass
class StackCurvature:
    """Sigma and forecasts of all points at once.

    Attributes:
        points: of one stack.
        objective: the losses.
        sample: points that each looks at, shape (rows, k).
        tracker: of sigma.
        workers: threads for the products; None takes one after the other.
    """

    points: Sequence[Measured]
    objective: StackedObjective
    sample: Tensor
    tracker: StackedTracker
    workers: Executor | None

    @classmethod
    def of(cls, points: Sequence[Measured], workers: Executor | None) -> "StackCurvature":
        """Begin before the first measured step.

        Args:
            points: of one stack, with their recordings.
            workers: threads for the products, or None.

        Returns:
            Curvature that was not looked at yet.
        """
        first = points[0].prepared
        objective = StackedObjective.of([point.prepared.recorded.objective for point in points])
        chosen = torch.stack([point.prepared.sample.points for point in points])
        estimator = first.tracker.estimator
        lanczos = estimator if isinstance(estimator, Lanczos) else Lanczos("unused", 1.0, 1)
        tracker = StackedTracker(lanczos, first.tracker.warmth)
        return cls(points, objective, chosen, tracker, workers)

    def look(self, step: int, seconds: Stopwatch) -> None:
        """Hand each point's measurer its sigma and its forecast.

        Args:
            step: steps taken.
            seconds: gets the stages `sigma` and `forecast`.
        """
        settings = self.points[0].prepared.config.measure
        trained = [cast(Trained, point.trained) for point in self.points]
        weights = torch.stack([each.original.weights for each in trained])
        finite = weights.isfinite().all(dim=1)
        rows = [k for k, point in enumerate(self.points) if point.error is None and bool(finite[k])]
        if not rows or not self.sample.shape[1]:
            return
        with seconds("sigma"):
            probes = torch.stack([_probe(point, step) for point in self.points])
            found = self.tracker(self._hessian(weights), probes, rows)
        for k in rows:
            measurer = cast(StackMeasurer, self.points[k].measurer)
            measurer.found = weight_space.sigma_of(found[k].value, settings.sigma), found[k].products
            measurer.finite = math.isfinite(found[k].value)
        if not settings.krylov:
            return
        with seconds("forecast"):
            rows = [k for k in rows if math.isfinite(found[k].value)]
            most = settings.hessian_samples
            ahead = stacked_forecasts(trained, rows, self.objective, most, settings.krylov, self.workers)
        for k in rows:
            measurer = cast(StackMeasurer, self.points[k].measurer)
            measurer.ahead, measurer.finite = ahead[k], ahead[k] is not None

    def _hessian(self, weights: Tensor) -> StackedHessian:
        objective, points = self.objective, self.sample
        shares = torch.full(points.shape, 1 / points.shape[1], dtype=weights.dtype)

        def losses(some: Tensor, rows: slice) -> Tensor:
            return objective.losses(some, points[rows], shares[rows], rows)

        return StackedHessian(weights, losses, CHUNK, self.workers)


def _probe(point: Measured, step: int) -> Tensor:
    like = cast(Trained, point.trained).original.weights
    stream = generator(point.prepared.config.seed, "probe", step)
    return torch.randn(len(like), generator=stream, dtype=like.dtype)

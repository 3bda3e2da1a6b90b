"""Sigma and forecasts of all points of a stack at once, handed to each point's own measurer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.lockstep import lockstep
from unlearn.pipeline.config import Measure
from unlearn.pipeline.forecast import Forecast
from unlearn.pipeline.measure import Measurer, Sigma, probe_at
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stack_forecast import stacked_forecasts
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.learner import Learner
from unlearn.train.recording import Trained
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import Diverged, NotFinite

CHUNK = 16  # points whose products go in lockstep: fewer leave most of the time to Python, more a processor's cache


@dataclass
class StackMeasurer(Measurer):
    """A measurer whose curvature was taken for the whole stack.

    Attributes:
        found: sigma at this step.
        ahead: the forecast at this step; None where there is none.
        finite: whether curvature is, at this step.
    """

    found: Sigma = field(default_factory=Sigma)
    ahead: Forecast | None = None
    finite: bool = True

    def _sigma(self, original: Learner, step: int) -> Sigma:
        if not self.finite:
            raise NotFinite
        return self.found

    def _forecast(self, trained: Trained) -> Forecast | None:
        if self.ahead is not None:
            trained.recording.carried = self.ahead.carried
        return self.ahead


class Measured(Protocol):
    """What is read of a point: see `unlearn.pipeline.stacking.StackedPoint`."""

    prepared: Prepared
    error: Diverged | None
    trained: Trained | None
    measurer: StackMeasurer | None


@dataclass
class _Chunk:
    """Curvature of a few points, whose products go in lockstep.

    Attributes:
        points: of one stack.
        objective: their losses.
        sample: points that each looks at, shape (rows, k).
    """

    points: Sequence[Measured]
    objective: StackedObjective
    sample: Tensor

    def sigma(self, step: int) -> None:
        """Hand each point's measurer its sigma.

        Args:
            step: steps taken.
        """
        weights = torch.stack([cast(Trained, point.trained).original.weights for point in self.points])
        whole = weights.isfinite().all(dim=1)
        rows = [k for k, point in enumerate(self.points) if point.error is None and bool(whole[k])]
        if not rows:
            return
        shares = torch.full(self.sample.shape, 1 / self.sample.shape[1], dtype=weights.dtype)
        hessian = self.objective.hessian(weights, self.sample, shares)
        searches = {}
        for k in rows:
            tracker = self.points[k].prepared.tracker
            assert isinstance(tracker.estimator, Lanczos)  # others do not fuse
            searches[k] = tracker.search(
                tracker.estimator, probe_at(self.points[k].prepared.config.seed, step, weights[k])
            )
        for k, extreme in lockstep(searches, hessian, weights).items():
            measurer = cast(StackMeasurer, self.points[k].measurer)
            measurer.finite = extreme is not None
            if extreme is not None:
                measurer.found = Sigma.of(extreme, self.points[k].prepared.config.measure.sigma)

    def forecasts(self) -> None:
        """Hand each point's measurer its forecast."""
        settings = self.points[0].prepared.config.measure
        trained = [cast(Trained, point.trained) for point in self.points]
        measurers = [cast(StackMeasurer, point.measurer) for point in self.points]
        rows = [
            k
            for k, each in enumerate(trained)
            if self.points[k].error is None and measurers[k].finite and bool(each.original.weights.isfinite().all())
        ]
        for k, ahead in stacked_forecasts(
            trained, rows, self.objective, settings.hessian_samples, settings.krylov
        ).items():
            measurers[k].ahead, measurers[k].finite = ahead, ahead is not None


@dataclass
class StackCurvature:
    """Sigma and forecasts of all points, a chunk at once.

    Attributes:
        chunks: of the points.
        settings: of measuring.
    """

    chunks: Sequence[_Chunk]
    settings: Measure

    @classmethod
    def of(cls, points: Sequence[Measured]) -> "StackCurvature":
        """Begin before the first measured step.

        Args:
            points: of one stack, with their recordings.

        Returns:
            Curvature that was not looked at yet.
        """
        first = points[0].prepared
        objective = StackedObjective.of([point.prepared.recorded.objective for point in points])
        chosen = torch.stack([point.prepared.sample.points for point in points])
        chunks = []
        for start in range(0, len(points), CHUNK):
            rows = slice(start, start + CHUNK)
            chunks.append(_Chunk(points[rows], objective.take(rows), chosen[rows]))
        return cls(chunks, first.config.measure)

    def look(self, step: int, seconds: Stopwatch) -> None:
        """Hand each point's measurer its sigma and its forecast.

        Args:
            step: steps taken.
            seconds: gets the stages `sigma` and `forecast`.
        """
        if not self.settings.hessian_samples:
            return
        with seconds("sigma"):
            for chunk in self.chunks:
                chunk.sigma(step)
        if self.settings.krylov:
            with seconds("forecast"):
                for chunk in self.chunks:
                    chunk.forecasts()

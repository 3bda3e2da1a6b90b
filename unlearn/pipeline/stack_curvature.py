"""Sigma and forecasts of all runs of a stack at once, handed to each run's own measurer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.lockstep import lockstep
from unlearn.methods.method import Unlearned
from unlearn.pipeline.config import Measure
from unlearn.pipeline.measure import Measurer, Sigma, probe_at
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stacking import StackedRun
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.forecast import Forecast
from unlearn.train.learner import Learner
from unlearn.train.recording import Trained
from unlearn.train.stack_forecast import stacked_forecasts
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import NotFinite

CHUNK = 16  # runs whose products go in lockstep: fewer leave most of the time to Python, more a processor's cache
GRAPH = 2**20  # numbers in the inputs of one graph: of digits 16 runs fit, of CIFAR's images one, whose graph is large


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


@dataclass
class Running:
    """A run of a stack in its recorded phase.

    Attributes:
        run: what it is a run of, and what comes of it.
        trained: M, M' and the recording.
        measurer: measures it.
        unlearned: the newest M''.
    """

    run: StackedRun
    trained: Trained
    measurer: StackMeasurer
    unlearned: Unlearned | None = None

    @property
    def prepared(self) -> Prepared:
        """The run's parts."""
        return self.run.prepared

    @property
    def is_finite(self) -> bool:
        """Whether it goes on, and M is finite."""
        return self.run.error is None and bool(self.trained.original.weights.isfinite().all())


@dataclass
class _Chunk:
    """Curvature of a few runs, whose products go in lockstep.

    Attributes:
        runs: of one stack.
        objective: their losses.
        points: training points that each looks at, shape (rows, k).
    """

    runs: Sequence[Running]
    objective: StackedObjective
    points: Tensor

    def sigma(self, step: int) -> None:
        """Hand each run's measurer its sigma.

        Args:
            step: steps taken.
        """
        rows = [k for k, run in enumerate(self.runs) if run.is_finite]
        if not rows:
            return
        weights = torch.stack([run.trained.original.weights for run in self.runs])
        shares = torch.full(self.points.shape, 1 / self.points.shape[1], dtype=weights.dtype)
        hessian = self.objective.hessian(weights, self.points, shares)
        searches = {}
        for k in rows:
            prepared = self.runs[k].prepared
            lanczos = prepared.tracker.estimator
            assert isinstance(lanczos, Lanczos)  # others do not fuse
            searches[k] = prepared.tracker.search(lanczos, probe_at(prepared.config.seed, step, weights[k]))
        for k, extreme in lockstep(searches, hessian, weights).items():
            run = self.runs[k]
            run.measurer.finite = extreme is not None
            if extreme is not None:
                run.measurer.found = Sigma.of(extreme, run.prepared.config.measure.sigma)

    def forecasts(self) -> None:
        """Hand each run's measurer its forecast."""
        settings = self.runs[0].prepared.config.measure
        trained = [run.trained for run in self.runs]
        rows = [k for k, run in enumerate(self.runs) if run.is_finite and run.measurer.finite]
        found = stacked_forecasts(trained, rows, self.objective, settings.hessian_samples, settings.krylov)
        for k, ahead in found.items():
            measurer = self.runs[k].measurer
            measurer.ahead, measurer.finite = ahead, ahead is not None


@dataclass
class StackCurvature:
    """Sigma and forecasts of all runs, a chunk at once.

    Attributes:
        chunks: of the runs.
        settings: of measuring.
    """

    chunks: Sequence[_Chunk]
    settings: Measure

    @classmethod
    def of(cls, runs: Sequence[Running], objective: StackedObjective) -> "StackCurvature":
        """Begin before the first measured step.

        Args:
            runs: of one stack.
            objective: their losses.

        Returns:
            Curvature that was not looked at yet.
        """
        points = torch.stack([run.prepared.sample.points for run in runs])
        chunks, count = [], _together(objective, points.shape[1])
        for start in range(0, len(runs), count):
            rows = slice(start, start + count)
            chunks.append(_Chunk(runs[rows], objective.take(rows), points[rows]))
        return cls(chunks, runs[0].prepared.config.measure)

    def look(self, step: int, seconds: Stopwatch) -> None:
        """Hand each run's measurer its sigma and its forecast.

        Args:
            step: steps taken.
            seconds: gets the stages `sigma` and `forecast`.
        """
        if not self.settings.hessian_samples:
            return
        with seconds("sigma"):
            for chunk in self.chunks:
                chunk.sigma(step)
        if self.settings.forecasts:
            with seconds("forecast"):
                for chunk in self.chunks:
                    chunk.forecasts()


def _together(objective: StackedObjective, points: int) -> int:
    """Say how many runs go in lockstep; a network that is no chain has the graph of all of them in memory."""
    if objective.network.chain is not None:
        return CHUNK
    return max(1, min(CHUNK, GRAPH // max(1, points * objective.inputs[0].numel())))

"""Measuring one step. It reads M and M' and changes nothing in them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unlearn.curvature.spectrum import Extreme
from unlearn.methods.method import Unlearned
from unlearn.metrics import weight_space
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.arithmetic import passes
from unlearn.train.forecast import Forecast, forecast
from unlearn.train.hessian import Sample, hessian_at
from unlearn.train.learner import Learner
from unlearn.train.loop import Step
from unlearn.train.path import quotient_on
from unlearn.train.recording import Trained
from unlearn.values.errors import Diverged, NotFinite, UserError
from unlearn.values.flat import buffer_distance, distance, norm
from unlearn.values.streams import generator

UNJUDGED: dict[str, Any] = dict.fromkeys(("verification_error", "unlearning_error_krylov", "correction_size"))


@dataclass(frozen=True)
class Look:
    """What was measured at one step that no method has a part in.

    Attributes:
        columns: of `Measurement`, all but those that need M''.
        y: the forecast of w' - w_t, or None.
    """

    columns: dict[str, Any]
    y: Tensor | None


@dataclass(frozen=True)
class Sigma:
    """What was found at one step.

    Attributes:
        value: sigma; None where it is not measured.
        error: the estimate of its error; None where the estimator has none.
        products: Hessian-vector products that it took.
    """

    value: float | None = None
    error: float | None = None
    products: int = 0

    @classmethod
    def of(cls, extreme: Extreme, kind: str) -> "Sigma":
        """Read an estimate.

        Args:
            extreme: the eigenpair.
            kind: `measure.sigma`.

        Returns:
            sigma.
        """
        sigma, error = weight_space.sigma_of(extreme.value, kind), extreme.error
        if kind == "sqrt_signed":  # to first order; of no negative eigenvalue is there a root
            error = error / (2 * sigma) if sigma else math.nan
        return cls(sigma, None if math.isnan(error) else error, extreme.products)


@dataclass
class Measurer:
    """Measures steps and remembers the running mean of sigma.

    Attributes:
        prepared: the run.
        seconds: where the time goes is added here.
        sigmas: how many sigmas were measured, and their sum.
    """

    prepared: Prepared
    seconds: Stopwatch
    sigmas: tuple[int, float] = (0, 0.0)

    def look(self, step: Step, trained: Trained) -> Look:
        """Measure M against M' after a step.

        Args:
            step: the step just taken.
            trained: M, M' and what was recorded.

        Returns:
            All that needs no M''.

        Raises:
            Diverged: the weights of one of the two are no longer finite.
            UserError: a GPU's memory holds no graph of so many points.
        """
        original, retrained, recording = trained.original, trained.retrained, trained.recording
        moved = float(distance(original.weights, recording.initial.weights))
        noop = float(distance(original.weights, retrained.weights))
        assert original.loss is not None  # a step was taken
        if not (math.isfinite(moved) and math.isfinite(noop)):
            raise Diverged(step.taken, step.lr)
        try:
            with self.seconds("sigma"):
                found = self._sigma(original, step.taken)
            with self.seconds("forecast"):
                ahead = self._forecast(trained)
        except NotFinite as problem:
            error = Diverged.saying(f"step {step.taken} (lr={step.lr:g}): {problem}", step.taken, step.lr)
            raise error from None
        sigma = found.value
        if sigma is not None:
            self.sigmas = (self.sigmas[0] + 1, self.sigmas[1] + sigma)
        mean = self.sigmas[1] / self.sigmas[0] if self.sigmas[0] else None
        y = None if ahead is None else ahead.y
        lr = recording.rate_sum / step.taken
        columns = {
            "step": step.taken,
            "epoch": step.batch.epoch,
            "lr": step.lr,
            "visits": recording.visit_count,
            "loss": float(original.loss),
            "sigma": sigma,
            "sigma_error": found.error,
            "hvps": found.products,
            "distance_from_initial": moved,
            "noop_distance": noop,
            "unlearning_error_paper": _known(weight_space.unlearning_error_paper, lr, step.taken, moved, mean),
            "unlearning_error_code": _known(weight_space.unlearning_error_code, lr, step.taken, moved, sigma),
            "unlearning_error_code_mean": _known(weight_space.unlearning_error_code, lr, step.taken, moved, mean),
            "unlearning_error_unrolled": _known(weight_space.unlearning_error_unrolled, lr, step.taken, moved, mean),
            "predicted_noop_distance": None if y is None else float(norm(y)),
            "krylov_error": None if ahead is None or y is None else ahead.error,
            "krylov_hvps": 0 if ahead is None else ahead.products,
            "krylov_flags": None if ahead is None or y is None else "+".join(ahead.flags),
            "buffer_distance": float(buffer_distance(original.buffers, retrained.buffers)),
        }
        return Look(columns, y)

    def _sigma(self, original: Learner, step: int) -> Sigma:
        prepared = self.prepared
        if not len(prepared.sample.points):
            return Sigma()
        weights = original.weights
        probe = probe_at(prepared.config.seed, step, weights)
        operator = hessian_at(prepared.recorded.objective, original, prepared.sample)
        try:
            with passes(prepared.config.measure.arithmetic, weights.device):
                extreme = prepared.tracker(operator, probe)
        except torch.OutOfMemoryError:
            raise UserError(_too_large(prepared.sample, bool(original.buffers), weights.device)) from None
        return Sigma.of(extreme, prepared.config.measure.sigma)

    def _forecast(self, trained: Trained) -> Forecast | None:
        prepared = self.prepared
        if not prepared.config.measure.forecasts:
            return None
        recording, original = trained.recording, trained.original
        assert recording.carried is not None
        segment = recording.carried.segment(recording.steps, original)
        along = partial(quotient_on, segment, prepared.config.measure.hessian_samples)
        ahead = forecast(recording, original, along, prepared.config.measure.krylov)
        recording.carried = ahead.carried
        return ahead


def probe_at(seed: int, step: int, weights: Tensor) -> Tensor:
    """Draw the random direction in which a step's sigma is looked for as well.

    Args:
        seed: the run's seed.
        step: steps taken.
        weights: gives shape, type and device. Drawn where it is used: sigma does not hang on it, and a CPU would take
            longer to draw it than CUDA to use it.

    Returns:
        Shape (dim,).
    """
    stream = generator(seed, "probe", step, device=weights.device)
    return torch.randn(len(weights), generator=stream, dtype=weights.dtype, device=weights.device)


def _too_large(sample: Sample, has_buffers: bool, device: torch.device) -> str:
    parts, kept = sample.parts(has_buffers), sample.held(has_buffers)
    largest = max(len(part) for part, _ in parts)
    if kept and len(sample.points) > sample.chunk:
        key, fewer = f"measure.hessian_kept={sample.kept}", f"fewer, such as {kept[-1] // 2}, or 0"
    elif sample.train_mode and has_buffers and largest // 4 < sample.batch_size:  # BatchNorm takes whole batches
        key, fewer = f"training.batch_size={sample.batch_size}", "measure.hessian_mode=eval, or a smaller batch"
    else:
        key, fewer = f"measure.hessian_chunk={largest}", f"fewer, such as {max(largest // 4, 1)}"
    vectors = "some ten vectors as long as the model"
    return f"{key}: the graph of so many points, with {vectors}, does not fit the memory of {device}; take {fewer}"


def _known(
    error: Callable[[float, int, float, float], float], lr: float, steps: int, moved: float, sigma: float | None
) -> float | None:
    return None if sigma is None else error(lr, steps, moved, sigma)


def judge(look: Look, original: Learner, retrained: Learner, unlearned: Unlearned | None) -> dict[str, Any]:
    """Measure a method at a step.

    Args:
        look: what was measured there without it.
        original: M there.
        retrained: M' there.
        unlearned: M'' there; None where the method runs at the end alone.

    Returns:
        The columns that need M''; None for each without it.
    """
    if unlearned is None:
        return UNJUDGED
    correction = unlearned.weights - original.weights
    return {
        "verification_error": float(distance(unlearned.weights, retrained.weights)),
        "unlearning_error_krylov": None if look.y is None else float(distance(correction, look.y)),
        "correction_size": float(norm(correction)),
    }

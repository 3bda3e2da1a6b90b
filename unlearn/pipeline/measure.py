"""Measuring one step. It reads M and M' and changes nothing in them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unlearn.curvature.operator import Hessian
from unlearn.methods.method import Unlearned
from unlearn.metrics import weight_space
from unlearn.models.network import clone
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.learner import Learner
from unlearn.train.loop import Step
from unlearn.train.recording import Trained
from unlearn.values.errors import Diverged
from unlearn.values.flat import buffer_distance, distance
from unlearn.values.measurement import Measurement
from unlearn.values.streams import generator


@dataclass
class Measurer:
    """Measures steps and remembers the running mean of sigma.

    Attributes:
        prepared: the run.
        seconds: where the time goes is added here.
        sigmas: how many sigmas were measured, and their sum.
        unlearned: the newest M''.
    """

    prepared: Prepared
    seconds: Stopwatch
    sigmas: tuple[int, float] = (0, 0.0)
    unlearned: Unlearned | None = None

    def measure(self, step: Step, trained: Trained, *, final: bool) -> Measurement:
        """Measure M against M' after a step.

        Args:
            step: the step just taken.
            trained: M, M' and what was recorded.
            final: whether it is the last: methods that are not online are run then.

        Returns:
            The row of `steps.csv`.

        Raises:
            Diverged: the weights are no longer finite.
        """
        original, retrained, recording = trained.original, trained.retrained, trained.recording
        moved = float(distance(original.weights, recording.initial.weights))
        assert original.loss is not None  # a step was taken
        if not math.isfinite(moved):
            raise Diverged(step.taken, step.lr)
        with self.seconds("sigma"):
            sigma, products = self._sigma(original, step.taken)
        if sigma is not None:
            self.sigmas = (self.sigmas[0] + 1, self.sigmas[1] + sigma)
        mean = self.sigmas[1] / self.sigmas[0] if self.sigmas[0] else None
        method = self.prepared.method
        if method.online or final:
            with self.seconds("unlearn"):
                self.unlearned = method.unlearn(trained)
        done = self.unlearned if method.online or final else None
        lr = recording.rate_sum / step.taken
        return Measurement(
            step=step.taken,
            epoch=step.batch.epoch,
            lr=step.lr,
            visits=recording.visits,
            loss=float(original.loss),
            sigma=sigma,
            hvps=products,
            distance_from_initial=moved,
            noop_distance=float(distance(original.weights, retrained.weights)),
            verification_error=None if done is None else float(distance(done.weights, retrained.weights)),
            unlearning_error_paper=_known(weight_space.unlearning_error_paper, lr, step.taken, moved, mean),
            unlearning_error_code=_known(weight_space.unlearning_error_code, lr, step.taken, moved, sigma),
            unlearning_error_code_mean=_known(weight_space.unlearning_error_code, lr, step.taken, moved, mean),
            unlearning_error_unrolled=_known(weight_space.unlearning_error_unrolled, lr, step.taken, moved, mean),
            correction_size=None if done is None else float(distance(done.weights, original.weights)),
            buffer_distance=float(buffer_distance(original.buffers, retrained.buffers)),
        )

    def _sigma(self, original: Learner, step: int) -> tuple[float | None, int]:
        settings, points = self.prepared.config.measure, self.prepared.hessian_points
        if not len(points):
            return None, 0
        extreme = self.prepared.estimator(hessian(self.prepared, original, points), self._start(original.weights, step))
        return weight_space.sigma_of(extreme.value, settings.sigma), extreme.products

    def _start(self, weights: Tensor, step: int) -> Tensor:
        stream = generator(self.prepared.config.seed, "probe", step)
        return torch.randn(len(weights), generator=stream, dtype=weights.dtype).to(weights.device)


def hessian(prepared: Prepared, at: Learner, points: Tensor) -> Hessian:
    """Give the Hessian of the mean training loss over some points, without augmentation.

    In train mode the points are taken in batches of the training size, so that BatchNorm sees what it sees in training;
    in eval mode all at once.

    Args:
        prepared: the loss and the mode.
        at: gives weights and buffers, which stay as they are.
        points: training points.

    Returns:
        The operator.
    """
    train = prepared.config.measure.hessian_mode == "train"
    size = prepared.recorded.schedule.batch_size if train and at.buffers else len(points)
    objective = prepared.recorded.objective

    def loss(part: Tensor, weights: Tensor) -> Tensor:
        return objective.loss(weights, clone(at.buffers), part, train=train)

    return Hessian(at.weights, [(len(part) / len(points), partial(loss, part)) for part in points.split(size)])


def _known(
    error: Callable[[float, int, float, float], float], lr: float, steps: int, moved: float, sigma: float | None
) -> float | None:
    return None if sigma is None else error(lr, steps, moved, sigma)

"""The curvature of the training loss at a model's weights, on a fixed set of points."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from unlearn.curvature.layers import SideBySide
from unlearn.curvature.operator import GaussNewton, Hessian, Operator
from unlearn.data.augmentation import Draws
from unlearn.models.network import clone
from unlearn.train.learner import Learner
from unlearn.train.objective import Objective
from unlearn.values.errors import choice

SMALL = 250_000  # weights; below, graphs of this many points at once are cheap to hold
CHUNKS = (512, 16)  # points in one graph, for small networks and for others on a CPU (a ResNet-18: 25 MB a point)


def chunk_for(dim: int, asked: int | None, device: torch.device) -> int:
    """Choose how many points one graph holds.

    Args:
        dim: number of weights.
        asked: what the user set, or None.
        device: a CPU is as quick with many small graphs as with a large one, CUDA is not.

    Returns:
        `asked`, or what fits the size of the network.
    """
    return asked or CHUNKS[dim >= SMALL and device.type == "cpu"]


@dataclass(frozen=True)
class Sample:
    """Where curvature is looked at.

    Attributes:
        points: training points.
        train_mode: BatchNorm as in training, which needs batches of the training size; else its running statistics.
        batch_size: of training.
        chunk: the most points in one graph, but for a whole batch where BatchNorm is in train mode; several are
            computed one after the other, in the memory of one and of those that are kept.
        draws: how all training points are augmented; None leaves them as they are.
        kept: the most points whose graphs stay in memory between products. A sample of no more points than `chunk`
            keeps its graphs in any case.
    """

    points: Tensor
    train_mode: bool
    batch_size: int
    chunk: int
    draws: Draws | None = None
    kept: int = 0

    def parts(self, has_buffers: bool) -> list[tuple[Tensor, int]]:
        """Cut the points into what one forward pass sees.

        Args:
            has_buffers: whether the network has BatchNorm or the like.

        Returns:
            Points, and how many batches they are side by side (see `SideBySide`): batches of the training size where
            BatchNorm is in train mode, as many as fit a chunk; else a chunk is one batch.
        """
        if not (self.train_mode and has_buffers):
            return [(part, 1) for part in self.points.split(self.chunk)]
        size = self.batch_size
        whole = len(self.points) // size * size
        many = self.points[:whole].view(-1, size).split(max(self.chunk // size, 1))  # one empty part where whole is 0
        found = [(batches.T.reshape(-1), len(batches)) for batches in many if len(batches)]
        return found + ([(self.points[whole:], 1)] if whole < len(self.points) else [])

    def held(self, has_buffers: bool) -> list[int]:
        """Say which parts keep their graphs where there is more than one chunk.

        Args:
            has_buffers: as for `parts`.

        Returns:
            How many points are kept with each of the first parts, one entry a part that is kept.
        """
        reached = accumulate(len(part) for part, _ in self.parts(has_buffers))
        return [points for points in reached if points <= self.kept]


def hessian_at(objective: Objective, at: Learner, sample: Sample) -> Hessian:
    """Give the Hessian of the mean training loss over the sample, penalty included.

    Args:
        objective: the loss.
        at: gives weights and buffers, which stay as they are.
        sample: where.

    Returns:
        The operator. A sample of one chunk keeps its graphs between products; of several as many do as `kept` allows.
    """

    def loss(part: Tensor, batches: int, weights: Tensor) -> Tensor:
        with SideBySide(batches):
            return objective.loss(weights, clone(at.buffers), part, draws=sample.draws, train=sample.train_mode)

    has_buffers = bool(at.buffers)
    parts = sample.parts(has_buffers)
    losses = [(len(part) / len(sample.points), partial(loss, part, batches)) for part, batches in parts]
    at_once = len(parts) == 1 or len(sample.points) <= sample.chunk
    return Hessian(at.weights, losses, None if at_once else len(sample.held(has_buffers)))


def gauss_newton_at(objective: Objective, at: Learner, sample: Sample) -> GaussNewton:
    """Give the Gauss-Newton matrix of the mean training loss over the sample; a penalty of the weights has its Hessian.

    Args:
        objective: the loss.
        at: gives weights and buffers, which stay as they are.
        sample: where.

    Returns:
        The operator.
    """

    def logits(part: Tensor, batches: int, weights: Tensor) -> Tensor:
        with SideBySide(batches):
            return objective.logits(weights, clone(at.buffers), part, draws=sample.draws, train=sample.train_mode)

    parts = [
        (len(part) / len(sample.points), partial(logits, part, batches), partial(objective.on_data, part))
        for part, batches in sample.parts(bool(at.buffers))
    ]
    of_weights = objective.penalty.of_weights
    weighs = of_weights(at.weights.detach().requires_grad_()).requires_grad
    return GaussNewton(at.weights, parts, Hessian(at.weights, [(1.0, of_weights)]) if weighs else None)


def curvature_at(objective: Objective, at: Learner, sample: Sample, kind: str) -> Operator:
    """Give one of the two.

    Args:
        objective: the loss.
        at: gives weights and buffers.
        sample: where.
        kind: `hessian` or `gauss_newton`.

    Returns:
        The operator.
    """
    choice("method.curvature", kind, ("hessian", "gauss_newton"))
    return (hessian_at if kind == "hessian" else gauss_newton_at)(objective, at, sample)


def sample_points(size: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Choose the points of a sample.

    Args:
        size: number of training points.
        count: how many to take; all where there are fewer.
        generator: draws them; None takes the first.

    Returns:
        int64; what is drawn in the order of the draw, since batches are cut from it, and data may be stored by class.
    """
    if generator is None:
        return torch.arange(min(count, size))
    return torch.randperm(size, generator=generator)[:count]

"""Gradients of training steps as CUDA graphs: a step's kernels are launched at once, not one by one from Python."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearn.values.errors import first_line

logger = logging.getLogger(__name__)

Compute = Callable[[Tensor, Tensor], Tensor]

EAGER = 2  # steps of a kind that run kernel by kernel first: libraries choose and allocate then
MOST = 8  # kinds of steps that are captured; each holds the activations of a step, in memory that they share


@dataclass(frozen=True)
class Captured:
    """A step's kernels, and where they read and write.

    Attributes:
        graph: the kernels.
        indices: of the points.
        inputs: of the network.
        loss: the result.
    """

    graph: torch.cuda.CUDAGraph
    indices: Tensor
    inputs: Tensor
    loss: Tensor


@dataclass
class Replays:
    """Runs a computation as it is at first, then replays what its kernels were.

    The computation must do the same whenever its kind and its shapes are the same: nothing of the host may enter it but
    through these, as a dropout mask's seed would.

    Attributes:
        stream: on which kernels run; another learner's stream may run beside it.
        captured: by kind of step.
        seen: how often each kind of step was asked for.
        failed: whether a capture failed; from then on every step runs as it is.
    """

    stream: torch.cuda.Stream
    captured: dict[Hashable, Captured] = field(default_factory=dict)
    seen: Counter[Hashable] = field(default_factory=Counter)
    failed: bool = False

    def __call__(self, compute: Compute, kind: Hashable, indices: Tensor, inputs: Tensor) -> Tensor:
        """Run it. The stream that is current when the result is used must wait for `stream` first.

        Args:
            compute: maps indices and inputs to a scalar; may write to memory that is always the same.
            kind: what else it depends on.
            indices: int64, shape (k,).
            inputs: shape (k, ...).

        Returns:
            Its scalar.
        """
        self.stream.wait_stream(torch.cuda.current_stream(indices.device))
        with torch.cuda.stream(self.stream):
            kind = (kind, inputs.shape)
            found = self.captured.get(kind)
            if found is None:
                self.seen[kind] += 1
                if self.failed or self.seen[kind] <= EAGER or len(self.captured) == MOST:
                    return compute(indices, inputs)
                found = self._capture(compute, indices, inputs)
                if found is None:
                    return compute(indices, inputs)
                self.captured[kind] = found
            found.indices.copy_(indices)
            found.inputs.copy_(inputs)
            found.graph.replay()
            return found.loss.clone()

    def _capture(self, compute: Compute, indices: Tensor, inputs: Tensor) -> Captured | None:
        graph, indices, inputs = torch.cuda.CUDAGraph(), indices.clone(), inputs.clone()
        pool = next(iter(self.captured.values())).graph.pool() if self.captured else None
        try:
            with torch.cuda.graph(graph, pool, self.stream):
                loss = compute(indices, inputs)
        except RuntimeError as error:
            self.failed = True
            logger.warning("training steps run without CUDA graphs: %s", first_line(error))
            return None
        return Captured(graph, indices, inputs, loss)

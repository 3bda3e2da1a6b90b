"""The loss at one learner's weights, step after step."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unlearn.models.network import Buffers
from unlearn.train.arithmetic import passes
from unlearn.train.replay import Replays

if TYPE_CHECKING:
    from unlearn.train.objective import Objective


@dataclass(frozen=True)
class Bound:
    """The loss and its gradient at one learner's weights, in memory that is allocated once.

    A step costs what it costs a module with an optimiser: no views are made, and the gradient of a layer is copied to
    its place in the flat vector as soon as it is there, while it is in the cache, and its memory goes to the next.

    Attributes:
        objective: the loss.
        weights: flat, shape (dim,); the module's parameters are views of it.
        module: the network.
        result: the newest gradient, shape (dim,).
        places: views of `result`, by parameter.
        came: those parameters whose gradient has come.
        drops: whether the network has dropout.
        replays: CUDA graphs of the steps; None where they do not pay, or cannot be.
    """

    objective: "Objective"
    weights: Tensor
    module: nn.Module
    result: Tensor
    places: dict[str, Tensor]
    came: set[str]
    drops: bool
    replays: Replays | None

    @classmethod
    def of(cls, objective: "Objective", weights: Tensor, buffers: Buffers, replay: bool) -> "Bound":
        """Bind.

        Args:
            objective: the loss.
            weights: flat, shape (dim,); changed in place between steps.
            buffers: in train mode BatchNorm updates them in place.
            replay: on CUDA as graphs, unless there is dropout.

        Returns:
            Ready for the first step.
        """
        module = objective.network.bind(weights, buffers)
        result = torch.empty_like(weights)
        places, came = objective.network.layout.views(result), set[str]()
        for name, parameter in module.named_parameters():
            if name in places:
                parameter.register_post_accumulate_grad_hook(partial(_move, places[name], name, came))
        drops = objective.drops
        replay = replay and weights.is_cuda and not drops
        replays = Replays(torch.cuda.Stream(weights.device)) if replay else None
        return cls(objective, weights, module, result, places, came, drops, replays)

    def gradient(self, indices: Tensor, inputs: Tensor, *, count: int, train: bool, step: int) -> tuple[Tensor, Tensor]:
        """Give loss and gradient on some training points; on CUDA they can be read after `wait`.

        Args:
            indices: the points, shape (k,).
            inputs: these points, from `Objective.inputs`.
            count: the number of points of the batch that these were taken from.
            train: train mode or eval mode.
            step: picks the dropout masks.

        Returns:
            The loss, detached, and its gradient, shape (dim,), which the next call overwrites.
        """
        if self.module.training != train:
            self.module.train(train)
        compute = partial(self._compute, count, step)
        if self.replays is None:
            return compute(indices, inputs), self.result
        return self.replays(compute, (count, train), indices, inputs), self.result

    def wait(self) -> None:
        """Let what follows see the last gradient."""
        if self.replays is not None:
            torch.cuda.current_stream(self.weights.device).wait_stream(self.replays.stream)

    def _compute(self, count: int, step: int, indices: Tensor, inputs: Tensor) -> Tensor:
        # what the penalty says of the weights themselves goes by the flat vector
        point = self.weights.detach().requires_grad_()
        self.came.clear()  # of a pass that failed half way
        with passes(self.objective.arithmetic, point.device):
            with self.objective.masks(step, self.drops):
                logits = self.module(inputs).to(point.dtype)
            loss = self.objective.of_outputs(point, indices, logits, count)
            loss.backward()
        for name in self.places.keys() - self.came:  # this pass did not use it, another may have
            self.places[name].zero_()
        if point.grad is not None:
            self.result.add_(point.grad)
        return loss.detach()


def _move(place: Tensor, name: str, came: set[str], parameter: Tensor) -> None:
    assert parameter.grad is not None
    place.copy_(parameter.grad)
    parameter.grad = None
    came.add(name)

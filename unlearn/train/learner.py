"""One model in training: its weights, its velocity and its buffers; and the SGD step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.models.network import Buffers, Network, clone


@dataclass
class Learner:
    """A model that is being trained. The loop changes it in place.

    Attributes:
        weights: flat, shape (dim,); steps write into it and never put another tensor in its place.
        velocity: the momentum buffer, shape (dim,); the last update was -lr * velocity.
        buffers: BatchNorm statistics and the like.
        gradient: of the last step's loss, weight decay not included; None before the first step. The next step writes
            into the same memory, and without momentum into that of the velocity.
        loss: of the last step, a scalar tensor; None before the first step.
        train_mode: whether forward passes are in train mode (the reference code leaves it by mistake).
        pulled: memory for gradient plus weight decay; None before the first step, and without decay.
    """

    weights: Tensor
    velocity: Tensor
    buffers: Buffers
    gradient: Tensor | None = None
    loss: Tensor | None = None
    train_mode: bool = True
    pulled: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether the last step's loss was, where there was a step; looking waits for a GPU."""
        return self.loss is None or bool(self.loss.isfinite())

    @classmethod
    def start(cls, weights: Tensor, buffers: Buffers) -> "Learner":
        """Start from given weights with no velocity.

        Args:
            weights: copied.
            buffers: copied.

        Returns:
            A learner of its own.
        """
        return cls(weights.clone(), torch.zeros_like(weights), clone(buffers))

    @classmethod
    def fresh(cls, network: Network, device: torch.device) -> "Learner":
        """Start from the weights that a network was built with.

        Args:
            network: gives weights and buffers.
            device: where to train.

        Returns:
            A learner on that device.
        """
        buffers = {name: buffer.to(device) for name, buffer in network.initial_buffers().items()}
        return cls.start(network.initial_weights().to(device), buffers)


@dataclass(frozen=True)
class SGD:
    """The optimiser: v <- mu v + (g + lambda w);  w <- w - eta v, as torch.optim.SGD does it.

    Attributes:
        momentum: mu.
        weight_decay: lambda.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def step_(self, learner: Learner, gradient: Tensor, lr: float) -> None:
        """Take one step, in place.

        Args:
            learner: whose weights and velocity change.
            gradient: g, shape (dim,); not changed.
            lr: eta.
        """
        learner.gradient = gradient
        pull = gradient
        if self.weight_decay:
            if learner.pulled is None:
                learner.pulled = torch.empty_like(gradient)
            pull = torch.add(gradient, learner.weights, alpha=self.weight_decay, out=learner.pulled)
        if self.momentum:
            learner.velocity.mul_(self.momentum).add_(pull)
        else:
            learner.velocity = pull
        learner.weights.add_(learner.velocity, alpha=-lr)

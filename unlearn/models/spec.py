"""What every model's settings have in common: a name, a seeded start, and weights to start from instead."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from unlearn.models.weights import load_weights
from unlearn.values.errors import UserError
from unlearn.values.streams import seed_for

ACTIVATIONS = ("relu", "gelu", "tanh")


@dataclass(frozen=True)
class ModelSpec(ABC):
    """Settings of a network.

    Attributes:
        name: what the run's records call it.
        weights: a file of weights to start from (see `unlearn.models.weights`); None starts from the seed.
    """

    name: str
    weights: str | None

    def build(self, shape: torch.Size, num_classes: int, seed: int) -> nn.Module:
        """Build the network with its initial weights, on the CPU; torch's global random state stays as it was.

        Args:
            shape: the shape of one input, without the batch.
            num_classes: length of the logits.
            seed: the run's seed; the initial weights come from the stream "init".

        Returns:
            A module from inputs (b, *shape) to logits (b, num_classes), in train mode.
        """
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed: it would seed the GPUs too
            torch.default_generator.manual_seed(seed_for(seed, "init"))
            module = self._module(shape, num_classes)
        if self.weights is not None:
            load_weights(module, self.weights)
        return module

    @abstractmethod
    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        """Build the network; layers draw their initial weights from torch's global generator."""

    def _image_channels(self, shape: torch.Size, least: int) -> int:
        if len(shape) != 3:
            raise UserError(
                f"model={self.name}: takes images (channels, height, width), but one input of this dataset has shape "
                f"{tuple(shape)}"
            )
        if min(shape[1:]) < least:
            raise UserError(
                f"model={self.name}: needs images of at least {least}x{least} pixels, not {shape[1]}x{shape[2]}"
            )
        return shape[0]


def activation(name: str) -> nn.Module:
    """Make an activation layer.

    Args:
        name: one of `ACTIVATIONS`.

    Returns:
        The layer; it has no parameters.
    """
    return {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}[name]()


def check_widths(widths: Sequence[int]) -> None:
    """Check the widths of hidden layers.

    Args:
        widths: `model.widths`.

    Raises:
        UserError: there is none, or one is below 1.
    """
    if len(widths) == 0 or min(widths) < 1:
        raise UserError(f"model.widths={list(widths)}: give one or more layer widths of at least 1")

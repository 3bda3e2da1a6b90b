"""A multi-layer perceptron on images or feature vectors."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import nn

from unlearn.models.spec import ACTIVATIONS, ModelSpec, activation, check_widths
from unlearn.values.errors import choice


@dataclass(frozen=True)
class MLP(ModelSpec):
    """Linear layers with an activation after each but the last.

    Attributes:
        widths: outputs of each hidden layer.
        activation: one of `ACTIVATIONS`; with gelu or tanh the loss is smooth.
    """

    widths: tuple[int, ...]
    activation: str

    def __post_init__(self) -> None:
        check_widths(self.widths)
        choice("model.activation", self.activation, ACTIVATIONS)

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise((prod(shape), *self.widths)):
            layers += [nn.Linear(inputs, outputs), activation(self.activation)]
        return nn.Sequential(*layers, nn.Linear(self.widths[-1], num_classes))

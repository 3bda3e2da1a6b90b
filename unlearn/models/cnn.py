"""A small convolutional network, quick on a CPU."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import torch
from torch import nn

from unlearn.models.spec import ACTIVATIONS, ModelSpec, activation, check_widths
from unlearn.values.errors import choice

NORMS = ("none", "batch", "group")


@dataclass(frozen=True)
class CNN(ModelSpec):
    """Blocks of 3x3 convolution, norm, activation and 2x2 average pooling; then one linear layer on all that is left.

    Average pooling is smooth, so that with gelu or tanh the whole network is.

    Attributes:
        widths: channels of each block; every block halves the image.
        activation: one of `ACTIVATIONS`.
        norm: one of `NORMS`; `batch` has buffers, `group` has none and normalises gcd(4, width) groups of channels.
    """

    widths: tuple[int, ...]
    activation: str
    norm: str

    def __post_init__(self) -> None:
        check_widths(self.widths)
        choice("model.activation", self.activation, ACTIVATIONS)
        choice("model.norm", self.norm, NORMS)

    def _norm(self, width: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(width)
        return nn.GroupNorm(gcd(4, width), width) if self.norm == "group" else nn.Identity()

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        shrink = 2 ** len(self.widths)
        channels = self._image_channels(shape, least=shrink)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *self.widths)):
            # a norm has its own shift: a bias before it would be a second one
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=self.norm == "none")
            # torch's default draw is narrower; with averages after it the signal would fade and training start slowly
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, self._norm(outputs), activation(self.activation), nn.AvgPool2d(2)]
        left = self.widths[-1] * (shape[1] // shrink) * (shape[2] // shrink)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(left, num_classes))

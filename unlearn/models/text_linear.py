"""A linear layer on the features of a frozen encoder: the paper's Linear(768, 2)."""

from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from unlearn.models.text import TextModel
from unlearn.values.errors import at_least


@dataclass(frozen=True)
class TextLinear(TextModel):
    """One linear layer with bias: width num_classes + num_classes parameters.

    Attributes:
        standardise: whether each feature is scaled to mean 0 and standard deviation 1 over the training texts.
        batch_size: texts that the encoder sees at once.
    """

    standardise: bool
    batch_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.batch_size", self.batch_size, 1)

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), num_classes))

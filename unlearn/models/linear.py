"""Logistic regression: with a penalty on its weights the loss is strictly convex."""

from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from unlearn.models.spec import ModelSpec


@dataclass(frozen=True)
class LinearModel(ModelSpec):
    """One linear layer with bias on the flattened input: d num_classes + num_classes parameters."""

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), num_classes))

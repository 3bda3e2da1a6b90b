"""ResNet with the stem for small images."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from unlearn.models.spec import ModelSpec
from unlearn.values.errors import choice


@dataclass(frozen=True)
class ResNet(ModelSpec):
    """torchvision's ResNet whose first layer is 3x3 with stride 1 and whose first pooling is left out.

    Attributes:
        depth: 18 (11,173,962 parameters on 3 channels and 10 classes) or 50 (23,520,842).
    """

    depth: int

    def __post_init__(self) -> None:
        choice("model.depth", str(self.depth), ("18", "50"))

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        channels = self._image_channels(shape, least=8)
        module = (resnet18 if self.depth == 18 else resnet50)(num_classes=num_classes)
        module.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
        module.maxpool = nn.Identity()
        # the same mean as torchvision's adaptive pooling, summed as the reference code's network sums it: lr 0.1 with
        # momentum blows a difference in the last bit up to 1e-3 within six steps
        module.avgpool = nn.AvgPool2d((ceil(shape[1] / 8), ceil(shape[2] / 8)))
        return module

"""VGG-19 with BatchNorm and a single linear layer on top, as is usual for small images."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from unlearn.models.spec import ModelSpec


@dataclass(frozen=True)
class VGG(ModelSpec):
    """The convolutions of torchvision's `vgg19_bn` and its initialisation; 20,040,522 parameters for CIFAR-10."""

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        channels = self._image_channels(shape, least=32)
        features = make_layers(cfgs["E"], batch_norm=True)
        features[0] = nn.Conv2d(channels, 64, 3, padding=1)
        classifier = nn.Linear(512, num_classes)
        # torchvision sets these inside its VGG class, which would draw 120 M weights of a classifier not used here
        for layer in features:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(classifier.weight, 0, 0.01)
        nn.init.zeros_(classifier.bias)
        parts = {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
        return nn.Sequential(OrderedDict(parts))

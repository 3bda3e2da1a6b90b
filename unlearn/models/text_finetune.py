"""A whole pretrained transformer, trained together with a linear layer on top."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from unlearn.models import encoder
from unlearn.models.network import dropout_rates
from unlearn.models.text import TextModel
from unlearn.values.errors import fraction


@dataclass(frozen=True)
class TextFinetune(TextModel):
    """Encoder, dropout, linear layer; all weights are trained, embeddings too.

    Attributes:
        dropout: at every place inside the encoder; None keeps the encoder's own.
        head_dropout: of the vector that the linear layer sees.
    """

    dropout: float | None
    head_dropout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in (("dropout", self.dropout), ("head_dropout", self.head_dropout)):
            if value is not None:
                fraction(f"model.{key}", value)

    def _module(self, shape: torch.Size, num_classes: int) -> nn.Module:
        folder = self.folder()
        pooled = encoder.load(folder, self.pooling, encoder.Tokenizer.of(folder).pad)
        if self.dropout is not None:
            for layer in pooled.modules():
                for name in dropout_rates(layer):
                    setattr(layer, name, self.dropout)
        head = nn.Linear(pooled.width, num_classes)
        parts = {"encoder": pooled, "dropout": nn.Dropout(self.head_dropout), "head": head}
        return nn.Sequential(OrderedDict(parts)).train()

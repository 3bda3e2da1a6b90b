"""What the models that read texts have in common: an encoder, and how it is used."""

from dataclasses import dataclass
from pathlib import Path

from unlearn.models import encoder
from unlearn.models.spec import ModelSpec
from unlearn.values.errors import UserError, at_least, choice


@dataclass(frozen=True)
class TextModel(ModelSpec):
    """Settings of an encoder with a classifier on top.

    Attributes:
        encoder: `minilm`, a folder, or a name on Hugging Face's hub.
        pooling: how a text becomes one vector: `pooler`, `cls` or `mean`.
        max_length: tokens of a text that are read; the rest is cut off.
    """

    encoder: str
    pooling: str
    max_length: int

    def __post_init__(self) -> None:
        choice("model.pooling", self.pooling, encoder.POOLINGS)
        at_least("model.max_length", self.max_length, 3)

    def folder(self) -> Path:
        """Find the encoder.

        Returns:
            Its folder.

        Raises:
            UserError: it is not to be had, or cannot take `max_length` tokens.
        """
        folder = encoder.find(self.encoder)
        most = encoder.longest(folder)
        if most is not None and self.max_length > most:
            raise UserError(f"model.max_length={self.max_length}: {self.encoder} takes at most {most} tokens")
        return folder

"""Texts with labels, as a data set holds them before a model's encoder turns them into tensors."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.values.errors import UserError


@dataclass(frozen=True)
class TextSplit:
    """Texts with labels: the training or the test set.

    Attributes:
        texts: n of them; an empty one is a point like any other.
        labels: class of each, int64, shape (n,).
    """

    texts: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Tensor) -> "TextSplit":
        """Keep some of the texts.

        Args:
            indices: int64, shape (k,).

        Returns:
            k texts with their labels.
        """
        return TextSplit(tuple(self.texts[i] for i in indices.tolist()), self.labels[indices])

    def fingerprint(self) -> str:
        """Hash the texts, not the labels: what an encoder makes of a text does not depend on its class.

        Returns:
            64 hexadecimal digits, the SHA-256 of lengths and UTF-8 bytes; surrogates count as what they are.
        """
        digest = hashlib.sha256()
        for text in self.texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.hexdigest()


@dataclass(frozen=True)
class TextData:
    """A loaded data set of texts.

    Attributes:
        train: D.
        test: held-out texts.
        num_classes: how many classes labels may name.
    """

    train: TextSplit
    test: TextSplit
    num_classes: int


def text_split(texts: Sequence[str], labels: Sequence[int], num_classes: int, where: str) -> TextSplit:
    """Check labels and put them beside their texts.

    Args:
        texts: n texts.
        labels: n classes.
        num_classes: how many there must be.
        where: what was read, for messages.

    Returns:
        The texts with their labels.

    Raises:
        UserError: a label is out of range, or a class has no text.
    """
    for row, label in enumerate(labels):
        if not 0 <= label < num_classes:
            raise UserError(
                f"{where}: row {row} has the label {label}; labels must lie between 0 and {num_classes - 1}"
            )
    absent = sorted(set(range(num_classes)) - set(labels))
    if absent:
        raise UserError(
            f"{where}: no text has the label {absent[0]}; every class from 0 to {num_classes - 1} must occur"
        )
    return TextSplit(tuple(texts), torch.tensor(labels, dtype=torch.int64))

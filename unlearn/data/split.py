"""Points on the device as one tensor, turned into network inputs a batch at a time."""

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from unlearn.data.augmentation import Augmentation, Draws, augment
from unlearn.data.text import TextData


@dataclass(frozen=True)
class Split:
    """Points with labels: the training or the test set.

    Attributes:
        inputs: raw values, uint8 images (n, channels, height, width), float features (n, d), or int64 token ids
            (n, length), which reach the network as they are.
        labels: class of each point, int64, shape (n,).
        mean: what is subtracted, in raw units; broadcasts over a batch of inputs. Not looked at for token ids.
        std: what is divided by, in raw units; broadcasts over a batch of inputs. Not looked at for token ids.
    """

    inputs: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> torch.Size:
        """The shape of one input."""
        return self.inputs.shape[1:]

    def to(self, device: torch.device) -> "Split":
        """Copy to a device.

        Args:
            device: where the training runs.

        Returns:
            The same points there.
        """
        return Split(*(t.to(device) for t in (self.inputs, self.labels, self.mean, self.std)))

    def take(self, indices: Tensor) -> "Split":
        """Keep some of the points.

        Args:
            indices: int64, shape (k,).

        Returns:
            A split of k points.
        """
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices])

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Prepare network inputs: augment where draws are given, then (raw - mean) / std.

        Args:
            indices: int64, shape (b,), on the device of the data.
            draws: crops and flips of *all* points of this split (a point's draw does not depend on its batch).

        Returns:
            Floating-point inputs, or token ids, shape (b, *shape).
        """
        raw = self.inputs[indices]
        if raw.dtype == torch.int64:  # token ids name rows of a table: neither crops nor scales mean anything
            return raw
        if draws is not None:
            raw = augment(raw, draws.take(indices))
        return (raw - self.mean) / self.std

    def fingerprint(self) -> str:
        """Hash inputs and labels.

        Returns:
            64 hexadecimal digits, the SHA-256 of the raw values, shapes included.
        """
        digest = hashlib.sha256()
        for part in (self.inputs, self.labels):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            # the array itself, not its bytes: features may be mapped from a file that is larger than memory
            digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Data:
    """A loaded data set.

    Attributes:
        train: D.
        test: held-out points.
        num_classes: how many classes labels may name.
    """

    train: Split
    test: Split
    num_classes: int

    def to(self, device: torch.device) -> "Data":
        """Copy both splits to a device.

        Args:
            device: where the training runs.

        Returns:
            The same data there.
        """
        return replace(self, train=self.train.to(device), test=self.test.to(device))


class Dataset(Protocol):
    """A choice of the config group `dataset`."""

    @property
    def name(self) -> str:
        """What the run's records call it."""
        ...

    @property
    def augment(self) -> Augmentation:
        """What may be drawn for a training point."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether `load` depends on its seed; where not, runs of several seeds share what it gave."""
        ...

    def load(self, seed: int) -> Data | TextData:
        """Read both parts; the seed chooses the points of `dataset.train_size`."""
        ...

"""scikit-learn's handwritten digits: small real images that come with the library, so nothing is downloaded."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits

from unlearn.data.augmentation import Augmentation
from unlearn.data.split import Data, Split
from unlearn.data.subset import subset
from unlearn.values.errors import at_least, choice

TRAIN_SIZE = 1440  # of 1,797


@dataclass(frozen=True)
class Digits:
    """1,797 grey images of 8 x 8 pixels with values 0..16, in ten classes.

    In the library's stored order the first 1,440 are for training and the last 357 for testing.

    Attributes:
        name: `digits`.
        train_size: how many training points to keep, drawn by seed; None keeps all 1,440.
        augmentation: the kind of `Augmentation`; images are padded by 1, an eighth of their width as for CIFAR.
    """

    name: str
    train_size: int | None
    augmentation: str

    def __post_init__(self) -> None:
        choice("dataset.name", self.name, ("digits",))
        at_least("dataset.train_size", self.train_size, 1)
        Augmentation(self.augmentation)

    @property
    def augment(self) -> Augmentation:
        """What may be drawn for a training image."""
        return Augmentation(self.augmentation, padding=1)

    @property
    def seeded(self) -> bool:
        """Whether the seed chooses points."""
        return self.train_size is not None

    def load(self, seed: int) -> Data:
        """Read the images.

        Args:
            seed: the run's seed; it chooses the points of `train_size`.

        Returns:
            Both parts: inputs uint8 (n, 1, 8, 8), labels int64; mean and std (1, 1, 1), taken over all pixels of the
            1,440 training images whatever `train_size` is.
        """
        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8)[:, None]  # (n, 8, 8) to (n, 1, 8, 8)
        labels = torch.from_numpy(digits.target).to(torch.int64)
        std, mean = torch.std_mean(images[:TRAIN_SIZE].double(), correction=0)
        mean, std = (value.float().reshape(1, 1, 1) for value in (mean, std))
        train = Split(images[:TRAIN_SIZE], labels[:TRAIN_SIZE], mean, std)
        test = Split(images[TRAIN_SIZE:], labels[TRAIN_SIZE:], mean, std)
        return Data(subset(train, self.train_size, seed), test, len(digits.target_names))

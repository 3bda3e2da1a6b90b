"""Random crops and flips of a whole batch, drawn for every point of the data set at once.

A point's crop in an epoch depends on the epoch and on the point alone. So M and M' see the same crop of the same image
whatever else is in their batches, and nothing needs to be remembered between steps.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearn.values.errors import choice


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of n points.

    Attributes:
        top: first row of the crop in the padded image, int64, shape (n,).
        left: first column of the crop, int64, shape (n,).
        flip: whether the image is mirrored, bool, shape (n,).
        padding: zero pixels added on each side before cropping.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    padding: int

    def take(self, indices: Tensor) -> "Draws":
        """Keep the draws of some points.

        Args:
            indices: int64, shape (b,).

        Returns:
            The draws of those points.
        """
        return Draws(self.top[indices], self.left[indices], self.flip[indices], self.padding)


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn.

    Attributes:
        kind: `none`, or `crop_flip`: pad, crop back to size, mirror every second image.
        padding: zero pixels on each side before cropping (4 for CIFAR).
    """

    kind: str = "none"
    padding: int = 4

    def __post_init__(self) -> None:
        choice("dataset.augmentation", self.kind, ("none", "crop_flip"))

    def draw(self, n: int, generator: torch.Generator, device: torch.device) -> Draws | None:
        """Draw for every point of a data set.

        Args:
            n: number of points.
            generator: a CPU generator, so that every device draws alike.
            device: where the draws are used.

        Returns:
            The draws, or None where there is nothing to augment.
        """
        if self.kind == "none":
            return None
        corner = torch.randint(2 * self.padding + 1, (2, n), generator=generator).to(device)
        flip = torch.randint(2, (n,), generator=generator).bool().to(device)
        return Draws(corner[0], corner[1], flip, self.padding)


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Pad with zeros, crop back to size, mirror.

    Args:
        images: shape (b, channels, height, width).
        draws: for these b images.

    Returns:
        Images of the same shape and type.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (draws.padding,) * 4)  # (b, c, h + 2p, w + 2p)
    rows = draws.top[:, None] + torch.arange(height, device=images.device)  # (b, h)
    across = torch.arange(width, device=images.device).expand(len(images), width)
    across = torch.where(draws.flip[:, None], width - 1 - across, across)
    columns = draws.left[:, None] + across  # (b, w)
    points = torch.arange(len(images), device=images.device)[:, None, None]
    # indices on dimensions 0, 2 and 3 put those first: (b, h, w, c)
    return padded[points, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()

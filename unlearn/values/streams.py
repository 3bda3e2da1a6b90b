"""Named, independent random streams.

Every draw in a run comes from a generator that is a pure function of (seed, stream name, keys). Drawing more from one
stream never moves another, and a run that is stopped can draw the same numbers again without having saved any state.
"""

import hashlib

import torch

STREAMS = (
    "init",  # initial weights
    "split",  # which points of a data set without a published split are for testing
    "subset",  # dataset.train_size
    "order",  # the batches of each epoch
    "augmentation",  # crops and flips of each epoch
    "dropout",  # masks of each step
    "forget",  # which points are forgotten
    "hessian",  # the samples that sigma is taken on
    "probe",  # start vectors of eigenvalue estimators
    "method",  # whatever an unlearning method draws
    "pretraining",  # splits into streams of its own
)


def seed_for(seed: int, stream: str, *keys: int) -> int:
    """Derive the seed of one stream.

    Args:
        seed: the run's seed.
        stream: one of `STREAMS`.
        keys: counters that split the stream further, such as the epoch.

    Returns:
        A 63-bit integer.

    Raises:
        ValueError: the stream is not one of `STREAMS`.

    >>> seed_for(0, "order", 1) == seed_for(0, "order", 2)
    False
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown random stream {stream!r}")
    text = "/".join(map(str, (seed, stream, *keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, stream: str, *keys: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Open one stream, on the CPU wherever its draws must be the same on every device.

    Args:
        seed: the run's seed.
        stream: one of `STREAMS`.
        keys: counters that split the stream further.
        device: of the generator.

    Returns:
        A freshly seeded generator.
    """
    return torch.Generator(device).manual_seed(seed_for(seed, stream, *keys))

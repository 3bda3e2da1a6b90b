"""What is benchmarked: one network, one data set, one schedule, as a list of overrides of the project's own config."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from unlearn.pipeline.config import composed
from unlearn.values.errors import UserError

COMMON = ("pretraining.epochs=0", "logger.mode=disabled", "figures=false", "measure.krylov=0")
# what the reference code does, but for sigma, which is ours: Lanczos, started from the step before
REFERENCE = (
    "conventions=faithful",
    "curvature=lanczos",
    "measure.sigma=largest_magnitude",
    "measure.every=1",
    "forget.position=0",
)


@dataclass(frozen=True)
class World:
    """A network and its data.

    Attributes:
        name: for the tables.
        overrides: of the config.
        threads: CPU threads.
        device: where it runs, as the config has it.
    """

    name: str
    overrides: tuple[str, ...]
    threads: int
    device: str = "cpu"

    def config(self, *more: str) -> DictConfig:
        """Compose its config."""
        return composed(*COMMON, f"device={self.device}", f"threads={self.threads}", *self.overrides, *more)


def digits(model: str, *more: str, device: str = "cpu") -> World:
    """Give a small network on the embedded digits; it is quickest on one thread."""
    return World(f"digits {model}", ("dataset=digits", "dataset.augmentation=none", f"model={model}", *more), 1, device)


def images(model: str, root: str, size: int, batch: int, threads: int, *more: str, device: str = "cpu") -> World:
    """Give a large network on images in CIFAR-10's layout."""
    return World(
        model,
        (
            f"model={model}",
            "dataset=cifar10",
            f"dataset.root={root}",
            "dataset.check_integrity=false",
            "dataset.download=false",
            "dataset.augmentation=none",
            f"dataset.train_size={size}",
            f"training.batch_size={batch}",
            *more,
        ),
        threads,
        device,
    )


def images_at(data: str, folder: Path, size: int) -> str:
    """Find the images, or make random ones in the same layout where none are given.

    Args:
        data: `synthetic`, or a folder that holds `cifar-10-batches-py`.
        folder: where random ones are written.
        size: how many are needed.

    Returns:
        A value for `dataset.root`.

    Raises:
        UserError: the folder holds no images.
    """
    if data != "synthetic":
        if not (Path(data) / "cifar-10-batches-py").is_dir():
            raise UserError(f"--data={data}: holds no folder cifar-10-batches-py; give one that does, or synthetic")
        return str(Path(data).resolve())  # the processes of the part step run in folders of their own
    root = folder / "cifar-10-batches-py"
    root.mkdir(parents=True)
    stream = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        count = -(-size // 5)
        entry = {
            "data": stream.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": stream.integers(0, 10, count).tolist(),
        }
        (root / name).write_bytes(pickle.dumps(entry))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    return str(folder)

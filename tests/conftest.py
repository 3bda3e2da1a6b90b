"""Composing configs in tests as the command line does."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from omegaconf import DictConfig

from unlearn.pipeline.config import composed as compose

torch.set_num_threads(1)  # the problems are tiny, and threads that wait for a busy core cost more than they bring
# everything of a run but what costs seconds
TINY = (
    "dataset.train_size=96",
    "pretraining.epochs=1",
    "training.epochs=2",
    "measure.hessian_samples=32",
    "logger.mode=disabled",
    "figures=false",
    "device=cpu",
    "threads=1",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def composed() -> Callable[..., DictConfig]:
    """Compose a config from overrides, without the store."""
    return partial(compose, "store.enabled=false")


@pytest.fixture
def tiny(composed) -> Callable[..., DictConfig]:
    """Compose a run of a second."""
    return lambda *overrides: composed(*TINY, *overrides)

"""Composing configs in tests as the command line does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from unlearn.pipeline.config import register

torch.set_num_threads(1)  # the problems are tiny, and threads that wait for a busy core cost more than they bring
CONF = Path(__file__).resolve().parents[1] / "conf"
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
    """Compose a config from overrides."""
    register()
    GlobalHydra.instance().clear()

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", ["store.enabled=false", *overrides])

    return make


@pytest.fixture
def tiny(composed) -> Callable[..., DictConfig]:
    """Compose a run of a second."""
    return lambda *overrides: composed(*TINY, *overrides)

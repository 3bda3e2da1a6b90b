"""The schema of the config: every leaf of every yaml belongs to a class here, or to the class its `_target_` names.

What each key means stands beside it in `conf/config.yaml` and `conf/conventions/corrected.yaml`.

This file imports neither torch nor anything that does, so that `--help` and `--cfg job` answer at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"


@dataclass
class Conventions:
    """Every place where paper, code and good practice differ; each choice of `conventions` sets them all.

    Other groups read their defaults from here, so a single leaf can be set in either place.
    """

    name: str = MISSING
    sigma: str = MISSING
    hessian_mode: str = MISSING
    hessian_samples_from: str = MISSING
    hessian_augmentation: str = MISSING
    headline_error: str = MISSING  # which unlearning error tables lead with
    gradient_at: str = MISSING
    correction: str = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING
    sd_normalisation: str = MISSING
    l2_detached: bool = MISSING
    eval_after_measuring: bool = MISSING  # M trains on in eval mode once it was measured
    pretraining_momentum: float = MISSING
    pretraining_weight_decay: float = MISSING
    pretraining_includes_forget: bool = MISSING
    retrain_start: str = MISSING
    order: str = MISSING
    forget_batch: str = MISSING
    augmentation: str = MISSING
    standardise: bool = MISSING


@dataclass
class Optimizer:
    """SGD of the recorded phase."""

    name: str = MISSING
    lr: float = MISSING
    decay: str = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING


@dataclass
class Pretraining:
    """The phase that gives w_0."""

    epochs: int = MISSING
    max_steps: int | None = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    decay: str = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING
    order: str = MISSING
    augmentation: str = MISSING
    includes_forget: bool = MISSING


@dataclass
class Training:
    """The recorded phase, in which M and M' train in step."""

    epochs: int = MISSING
    max_steps: int | None = MISSING
    batch_size: int = MISSING
    record: Any = MISSING  # auto, or a list
    checkpoint_every: int = MISSING
    save_weights: bool = MISSING


@dataclass
class ScheduleSettings:
    """Which points when."""

    order: str = MISSING
    forget_batch: str = MISSING
    drop_last: bool = MISSING
    augmentation: str = MISSING


@dataclass
class Retrain:
    """How M' differs from M."""

    start: str = MISSING  # pretrained: from M's w_0; initial: pretrained anew without the forget set
    renormalise: str = MISSING


@dataclass
class Warm:
    """How sigma starts from that of the step before."""

    enabled: bool = MISSING
    mix: float = MISSING
    recheck: int = MISSING


@dataclass
class Measure:
    """What is measured, and when."""

    every: int = MISSING
    hessian_samples: int = MISSING  # 0: no sigma
    hessian_chunk: int | None = MISSING
    hessian_kept: int = MISSING
    arithmetic: str = MISSING
    hessian_mode: str = MISSING
    hessian_samples_from: str = MISSING
    hessian_augmentation: str = MISSING
    sigma: str = MISSING
    warm: Warm = field(default_factory=Warm)
    krylov: int = MISSING  # products; 0: no forecast

    @property
    def forecasts(self) -> bool:
        """Whether v and the no-op distance are forecast."""
        return self.krylov > 0 and self.hessian_samples > 0


@dataclass
class StoreSettings:
    """What runs share on disk."""

    root: str = MISSING
    enabled: bool = MISSING
    trajectory_mb: float = MISSING


@dataclass
class Checkpoint:
    """How often a run keeps its state."""

    minutes: float = MISSING


@dataclass
class Config:
    """A run."""

    conventions: Conventions = field(default_factory=Conventions)
    dataset: Any = MISSING
    model: Any = MISSING
    optimizer: Optimizer = field(default_factory=Optimizer)
    pretraining: Pretraining = field(default_factory=Pretraining)
    training: Training = field(default_factory=Training)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    retrain: Retrain = field(default_factory=Retrain)
    forget: Any = MISSING
    penalty: Any = MISSING
    method: Any = MISSING
    curvature: Any = MISSING
    measure: Measure = field(default_factory=Measure)
    store: StoreSettings = field(default_factory=StoreSettings)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    logger: Any = MISSING
    seed: int = MISSING
    device: str = MISSING  # auto | cpu | cuda | cuda:1
    arithmetic: str = MISSING
    threads: int | None = MISSING
    figures: bool = MISSING

    @property
    def pretrains_apart(self) -> bool:
        """Whether M' starts from a pretraining of its own, one without the forget set."""
        sees_forget = self.pretraining.epochs > 0 and self.pretraining.includes_forget
        return sees_forget and self.retrain.start == "initial"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Give a config as nested dicts and lists, interpolations resolved.

    Args:
        cfg: composed, or a part of it.

    Returns:
        The same in plain types.
    """
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def register() -> None:
    """Tell Hydra of the schema, under the name that `conf/config.yaml` starts its defaults with."""
    ConfigStore.instance().store(name="schema", node=Config)


def composed(*overrides: str) -> DictConfig:
    """Compose a config as the command line does, for scripts and tests.

    Args:
        overrides: as the command line takes them.

    Returns:
        The config, without Hydra's own part.
    """
    register()
    GlobalHydra.instance().clear()  # of whoever composed before
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))

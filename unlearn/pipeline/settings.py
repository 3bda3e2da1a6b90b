"""What can be said of a config before any data is loaded: its keys, its values, and the parts that they describe."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from unlearn.curvature.estimators import Estimator
from unlearn.curvature.tracker import Warmth
from unlearn.data.forget import ForgetChoice
from unlearn.data.split import Dataset
from unlearn.log.wandb_sink import WandbSettings
from unlearn.methods.method import Method
from unlearn.metrics.weight_space import SIGMAS
from unlearn.models.spec import ModelSpec
from unlearn.penalties import Penalty
from unlearn.pipeline.build import build
from unlearn.pipeline.config import CONF, Config
from unlearn.train.arithmetic import ARITHMETICS
from unlearn.train.objective import AUGMENTS, RENORMALISE
from unlearn.train.recording import check_records
from unlearn.values.errors import UserError, above, at_least, choice, fraction
from unlearn.values.measurement import ERROR_KINDS
from unlearn.values.rates import DECAYS
from unlearn.values.schedule import ORDERS, PLACEMENTS

SHARED = frozenset({"initial_gradient", "updates", "visits"})  # what most methods need


@dataclass(frozen=True)
class Parts:
    """What the config groups describe, each built by its `_target_`.

    Attributes:
        dataset: loads the data.
        model: builds the network.
        penalty: added to the cross-entropy.
        forget: chooses the forget set.
        method: gives M''.
        curvature: finds sigma from nothing.
    """

    dataset: Dataset
    model: ModelSpec
    penalty: Penalty
    forget: ForgetChoice
    method: Method
    curvature: Estimator


GROUPS = tuple(part.name for part in fields(Parts))


@dataclass(frozen=True)
class Settings:
    """A config that was checked as far as it can be without data and device.

    Attributes:
        config: as plain types in a schema.
        parts: of the run.
        logger: settings of W&B.
        records: what training keeps.
    """

    config: Config
    parts: Parts
    logger: WandbSettings
    records: frozenset[str]


def read_settings(cfg: DictConfig, make: Callable[[Any, str], Any] = build) -> Settings:
    """Check a config.

    Args:
        cfg: composed.
        make: makes a part, as `build` does it.

    Returns:
        The settings and parts.

    Raises:
        UserError: a key is unknown, or a value is wrong.
    """
    refuse_unknown(cfg, Config)
    unset = sorted(OmegaConf.missing_keys(cfg))
    if unset:
        raise UserError(f"{unset[0]}: must be set")
    config = cast(Config, OmegaConf.to_object(cfg))
    parts = Parts(**{key: make(cfg[key], key) for key in GROUPS})
    logger = make(cfg.logger, "logger")
    _check(config)
    records = _records(cfg.training.record, parts.method, shared=config.store.enabled)
    if config.measure.forecasts:
        records |= {"carried"}
    return Settings(config, parts, logger, records)


def refuse_labels(overrides: Sequence[str], choices: Mapping[str, str | None]) -> None:
    """Refuse `method.name=krylov` and the like, which would label a run as what it is not.

    Args:
        overrides: as the user wrote them, each of one value.
        choices: by group, the file that was chosen.

    Raises:
        UserError: a name is that of another choice of its group.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        group, _, leaf = key.lstrip("+").partition(".")
        other = value.strip("'\"")
        named = leaf == "name" and group in (*GROUPS, "optimizer", "conventions")
        if named and other != choices.get(group) and (CONF / group / f"{other}.yaml").is_file():
            raise UserError(f"{key}={other}: is a label, and changes nothing else; choose with {group}={other}")


def refuse_unknown(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse keys that the schema does not have; Hydra lets `+key=value` add any.

    Args:
        cfg: the composed config, or a part of it.
        schema: its dataclass.
        prefix: where the part stands in the config.

    Raises:
        UserError: a key is unknown, or one is not there, which `~key` takes out.
    """
    known = {f.name: f.type for f in fields(schema)}
    for name in known:
        if name not in cfg:
            raise UserError(f"{prefix}{name}: must be set")
    for key in cfg:
        if key not in known:
            raise UserError(f"{prefix}{key!s}: there is no such setting; there are {', '.join(known)}")
        kind = known[str(key)]
        if isinstance(kind, type) and is_dataclass(kind):
            refuse_unknown(cfg[key], kind, f"{prefix}{key}.")


def _check(config: Config) -> None:
    for key, phase in (("pretraining", config.pretraining), ("training", config.training)):
        at_least(f"{key}.epochs", phase.epochs, 0 if key == "pretraining" else 1)
        at_least(f"{key}.batch_size", phase.batch_size, 1)
        at_least(f"{key}.max_steps", phase.max_steps, 1)
    for key, settings in (("pretraining", config.pretraining), ("optimizer", config.optimizer)):
        fraction(f"{key}.momentum", settings.momentum)
        at_least(f"{key}.weight_decay", settings.weight_decay, 0)
        above(f"{key}.lr", settings.lr, 0)
        choice(f"{key}.decay", settings.decay, DECAYS)
    at_least("training.checkpoint_every", config.training.checkpoint_every, 1)
    at_least("threads", config.threads, 1)
    at_least("measure.every", config.measure.every, 1)
    at_least("measure.hessian_samples", config.measure.hessian_samples, 0)
    at_least("measure.hessian_chunk", config.measure.hessian_chunk, 1)
    at_least("measure.hessian_kept", config.measure.hessian_kept, 0)
    at_least("measure.krylov", config.measure.krylov, 0)
    if config.measure.krylov == 1:
        raise UserError("measure.krylov=1: one product gives no error; choose 0 (no forecast) or at least 2")
    if config.store.trajectory_mb != math.inf:
        at_least("store.trajectory_mb", config.store.trajectory_mb, 0)
    above("checkpoint.minutes", config.checkpoint.minutes, 0)
    choice("measure.hessian_mode", config.measure.hessian_mode, ("train", "eval"))
    choice("measure.hessian_samples_from", config.measure.hessian_samples_from, ("random", "first"))
    choice("measure.hessian_augmentation", config.measure.hessian_augmentation, ("off", "once"))
    choice("measure.sigma", config.measure.sigma, SIGMAS)
    choice("conventions.headline_error", config.conventions.headline_error, ERROR_KINDS)
    choice("arithmetic", config.arithmetic, ARITHMETICS)
    choice("measure.arithmetic", config.measure.arithmetic, ("float32", "tf32"))
    choice("schedule.forget_batch", config.schedule.forget_batch, PLACEMENTS)
    for key, draws in (("pretraining", config.pretraining), ("schedule", config.schedule)):
        choice(f"{key}.order", draws.order, ORDERS)
        choice(f"{key}.augmentation", draws.augmentation, AUGMENTS)
    choice("retrain.renormalise", config.retrain.renormalise, RENORMALISE)
    Warmth(**vars(config.measure.warm))
    choice("retrain.start", config.retrain.start, ("pretrained", "initial"))
    if config.pretrains_apart and config.measure.forecasts:
        raise UserError(
            "retrain.start=initial: M' starts elsewhere than M, unknown to the forecast; set measure.krylov=0"
        )


def _records(asked: Any, method: Method, *, shared: bool) -> frozenset[str]:
    if asked == "auto":
        # of points at most three gradients a visit in the first pass and one later, two of them not for the forecast;
        # so other methods can share the trained pair
        return method.needs | (SHARED if shared else frozenset())
    if not isinstance(asked, ListConfig) or not all(isinstance(name, str) for name in asked):
        raise UserError(f"training.record={asked}: must be auto or a list such as [initial_gradient,updates]")
    records = frozenset(asked)
    check_records(records)
    lacking = sorted(method.needs - records)
    if lacking:
        raise UserError(f"training.record: method={method.name} needs {lacking[0]}; add it to the list, or use auto")
    return records

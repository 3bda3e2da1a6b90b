"""Everything that can be wrong with a run is found here, before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from unlearn.curvature.tracker import Tracker, Warmth
from unlearn.data.forget import Context, Forget
from unlearn.data.split import Data
from unlearn.log.wandb_sink import WandbSettings
from unlearn.methods.method import Method
from unlearn.models.network import Network
from unlearn.pipeline.build import build
from unlearn.pipeline.config import Config, Store
from unlearn.pipeline.encode import encode
from unlearn.train.arithmetic import check_arithmetic, memory_format
from unlearn.train.hessian import Sample, chunk_for, sample_points
from unlearn.train.learner import Momentum
from unlearn.train.loop import Recipe
from unlearn.train.objective import Objective
from unlearn.train.recording import check_records
from unlearn.values.errors import UserError, above, at_least, choice, fraction
from unlearn.values.rates import LearningRate
from unlearn.values.schedule import Schedule
from unlearn.values.streams import generator, seed_for

SHARED = frozenset({"initial_gradient", "updates", "visits"})  # what most methods need


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start.

    Attributes:
        config: the resolved config, as plain types in a schema.
        names: the chosen dataset, model, penalty, forget set and method.
        device: where it runs.
        data: on the device.
        forget: the forget set.
        pretraining: recipe of the phase that gives w_0, or None.
        recorded: recipe of the phase in which M and M' train in step.
        method: the unlearning method.
        records: what training keeps.
        tracker: of sigma.
        sample: where curvature is looked at.
        logger: settings of W&B.
    """

    config: Config
    names: dict[str, str]
    device: torch.device
    data: Data
    forget: Forget
    pretraining: Recipe | None
    recorded: Recipe
    method: Method
    records: frozenset[str]
    tracker: Tracker
    sample: Sample
    logger: WandbSettings

    @property
    def network(self) -> Network:
        """The network that all models share."""
        return self.recorded.objective.network


def prepare(cfg: DictConfig, data: Data | None = None, make: Callable[[Any, str], Any] = build) -> Prepared:
    """Build all parts of a run and check them against each other.

    Args:
        cfg: the composed config.
        data: what `dataset` would load, where that is there already.
        make: makes a part, as `build` does it.

    Returns:
        The run, ready to start.

    Raises:
        UserError: a setting is wrong, or two do not fit together.
    """
    refuse_unknown(cfg, Config)
    unset = sorted(OmegaConf.missing_keys(cfg))
    if unset:
        raise UserError(f"{unset[0]}: must be set")
    config = cast(Config, OmegaConf.to_object(cfg))
    parts = {key: make(cfg[key], key) for key in ("dataset", "model", "penalty", "forget", "method", "curvature")}
    logger = make(cfg.logger, "logger")
    _check(config)
    records = _records(cfg.training.record, parts["method"], shared=config.store.enabled)
    if config.measure.krylov and config.measure.hessian_samples:
        records |= {"carried"}
    device = pick_device(config.device)
    check_arithmetic("arithmetic", config.arithmetic, device)
    check_arithmetic("measure.arithmetic", config.measure.arithmetic, device, ("float32", "tf32"))
    if data is None:
        loaded = parts["dataset"].load(config.seed)
        data = encode(loaded, parts["dataset"].name, parts["model"], feature_folder(config.store), device)
    for key, phase in (("pretraining", config.pretraining), ("training", config.training)):
        if not 1 <= phase.batch_size <= len(data.train):
            limits = f"must lie between 1 and the {len(data.train)} training points"
            raise UserError(f"{key}.batch_size={phase.batch_size}: {limits}")
    context = Context(
        data.train.labels, config.training.batch_size, config.schedule.order, config.schedule.drop_last, config.seed
    )
    forget = parts["forget"].select(context)
    schedule = _schedule(config, forget, len(data.train))
    module = parts["model"].build(data.train.shape, data.num_classes, config.seed)
    data = data.to(device)
    objective = Objective(
        Network.of(module.to(device, memory_format=memory_format(config.arithmetic, device))),
        data.train,
        parts["penalty"],
        parts["dataset"].augment,
        config.schedule.augmentation,
        config.retrain.renormalise,
        config.seed,
        config.arithmetic,
    )
    optimizer = config.optimizer
    return Prepared(
        config=config,
        names={key: parts[key].name for key in ("dataset", "model", "penalty", "forget", "method")},
        device=device,
        data=data,
        forget=forget,
        pretraining=_pretraining(config, objective, forget),
        recorded=Recipe(
            objective,
            schedule,
            LearningRate(optimizer.lr, optimizer.decay, schedule.total_steps),
            Momentum(optimizer.momentum, optimizer.weight_decay),
        ),
        method=parts["method"],
        records=records,
        tracker=Tracker(parts["curvature"], Warmth(**vars(config.measure.warm))),
        sample=_sample(config, len(data.train), objective.network.layout.dim, device),
        logger=logger,
    )


def refuse_unknown(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Refuse keys that the schema does not have; Hydra lets `+key=value` add any.

    Args:
        cfg: the composed config, or a part of it.
        schema: its dataclass.
        prefix: where the part stands in the config.

    Raises:
        UserError: a key is unknown.
    """
    known = {f.name: f.type for f in fields(schema)}
    for key in cfg:
        if key not in known:
            raise UserError(f"{prefix}{key!s}: there is no such setting; there are {', '.join(known)}")
        kind = known[str(key)]
        if isinstance(kind, type) and is_dataclass(kind):
            refuse_unknown(cfg[key], kind, f"{prefix}{key}.")


def pick_device(name: str) -> torch.device:
    """Choose where to compute.

    Args:
        name: `auto` takes CUDA where there is one; otherwise a device of torch's.

    Returns:
        The device.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch sees {torch.cuda.device_count()} CUDA devices here; try device=cpu")
    return device


def feature_folder(store: Store) -> Path | None:
    """Say where features of texts are kept.

    Args:
        store: its settings.

    Returns:
        The folder, or None where nothing is kept.
    """
    return Path(store.root).expanduser() / "features" if store.enabled else None


def _check(config: Config) -> None:
    for key, phase in (("pretraining", config.pretraining), ("training", config.training)):
        at_least(f"{key}.epochs", phase.epochs, 0 if key == "pretraining" else 1)
        if phase.max_steps is not None:
            at_least(f"{key}.max_steps", phase.max_steps, 1)
    for key, settings in (("pretraining", config.pretraining), ("optimizer", config.optimizer)):
        fraction(f"{key}.momentum", settings.momentum)
        at_least(f"{key}.weight_decay", settings.weight_decay, 0)
        _named(f"{key}.lr", settings.lr, settings.decay)
    at_least("training.checkpoint_every", config.training.checkpoint_every, 1)
    if config.threads is not None:
        at_least("threads", config.threads, 1)
    at_least("measure.every", config.measure.every, 1)
    at_least("measure.hessian_samples", config.measure.hessian_samples, 0)
    if config.measure.hessian_chunk is not None:
        at_least("measure.hessian_chunk", config.measure.hessian_chunk, 1)
    at_least("measure.krylov", config.measure.krylov, 0)
    at_least("store.trajectory_mb", config.store.trajectory_mb, 0)
    above("checkpoint.minutes", config.checkpoint.minutes, 0)
    choice("measure.hessian_mode", config.measure.hessian_mode, ("train", "eval"))
    choice("measure.hessian_samples_from", config.measure.hessian_samples_from, ("random", "first"))
    choice("measure.sigma", config.measure.sigma, ("largest_magnitude", "sqrt_signed"))
    choice(
        "conventions.headline_error",
        config.conventions.headline_error,
        ("paper", "code", "code_mean", "unrolled", "krylov"),
    )
    choice("retrain.start", config.retrain.start, ("pretrained", "initial"))


def _named(key: str, lr: float, decay: str) -> None:
    try:
        LearningRate(lr, decay)
    except UserError as error:
        raise UserError(f"{key.rpartition('.')[0]}.{error}") from None


def _records(asked: Any, method: Method, *, shared: bool) -> frozenset[str]:
    if asked == "auto":
        # next to nothing more, and other methods can share the trained pair
        return method.needs | (SHARED if shared else frozenset())
    if not isinstance(asked, ListConfig) or not all(isinstance(name, str) for name in asked):
        raise UserError(f"training.record={asked}: must be auto or a list such as [initial_gradient,updates]")
    records = frozenset(asked)
    check_records(records)
    lacking = sorted(method.needs - records)
    if lacking:
        raise UserError(f"training.record: method={method.name} needs {lacking[0]}; add it to the list, or use auto")
    return records


def _schedule(config: Config, forget: Forget, size: int) -> Schedule:
    training, order = config.training, config.schedule
    return Schedule(
        size=size,
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=config.seed,
        order=order.order,
        placement=order.forget_batch,
        drop_last=order.drop_last,
        forget=forget.indices,
        unit=forget.unit,
        max_steps=training.max_steps,
    )


def _pretraining(config: Config, objective: Objective, forget: Forget) -> Recipe | None:
    settings = config.pretraining
    if settings.epochs == 0:
        return None
    size = len(objective.split)
    # streams of its own: the recorded phase draws the same numbers whatever came before it
    seed = seed_for(config.seed, "pretraining")
    schedule = Schedule(
        size=size,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
        order=config.schedule.order,
        drop_last=config.schedule.drop_last,
        forget=forget.indices,
        max_steps=settings.max_steps,
    )
    return Recipe(
        replace(objective, renormalise="remaining", seed=seed),
        schedule,
        LearningRate(settings.lr, settings.decay, schedule.total_steps),
        Momentum(settings.momentum, settings.weight_decay),
    )


def _sample(config: Config, size: int, dim: int, device: torch.device) -> Sample:
    measure = config.measure
    chunk = chunk_for(dim, measure.hessian_chunk, device)
    drawn = generator(config.seed, "hessian") if measure.hessian_samples_from == "random" else None
    points = sample_points(size, measure.hessian_samples, drawn)
    return Sample(points.to(device), measure.hessian_mode == "train", config.training.batch_size, chunk)

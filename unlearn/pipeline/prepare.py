"""Everything that can be wrong with a run is found here, before anything is written."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from unlearn.curvature.estimators import Dense
from unlearn.curvature.tracker import Tracker, Warmth
from unlearn.data.forget import Context, ForgetSet
from unlearn.data.split import Data
from unlearn.log.wandb_sink import WandbSettings
from unlearn.methods.method import Method
from unlearn.models.network import Network
from unlearn.models.spec import ModelSpec
from unlearn.pipeline.build import build
from unlearn.pipeline.config import Config, StoreSettings
from unlearn.pipeline.device import available_threads, pick_device
from unlearn.pipeline.encode import encode
from unlearn.pipeline.settings import read_settings
from unlearn.train.arithmetic import check_arithmetic, memory_format
from unlearn.train.hessian import Sample, chunk_for, sample_points
from unlearn.train.learner import SGD, Learner
from unlearn.train.loop import Recipe
from unlearn.train.objective import Objective
from unlearn.train.recording import Recording, Trained
from unlearn.values.errors import UserError, first_line
from unlearn.values.rates import LearningRate
from unlearn.values.schedule import Schedule
from unlearn.values.streams import generator, seed_for

logger = logging.getLogger(__name__)
DENSE = 20_000  # weights, whose Hessian takes 1.6 GB in float32; looking for its eigenpairs takes some four times that


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start.

    Attributes:
        config: the resolved config, as plain types in a schema.
        names: the chosen dataset, model, penalty, forget set and method.
        device: where it runs.
        data: on the device.
        model: the network's settings.
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
    model: ModelSpec
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

    @property
    def looks(self) -> int:
        """How many steps are measured."""
        return math.ceil(self.recorded.schedule.total_steps / self.config.measure.every)

    def is_measured(self, taken: int) -> bool:
        """Say whether a step is measured: every so many, and the last.

        Args:
            taken: steps taken, that one among them.

        Returns:
            Whether it is.
        """
        return taken % self.config.measure.every == 0 or taken == self.recorded.schedule.total_steps

    def begin(self, original: Learner, retrained: Learner) -> Trained:
        """Begin the recorded phase.

        Args:
            original: M at w_0.
            retrained: M' at its start.

        Returns:
            Both, and a recording of nothing.
        """
        every = self.config.training.checkpoint_every
        recording = Recording.start(self.recorded, original, self.records, every)
        return Trained(self.recorded, original, retrained, recording, self.config.seed)


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
    settings = read_settings(cfg, make)
    config, parts = settings.config, settings.parts
    device = pick_device(config.device)
    check_arithmetic("arithmetic", config.arithmetic, device)
    check_arithmetic("measure.arithmetic", config.measure.arithmetic, device, ("float32", "tf32"))
    if data is None:
        loaded = parts.dataset.load(config.seed)
        store, threads = feature_folder(config.store), config.threads or available_threads()
        data = encode(loaded, parts.dataset.name, parts.model, store, device, threads)
    for key, phase in (("pretraining", config.pretraining), ("training", config.training)):
        if phase.epochs and not 1 <= phase.batch_size <= len(data.train):
            limits = f"must lie between 1 and the {len(data.train)} training points"
            raise UserError(f"{key}.batch_size={phase.batch_size}: {limits}")
    context = Context(
        data.train.labels, config.training.batch_size, config.schedule.order, config.schedule.drop_last, config.seed
    )
    forget = parts.forget.select(context)
    schedule = _schedule(config, forget, len(data.train))
    if forget.indices and not any(batch.is_visit for batch in schedule.batches()):
        told = "no forgotten point is in the %d recorded steps (max_steps, drop_last): M' takes every step that M takes"
        logger.warning(told, schedule.total_steps)
    if parts.model.weights is not None and config.pretraining.epochs:
        logger.warning("model.weights: pretraining goes on from there; pretraining.epochs=0 makes the file w_0")
    module = parts.model.build(data.train.shape, data.num_classes, config.seed)
    data = data.to(device)
    objective = Objective(
        Network.of(module.to(device).to(memory_format=memory_format(config.arithmetic, device))),
        data.train,
        parts.penalty,
        parts.dataset.augment,
        config.schedule.augmentation,
        config.retrain.renormalise,
        config.seed,
        config.arithmetic,
    )
    pretraining, sample = _pretraining(config, objective, forget), _sample(config, objective)
    schedules = {"training.batch_size": schedule}
    if pretraining is not None:
        schedules["pretraining.batch_size"] = pretraining.schedule
    _check_batches_of_one(objective, sample, schedules)
    dim = objective.network.layout.dim
    if isinstance(parts.curvature, Dense) and dim > DENSE and config.measure.hessian_samples:
        raise UserError(f"curvature=dense: writes out a matrix of {dim} x {dim}; up to {DENSE} weights, else lanczos")
    modes = config.conventions.eval_after_measuring and (objective.drops or objective.network.initial_buffers())
    if modes and config.measure.forecasts:
        raise UserError(
            "conventions.eval_after_measuring=true: M trains on in another mode than M', unknown to the forecast; "
            "set measure.krylov=0"
        )
    optimizer = config.optimizer
    return Prepared(
        config=config,
        names={key: getattr(parts, key).name for key in ("dataset", "model", "penalty", "forget", "method")},
        device=device,
        data=data,
        model=parts.model,
        pretraining=pretraining,
        recorded=Recipe(
            objective,
            schedule,
            LearningRate(optimizer.lr, optimizer.decay, schedule.total_steps),
            SGD(optimizer.momentum, optimizer.weight_decay),
        ),
        method=parts.method,
        records=settings.records,
        tracker=Tracker(parts.curvature, Warmth(**vars(config.measure.warm))),
        sample=sample,
        logger=settings.logger,
    )


def feature_folder(store: StoreSettings) -> Path | None:
    """Say where features of texts are kept.

    Args:
        store: its settings.

    Returns:
        The folder, or None where nothing is kept.
    """
    return Path(store.root).expanduser() / "features" if store.enabled else None


def _schedule(config: Config, forget: ForgetSet, size: int) -> Schedule:
    training, settings = config.training, config.schedule
    return Schedule(
        size=size,
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=config.seed,
        order=settings.order,
        placement=settings.forget_batch,
        drop_last=settings.drop_last,
        forget=forget.indices,
        unit=forget.unit,
        max_steps=training.max_steps,
    )


def _pretraining(config: Config, objective: Objective, forget: ForgetSet) -> Recipe | None:
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
        order=settings.order,
        drop_last=config.schedule.drop_last,
        forget=forget.indices,
        max_steps=settings.max_steps,
    )
    # apart, M' too takes batches with points taken out; else all models see the same ones
    renormalise = config.retrain.renormalise if config.pretrains_apart else "remaining"
    return Recipe(
        replace(objective, augment=settings.augmentation, renormalise=renormalise, seed=seed),
        schedule,
        LearningRate(settings.lr, settings.decay, schedule.total_steps),
        SGD(settings.momentum, settings.weight_decay),
    )


def _check_batches_of_one(objective: Objective, sample: Sample, schedules: Mapping[str, Schedule]) -> None:
    """Refuse a batch of one point where BatchNorm would have no statistics of it."""
    one = objective.split.batch(torch.zeros(1, dtype=torch.int64, device=objective.split.labels.device))
    network = objective.network
    try:
        network.logits(network.initial_weights(), network.initial_buffers(), one, train=True)
        return  # there is none, or an image leaves it many values
    except ValueError as error:
        reason = first_line(error)
    found = [
        key
        for key, schedule in schedules.items()
        if any(1 in (len(batch.indices), len(batch.kept)) for batch in schedule.batches())
    ]
    if sample.train_mode and len(sample.points) % sample.batch_size == 1:
        found.append("measure.hessian_samples")
    if found:
        told = "leaves a batch of one point, of which BatchNorm has no statistics"
        advice = "choose another number" + (", or schedule.drop_last=true" if "batch_size" in found[0] else "")
        raise UserError(f"{found[0]}: {told} ({reason}); {advice}")


def _sample(config: Config, objective: Objective) -> Sample:
    measure, device = config.measure, objective.split.labels.device
    chunk = chunk_for(objective.network.layout.dim, measure.hessian_chunk, device)
    drawn = generator(config.seed, "hessian") if measure.hessian_samples_from == "random" else None
    points = sample_points(len(objective.split), measure.hessian_samples, drawn)
    draws = objective.draws(0) if measure.hessian_augmentation == "once" else None
    train, size = measure.hessian_mode == "train", config.training.batch_size
    return Sample(points.to(device), train, size, chunk, draws, measure.hessian_kept)

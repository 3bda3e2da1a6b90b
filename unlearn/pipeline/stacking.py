"""Which points of a sweep can share a computation (`unlearn/pipeline/fused.py`), and which cannot, and why."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unlearn.curvature.estimators import Lanczos
from unlearn.data.split import Data
from unlearn.pipeline.build import build
from unlearn.pipeline.conclude import Ended, Outcome
from unlearn.pipeline.config import plain
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.train.hessian import SMALL
from unlearn.values.errors import Diverged, at_least
from unlearn.values.nested import without
from unlearn.values.neutral import NEUTRAL

# in what the points of one stack may differ; all else must be equal
FREE = (
    "seed",
    "method",
    "forget",
    "optimizer",
    *NEUTRAL,
    "conventions",  # other keys have taken what they need from it
    "penalty.gamma",
    "pretraining.lr",
    "pretraining.decay",
    "pretraining.momentum",
    "pretraining.weight_decay",
    "pretraining.order",
    "pretraining.augmentation",
    "schedule.order",
    "schedule.forget_batch",
    "schedule.augmentation",
    "training.record",
    "training.checkpoint_every",
    "training.save_weights",
)


@dataclass
class StackedRun:
    """One run of a stack: a point of the sweep.

    Attributes:
        cfg: its composed config.
        settings: the same, resolved, in plain types.
        prepared: ready to start.
        outcome: its rows, and its share of the seconds.
        error: why it stopped early, or None.
        ended: its models when it is computed; None before, and where it stopped early.
    """

    cfg: DictConfig
    settings: dict[str, Any]
    prepared: Prepared
    outcome: Outcome
    error: Diverged | None = None
    ended: Ended | None = None


def why_not(prepared: Prepared) -> str | None:
    """Say why a run cannot be stacked with others.

    Args:
        prepared: the run.

    Returns:
        Half a sentence, or None where it can.
    """
    network, objective = prepared.network, prepared.recorded.objective
    if prepared.config.arithmetic != "float32":
        return f"it trains in {prepared.config.arithmetic}, stacks in float32"
    if prepared.device.type != "cpu":
        return f"it runs on {prepared.device}, stacks on the CPU"
    if network.initial_buffers():
        return "its network has buffers (BatchNorm), which a stack does not keep"
    if objective.drops:
        return "its network has dropout"
    if network.layout.dim >= SMALL:
        return f"its network has {network.layout.dim} weights; from {SMALL} on a stack brings nothing"
    if objective.draws(0) is not None:
        return "its inputs are augmented"
    if prepared.pretraining is not None and prepared.pretraining.objective.draws(0) is not None:
        return "its inputs are augmented in pretraining"
    if len(prepared.sample.points) and not isinstance(prepared.tracker.estimator, Lanczos):
        return "curvature is not lanczos"
    return None


def stack_key(settings: dict[str, Any], prepared: Prepared) -> str:
    """Name what a point must share with others to be stacked with them.

    Args:
        settings: its config, resolved, in plain types.
        prepared: the run.

    Returns:
        Equal for two points exactly when they can share a stack.
    """
    free = [key for key in FREE if key != "forget" or not settings["schedule"]["drop_last"]]  # a batch less there
    size = len(prepared.data.train), prepared.recorded.schedule.total_steps
    kind = type(prepared.recorded.objective.penalty).__name__
    return json.dumps([without(settings, free), kind, size], sort_keys=True)


def stacks(configs: Sequence[DictConfig], most: int) -> tuple[list[dict[int, StackedRun]], dict[int, str]]:
    """Sort the points of a sweep into stacks. Data that several would load is loaded once.

    Args:
        configs: composed, one a point; they are resolved in place.
        most: the most points of one stack.

    Returns:
        Stacks of two points or more, by their place in `configs`; and why each of the others is in none.

    Raises:
        UserError: `most` is too small.
    """
    at_least("hydra.launcher.most", most, 2)
    loaded: dict[str, Data] = {}
    make = _remembered()
    reasons: dict[int, str] = {}
    groups: dict[str, dict[int, StackedRun]] = {}
    for place, cfg in enumerate(configs):
        outcome = Outcome()
        try:
            with outcome.seconds("prepare"):
                OmegaConf.resolve(cfg)
                settings = plain(cfg)
                seed = cfg.seed if make(cfg.dataset, "dataset").seeded else None
                # texts are loaded as what the model makes of them
                data = json.dumps([settings["dataset"], settings["model"], seed, settings["device"]])
                prepared = prepare(cfg, loaded.get(data), make)
        except Exception:  # whatever it is; alone, the run says it
            reasons[place] = "it cannot be prepared"
            continue
        reason = why_not(prepared)
        if reason is not None:
            reasons[place] = reason
            continue
        loaded.setdefault(data, prepared.data)
        groups.setdefault(stack_key(settings, prepared), {})[place] = StackedRun(cfg, settings, prepared, outcome)
    found = []
    for group in groups.values():
        places = list(group)
        pieces = -(-len(places) // most)
        for piece in range(pieces):
            stack = {place: group[place] for place in places[piece::pieces]}
            if len(stack) > 1:
                found.append(stack)
            else:
                reasons[places[piece]] = "no other point shares its data, network, lengths and measuring"
    return found, reasons


def _remembered() -> Callable[[Any, str], Any]:
    """Make parts as `build` does, equal ones once: they are values."""
    known: dict[str, Any] = {}

    def make(node: Any, key: str) -> Any:
        text = json.dumps([key, OmegaConf.to_container(node) if isinstance(node, DictConfig) else None])
        if text not in known:
            known[text] = build(node, key)
        return known[text]

    return make

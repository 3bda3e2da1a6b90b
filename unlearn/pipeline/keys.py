"""What determines a stage of a run, so that runs which agree on it share it, and runs which do not never do."""

import hashlib
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from unlearn.models.text_finetune import TextFinetune
from unlearn.pipeline.prepare import Prepared
from unlearn.store.code import code_version, source_of
from unlearn.store.entries import key_of
from unlearn.train.loop import Recipe
from unlearn.values.nested import without
from unlearn.values.neutral import NEUTRAL

TRAINING = (
    "values",
    "data",
    "models",
    "penalties.py",
    "curvature",
    "train",
    "metrics",
    "pipeline/config.py",
    "pipeline/device.py",
    "pipeline/numerics.py",
    "pipeline/prepare.py",
    "pipeline/encode.py",
    "pipeline/stages.py",
    "pipeline/phase.py",
    "pipeline/measure.py",
)


# hashed here, once the code is loaded: a process keeps what it started with, though files may change while it runs
CODE, METHODS = code_version(TRAINING), code_version(("methods",))


def initial(prepared: Prepared) -> dict[str, Any]:
    """Say what determines w_0.

    Args:
        prepared: the run.

    Returns:
        JSON-ready values. Of the forget set only what pretraining leaves out is among them.
    """
    recipe, config = prepared.pretraining, prepared.config
    ignores_forget = config.pretraining.includes_forget and config.retrain.start != "initial"
    return {
        "stage": "initial",
        "code": CODE,
        "device": _device(prepared),
        "network": _network(prepared),
        "data": prepared.data.train.fingerprint(),
        "scale": _digest(prepared.data.train.mean, prepared.data.train.std),
        "penalty": _part(prepared.recorded.objective.penalty),
        "phase": None if recipe is None else _phase(recipe, ignores_forget),
        "start": config.retrain.start if config.pretraining.includes_forget else None,
    }


def pair(prepared: Prepared) -> dict[str, Any]:
    """Say what determines the trained pair and what was measured of it.

    Args:
        prepared: the run.

    Returns:
        JSON-ready values. The method is among them only where it is judged while training goes on and the network is
        too large to keep what another method would need for that.
    """
    config = prepared.config
    own = prepared.method.online and not keeps_views(prepared)
    return {
        "stage": "pair",
        "initial": key_of(initial(prepared)),
        "phase": _phase(prepared.recorded, False),
        "seed": config.seed,
        "records": sorted(prepared.records),
        "checkpoint_every": config.training.checkpoint_every if "checkpoint_gradients" in prepared.records else None,
        "measure": without(asdict(config.measure), NEUTRAL, "measure."),
        "curvature": _part(prepared.tracker.estimator),
        "eval_after_measuring": config.conventions.eval_after_measuring,
        "views": keeps_views(prepared),
        "method": [_part(prepared.method), METHODS] if own else None,
    }


def unlearned(prepared: Prepared) -> dict[str, Any]:
    """Say what determines M''.

    Args:
        prepared: the run.

    Returns:
        JSON-ready values.
    """
    return {
        "stage": "unlearned",
        "pair": key_of(pair(prepared)),
        "method": _part(prepared.method),
        "code": METHODS,
    }


def keeps_views(prepared: Prepared) -> bool:
    """Say whether M and M' are kept at every measured step, for methods to be judged by there.

    Args:
        prepared: the run.

    Returns:
        Whether weights, velocities and forecast of all measured steps fit `store.trajectory_mb`.
    """
    # weights, velocity, gradient and what decay adds to it, of two models; the forecast's weights, d, u and y; two
    # groups of visits
    size = prepared.looks * 14 * prepared.network.layout.dim * prepared.network.initial_weights().element_size()
    return size <= prepared.config.store.trajectory_mb * 1e6


def _phase(recipe: Recipe, ignores_forget: bool) -> dict[str, Any]:
    schedule = asdict(recipe.schedule)
    if ignores_forget:
        schedule |= {"forget": None, "unit": None}
    objective = recipe.objective
    return {
        "schedule": schedule,
        "rate": asdict(recipe.rate),
        "optimizer": asdict(recipe.optimizer),
        "augmentation": _part(objective.augmentation),
        "augment": objective.augment,
        "renormalise": objective.renormalise,
        "seed": objective.seed,
        "arithmetic": objective.arithmetic,
    }


def _part(part: Any) -> dict[str, Any]:
    kind: type = type(part)
    source = source_of(kind)
    own = {} if source is None else {"source": source}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **own, **asdict(part)}


def _network(prepared: Prepared) -> dict[str, Any]:
    network = prepared.network
    # weights tell a file's content, not its name; nor do they tell all that a setting may change
    settings = {name: value for name, value in _part(prepared.model).items() if name != "weights"}
    encoder = None
    if isinstance(prepared.model, TextFinetune):  # the number of heads, say, shows nowhere else
        encoder = (prepared.model.folder() / "config.json").read_text()
    return {"settings": settings, "module": repr(network.module), "encoder": encoder, "start": start_of(prepared)}


def start_of(prepared: Prepared) -> str:
    """Digest the network's initial weights and buffers.

    Args:
        prepared: the run.

    Returns:
        64 hexadecimal digits.
    """
    return _digest(prepared.network.initial_weights(), *prepared.network.initial_buffers().values())


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _device(prepared: Prepared) -> str:
    device = prepared.device
    # on the CPU sums are split over threads, and so round differently
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"

"""Before a sweep starts: whether it is the one that was started before, and whether its settings can be right."""

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unlearn.pipeline.config import plain
from unlearn.pipeline.sweep import Point, alone, lock
from unlearn.records.folder import difference, held, write_json
from unlearn.values.errors import UserError

_ENVIRONMENT = re.compile(rb"oc\.env:(\w+)")


def job_of(config: DictConfig) -> DictConfig:
    """Give what the task function of a job sees.

    Args:
        config: of the job, as Hydra's loader composes it.

    Returns:
        A copy of everything but Hydra's own node.
    """
    job = copy.deepcopy(config)
    with read_write(job), open_dict(job):
        job.pop("hydra", None)
    return job


def base_of(fixed: Sequence[str], folders: Iterable[Path], composed: DictConfig) -> dict[str, Any]:
    """Say what the points of a sweep have in common.

    Args:
        fixed: overrides that do not vary.
        folders: that configs are found in.
        composed: the config of the sweep, without what varies: it has what lies elsewhere, in a package say.

    Returns:
        A digest of that, of the config files and of what all of them read of the environment, and these overrides.
    """
    digest = hashlib.sha256()
    # groups lie at most two folders deep, and what runs have written deeper
    depths = ("*.yaml", "*/*.yaml", "*/*/*.yaml")
    files = (file for folder in folders for depth in depths for file in sorted(folder.glob(depth)))
    own = [item for item in sorted(fixed) if item.partition("=")[0].partition(".")[0] != "hydra"]
    whole = OmegaConf.to_yaml(job_of(composed))
    texts = [*(file.read_bytes() for file in files if file.is_file()), *(item.encode() for item in [*own, whole])]
    for text in texts:
        digest.update(text)
        for name in _ENVIRONMENT.findall(text):
            digest.update(repr(os.environ.get(name.decode())).encode())
    return {"config": digest.hexdigest(), "overrides": own}


def noted(folder: Path, base: dict[str, Any]) -> set[str]:
    """Read which points were started before with the same in common.

    Args:
        folder: of the sweep.
        base: from `base_of`.

    Returns:
        Their names. What such a folder holds is this point's: that one is done can be known without composing it.
    """
    try:
        before = json.loads((folder / "sweep.json").read_bytes())
        return set(before["points"]) if before["base"] == base else set()
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def note(folder: Path, base: dict[str, Any], points: Sequence[Point]) -> None:
    """Keep it for the next start, beside what was noted before.

    Args:
        folder: of the sweep.
        base: from `base_of`.
        points: that are started with it.

    Raises:
        UserError: a sweep with something else in common is at work on some of them.
    """
    with lock(folder / "sweep"):  # the same sweep may be started twice at once
        before = noted(folder, base)
        # a worker passes over a point whose lock is held, as it is while looked at: the same sweep must look at none
        others = (folder / "sweep.json").exists()
        for point in (point for point in points if others and point.name not in before):
            with alone(folder / point.name) as ours:
                if not ours:
                    raise UserError(
                        f"hydra.sweep.dir={folder}: another sweep is at work on {point.name}; choose another folder"
                    )
        names = before | {point.name for point in points}
        write_json(folder / "sweep.json", {"base": base, "points": sorted(names)})


def covering(points: Sequence[Point]) -> list[Point]:
    """Choose points among which every override of any point is found, so that a wrong value is found without all.

    Args:
        points: of a sweep.

    Returns:
        Some of them, in order.
    """
    found: list[Point] = []
    seen: set[str] = set()
    for point in points:
        fresh = set(point.overrides[:-1]) - seen  # the last is the folder
        if fresh or not found:
            found.append(point)
            seen |= fresh
    return found


def check(points: Sequence[Point], folder: Path, composed: Callable[[Point], DictConfig], known: set[str]) -> None:
    """Refuse a sweep with a wrong value, or one whose points' folders hold other runs, before anything is written.

    Args:
        points: those that are to be run.
        folder: of the sweep.
        composed: gives the config of a point.
        known: from `noted`.

    Raises:
        UserError: a value is wrong, or a folder holds another run.
    """
    # brings torch, which a sweep that is done does not need
    from unlearn.pipeline.settings import read_settings, refuse_labels

    for point in covering(points):
        config = composed(point)
        refuse_labels(point.overrides, config.hydra.runtime.choices)
        read_settings(job_of(config))
    for point in points:
        if point.name not in known and held(folder / point.name):
            settings = plain(job_of(composed(point)))
            if other := difference(folder / point.name, settings):
                raise UserError(
                    f"hydra.sweep.dir={folder}: {point.name} holds another run already ({other}); choose another folder"
                )

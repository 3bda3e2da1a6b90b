"""Before a sweep starts: whether it is the one that was started before, and whether its settings can be right."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from unlearn.pipeline.sweep import UNNAMED, Point, lock
from unlearn.records.folder import difference, held, write_json
from unlearn.values.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"


def base_of(fixed: Sequence[str]) -> dict[str, Any]:
    """Say what the points of a sweep have in common.

    Args:
        fixed: overrides that do not vary.

    Returns:
        A digest of the config files, and these overrides.
    """
    digest = hashlib.sha256()
    for file in sorted(CONF.rglob("*.yaml")):
        digest.update(file.read_bytes())
    text = [item for item in sorted(fixed) if item.partition("=")[0].partition(".")[0] not in UNNAMED]
    return {"config": digest.hexdigest(), "overrides": text}


def is_base(folder: Path, base: dict[str, Any]) -> bool:
    """Compare with what the sweep had when it was started before.

    Args:
        folder: of the sweep.
        base: from `base_of`.

    Returns:
        Whether it is the same, so that a point that is done need not be composed to know that it is. True for a new
            sweep.
    """
    try:
        before = json.loads((folder / "sweep.json").read_bytes())
    except (OSError, ValueError):
        return True
    return bool(before == base)


def note_base(folder: Path, base: dict[str, Any]) -> None:
    """Keep it for the next start.

    Args:
        folder: of the sweep.
        base: from `base_of`.
    """
    with lock(folder / "sweep"):  # the same sweep may be started twice at once
        write_json(folder / "sweep.json", base)


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


def check(points: Sequence[Point], folder: Path, composed: Callable[[Point], DictConfig], *, known: bool) -> None:
    """Refuse a sweep with a wrong value, or one whose points' folders hold other runs, before anything is written.

    Args:
        points: those that are to be run.
        folder: of the sweep.
        composed: gives the config of a point, without Hydra's own part.
        known: whether the folders that hold runs are known to hold those of the points.

    Raises:
        UserError: a value is wrong, or a folder holds another run.
    """
    from unlearn.pipeline.settings import checked  # brings torch, which a sweep that is done does not need

    for point in covering(points):
        checked(composed(point))
    for point in points if not known else []:
        if held(folder / point.name):
            settings = cast(dict[str, Any], OmegaConf.to_container(composed(point), resolve=True))
            if other := difference(folder / point.name, settings):
                raise UserError(
                    f"hydra.sweep.dir={folder}: {point.name} holds another run already ({other}); choose another folder"
                )

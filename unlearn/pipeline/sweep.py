"""A sweep: points named by their overrides, each in a folder of its own, skipped where they are done."""

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unlearn.values.errors import first_line
from unlearn.values.status import DONE

LOCKS = ".locks"  # beside the points' folders
LONGEST = 180  # characters of a folder's name; file systems take 255 bytes
UNNAMED = ("sweep", "hydra")  # overrides that say nothing about a point
logger = logging.getLogger(__name__)


class SweepEnded(SystemExit):
    """A sweep in which something went wrong; the exit code is 1 where a point failed, 3 where some only diverged."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        overrides: what the launcher composes it from.
    """

    name: str
    overrides: list[str]


def points(grid: Sequence[Sequence[str]], varied: set[str]) -> list[Point]:
    """Name the points of a sweep.

    Args:
        grid: the overrides of each point.
        varied: keys that differ between them.

    Returns:
        The points; names are equal only where the overrides are. Each carries its folder as an override of its own.
    """
    found = []
    for overrides in grid:
        name = name_of([text for text in overrides if text.partition("=")[0] in varied] or overrides)
        found.append(Point(name, [*overrides, f"hydra.sweep.subdir='{name}'"]))
    return found


def name_of(overrides: Sequence[str]) -> str:
    """Make a folder's name of overrides.

    Args:
        overrides: such as `penalty.gamma=5`.

    Returns:
        The overrides, sorted and joined by commas, in letters that every file system takes; a long or changed name ends
        in a hash of what it stands for. `run` where there are none.
    """
    named = sorted(text for text in overrides if text.partition("=")[0].partition(".")[0].strip("+~") not in UNNAMED)
    text = ",".join(named)
    safe = re.sub(r"[^A-Za-z0-9._=,+-]", "_", text.replace(" ", ""))
    if safe != text or len(safe) > LONGEST:
        safe = f"{safe[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return safe or "run"


def state_of(folder: Path) -> str:
    """Say how far a point is.

    Args:
        folder: of the point.

    Returns:
        `completed`, `diverged`, `failed` or `unfinished`.
    """
    for file in ("failed.json", "summary.json"):  # the first is gone as soon as the point is tried again
        try:
            status = json.loads((folder / file).read_bytes())["status"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if status in (*DONE, "failed"):
            return str(status)
    return "unfinished"


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keep other workers from a point.

    Args:
        folder: of the point.

    Yields:
        Whether it is ours; False where another worker is at it.
    """
    mine = lock(folder)
    try:
        mine.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        mine.release()


def conduct(
    every: Sequence[Point],
    todo: Sequence[Point],
    folder: Path,
    launch: Callable[[Any, int], Any],
    at_once: int | None = None,
) -> list[Any]:
    """Launch points, wait for those that another sweep is at, and tell how each ended.

    Args:
        every: the points of the sweep.
        todo: those that are not done.
        folder: of the sweep.
        launch: takes a list of overrides and the number of the first; a launcher.
        at_once: how many points it is given at a time; None gives it all.

    Returns:
        What the launcher returned.

    Raises:
        SweepEnded: a point failed, or diverged.
    """
    start, returned = time.time(), []
    logger.info("%s: %d points, %d done already", folder, len(every), len(every) - len(todo))
    left = list(todo)
    while left:
        size, unmet = at_once or len(left), []
        for first in range(0, len(left), size):
            some = left[first : first + size]
            before = [_touched(folder / point.name) for point in some]
            try:
                returned.append(launch([point.overrides for point in some], first))
            except Exception as error:  # a worker died, say; what each point left behind tells which
                logger.error("launcher: %s: %s", type(error).__name__, first_line(error))
                if isinstance(error, BrokenProcessPool):  # joblib's workers, all of them for one that was killed
                    now = [_touched(folder / point.name) for point in some]
                    unmet += [point for point, one, two in zip(some, before, now, strict=True) if one == two]
        # a point that is still unfinished without a lock lost its worker; one with a lock has another sweep's
        waited = [point for point in left if _wait(folder / point.name) and not _ended(folder / point.name)]
        left = waited + (unmet if len(unmet) < len(left) else [])
    skipped = len(every) - len(todo)
    _table(every, folder, skipped, time.time() - start)
    states = Counter(state_of(folder / point.name) for point in every)
    if states["failed"] or states["unfinished"]:
        raise SweepEnded(1)
    if states["diverged"]:
        raise SweepEnded(3)
    return returned


def _touched(folder: Path) -> int | None:
    """Say when a name in a folder last came or went, as one does when a point begins."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _ended(folder: Path) -> bool:
    return state_of(folder) != "unfinished"


def _wait(folder: Path) -> bool:
    """Wait while another worker is at a point; False where none was."""
    mine = lock(folder)
    try:
        mine.acquire(timeout=0)
    except Timeout:
        logger.info("%s: another sweep is at it; waiting", folder.name)
        mine.acquire()
        mine.release()
        return True
    mine.release()
    return False


def lock(folder: Path) -> FileLock:
    """Give the lock of a point.

    Args:
        folder: of the point.

    Returns:
        A lock that lies beside the folder, not taken yet.
    """
    locks = folder.parent / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.name}.lock")


def _table(every: Sequence[Point], folder: Path, skipped: int, seconds: float) -> None:
    states = {point.name: state_of(folder / point.name) for point in every}
    counts = Counter(states.values())
    table = Table(title=f"{folder}: {len(every)} points in {seconds:.0f} s", box=SIMPLE_HEAD)
    table.add_column("state")
    table.add_column("points", justify="right")
    table.add_row("completed", str(counts["completed"]))
    table.add_row("  of these or diverged, done before", str(skipped))
    for state in ("diverged", "failed", "unfinished"):
        table.add_row(state, str(counts[state]))
    console = Console(markup=False)
    console.print(table)
    for name, state in states.items():
        if state not in ("completed",):
            console.print(f"{state}: {name}: {_reason(folder / name)}", highlight=False, soft_wrap=True)


def _reason(folder: Path) -> str:
    for file in ("failed.json", "summary.json"):
        try:
            return str(json.loads((folder / file).read_bytes())["error"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return "its worker ended without a word, or its job still waits in a queue; start the sweep again"

"""Features of texts, computed once and kept: an array on disk that grows batch by batch and outlives a kill."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from unlearn.store.files import ELSEWHERE, ROOM
from unlearn.values.whole import whole, writing

logger = logging.getLogger(__name__)

VERSION = 1  # of what is computed; a new number leaves older entries alone
SAVE_EVERY = 16  # batches between saved states
ARRAY, PROGRESS, RECORD = "features.npy", "progress.json", "entry.json"


@dataclass(frozen=True)
class Work:
    """How missing features are computed.

    Attributes:
        width: features of a text, d.
        order: in which order texts are computed, a permutation of n indices.
        batch_size: texts at once.
        compute: maps indices, shape (b,), to features, float32 (b, d).
    """

    width: int
    order: np.ndarray
    batch_size: int
    compute: Callable[[np.ndarray], np.ndarray]


def features(
    folder: Path | None, made_of: Mapping[str, Any], work: Callable[[], Work], report: Callable[[int], None]
) -> np.ndarray:
    """Give features from the store, or compute and keep them.

    Two processes that want the same entry: one computes, the other waits. A damaged entry is reported and
    computed anew.

    Args:
        folder: of all features; None keeps nothing and computes in memory.
        made_of: all that determines the features; its hash names the entry.
        work: called where something is missing.
        report: called with the number of texts that are done.

    Returns:
        float32, shape (n, d); from the store it is mapped from disk, and writing to it reaches no file.
    """
    if folder is None:
        asked = work()
        found = np.empty((len(asked.order), asked.width), dtype=np.float32)
        for done, rows in _batches(asked, 0):
            found[rows] = asked.compute(rows)
            report(done)
        return found
    key = hashlib.sha256(json.dumps({**made_of, "version": VERSION}, sort_keys=True).encode()).hexdigest()
    entry = folder / key[:32]
    lock = FileLock(lock_of(entry))
    with writing(f"store.root={folder.parent}", ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if (entry / RECORD).exists() and not is_whole(entry):
            logger.warning("%s: is damaged (its checksum differs); computing these features anew", entry)
            shutil.rmtree(entry)  # not written over: a run that maps the old file keeps it
        if not (entry / RECORD).exists():
            _complete(entry, work(), made_of, report)
        return np.load(entry / ARRAY, mmap_mode="c", allow_pickle=False)
    finally:
        lock.release()


def _batches(work: Work, start: int) -> Any:
    for first in range(start, len(work.order), work.batch_size):
        rows = work.order[first : first + work.batch_size]
        yield first + len(rows), rows


def _complete(entry: Path, work: Work, made_of: Mapping[str, Any], report: Callable[[int], None]) -> None:
    shape = (len(work.order), work.width)
    start = _resumable(entry, shape)
    if start == 0:
        shutil.rmtree(entry, ignore_errors=True)
        entry.mkdir(parents=True)
    mode = "r+" if start else "w+"
    array = np.lib.format.open_memmap(entry / ARRAY, mode=mode, dtype=np.float32, shape=None if start else shape)
    _reserve(entry / ARRAY)
    report(start)
    for count, (done, rows) in enumerate(_batches(work, start), start=1):
        array[rows] = work.compute(rows)
        report(done)
        if count % SAVE_EVERY == 0:
            array.flush()  # before the number: it must never promise more than the file holds
            _write(entry / PROGRESS, {"done": done})
    array.flush()
    _write(entry / RECORD, {"made_of": dict(made_of), "shape": list(shape), "sha256": _checksum(entry / ARRAY)})
    (entry / PROGRESS).unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Take the room on the disk at once: for want of it a mapped page would end the process without a word."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file, writing(path, ROOM):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _resumable(entry: Path, shape: tuple[int, int]) -> int:
    """Count the texts, in their order, that an interrupted process left behind."""
    try:
        done = int(json.loads((entry / PROGRESS).read_text())["done"])
        array = np.load(entry / ARRAY, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    return done if array.shape == shape and array.dtype == np.float32 and 0 < done <= len(array) else 0


def lock_of(entry: Path) -> Path:
    """Name the lock of an entry.

    Args:
        entry: its folder.

    Returns:
        A file beside it.
    """
    return entry.with_name(f"{entry.name}.lock")


def is_whole(entry: Path) -> bool:
    """Compare features with their checksum.

    Args:
        entry: their folder.

    Returns:
        Whether they are what was written.
    """
    try:
        return bool(json.loads((entry / RECORD).read_text())["sha256"] == _checksum(entry / ARRAY))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")

"""The stage store: what one run computed and another can use, found by a hash of what determines it.

An entry is a folder `ROOT/STAGE/KEY/` with `state.pt`, its checksum and inputs in `entry.json`, and the run folders
that used it in `users.txt`. It is written under another name and renamed. One worker computes an entry while the others
that want it wait; the lock is the operating system's, so that it is free again when its owner dies.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from unlearn.store.files import (
    ELSEWHERE,
    LOCKS,
    Damaged,
    digest,
    from_bytes,
    lock_of,
    to_bytes,
    whole_folder,
    write_whole,
)
from unlearn.store.partial import read_state, write_state
from unlearn.values.errors import UserError
from unlearn.values.whole import writing

logger = logging.getLogger(__name__)


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash what determines an entry.

    Args:
        inputs: plain values, JSON-ready; the order of keys does not matter.

    Returns:
        24 hexadecimal digits.
    """
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Slot:
    """The place of one entry, while its lock is held.

    Attributes:
        folder: of the entry, there or not.
        partial: where a computation that was stopped left its state.
        inputs: what determines the entry.
    """

    folder: Path
    partial: Path
    inputs: Mapping[str, Any]

    def read(self, device: torch.device) -> Any:
        """Read the entry.

        Args:
            device: where tensors go.

        Returns:
            The state; None where there is no entry, or a damaged one: that is told and removed.
        """
        if not self.folder.exists():
            return None
        try:
            return from_bytes(read_checked(self.folder), device)
        except Damaged as error:
            logger.warning("store: %s is damaged (%s) and is computed again", self.folder, error)
            shutil.rmtree(self.folder)
            return None

    def write(self, state: Any, seconds: float) -> None:
        """Write the entry, and drop what a stopped computation left.

        Args:
            state: nested plain values and tensors.
            seconds: what it took to compute.
        """
        content = to_bytes(state)
        record = {
            "inputs": dict(self.inputs),
            "sha256": digest(content),
            "bytes": len(content),
            "seconds": seconds,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with whole_folder(self.folder) as folder:
            write_whole(folder / "state.pt", content)
            write_whole(folder / "entry.json", json.dumps(record, indent=2, default=str).encode())
        self.drop_partial()

    def read_partial(self, device: torch.device) -> Any:
        """Read what a stopped computation left.

        Args:
            device: where tensors go.

        Returns:
            Its state, or None.
        """
        return read_state(self.partial, device)

    def write_partial(self, state: Any) -> None:
        """Keep the state of a computation that is not at its end.

        Args:
            state: nested plain values and tensors.
        """
        write_state(self.partial, state)

    def drop_partial(self) -> None:
        """Remove it."""
        self.partial.unlink(missing_ok=True)

    def used_by(self, run: str) -> None:
        """Note who uses the entry.

        Args:
            run: the run's folder, as seen from the store's root.
        """
        users = self.folder / "users.txt"
        if self.folder.exists() and run not in users_of(self.folder):
            with users.open("a", encoding="utf-8") as file:
                file.write(f"{run}\n")


@dataclass(frozen=True)
class Store:
    """Where entries lie.

    Attributes:
        root: the folder.
        waiting: called now and then while another worker computes what is asked for; may raise.
    """

    root: Path
    waiting: Callable[[], None] = lambda: None

    def folder(self, stage: str, key: str) -> Path:
        """Give the folder of an entry, there or not.

        Args:
            stage: such as `pair`.
            key: of `key_of`.

        Returns:
            ROOT/STAGE/KEY.
        """
        return self.root / stage / key

    def open(self) -> None:
        """Make the store where there is none.

        Raises:
            UserError: it cannot be written.
        """
        with writing(f"store.root={self.root}", ELSEWHERE):
            (self.root / LOCKS).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def slot(self, stage: str, inputs: Mapping[str, Any]) -> Iterator[Slot]:
        """Hold one entry for oneself; waits while another worker does.

        Args:
            stage: such as `pair`.
            inputs: what determines the entry.

        Yields:
            Its place.

        Raises:
            UserError: the store cannot be written.
        """
        folder = self.folder(stage, key_of(inputs))
        self.open()
        with writing(f"store.root={self.root}", ELSEWHERE):
            lock = FileLock(lock_of(self.root, stage, folder.name))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("store: another run computes %s %s; waiting for it", stage, folder.name)
                while not lock.is_locked:
                    self.waiting()
                    with suppress(Timeout):
                        lock.acquire(timeout=1)
        try:
            # whoever wrote these is dead, or the lock would not be ours
            shutil.rmtree(folder.with_name(f".{folder.name}.part"), ignore_errors=True)
            yield Slot(folder, self.root / "partial" / f"{stage}-{folder.name}.pt", inputs)
        finally:
            lock.release()

    def get(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        compute: Callable[[Slot], Any],
        device: torch.device,
        user: str,
    ) -> tuple[Any, bool]:
        """Read an entry, or compute and write it.

        Args:
            stage: such as `pair`.
            inputs: what determines the entry.
            compute: makes the state; may keep a partial one in the slot.
            device: where tensors go.
            user: the run that asks, as seen from the root.

        Returns:
            The state, and whether it was there already.
        """
        with self.slot(stage, inputs) as slot:
            state = slot.read(device)
            found = state is not None
            if not found:
                start = time.perf_counter()
                state = compute(slot)
                slot.write(state, time.perf_counter() - start)
            slot.used_by(user)
        return state, found


def read_checked(folder: Path) -> bytes:
    """Read an entry's content and compare its checksum.

    Args:
        folder: of the entry.

    Returns:
        The content of `state.pt`.

    Raises:
        Damaged: a file is missing, or is not what was written.
        UserError: the disk does not give it.
    """
    try:
        record = json.loads((folder / "entry.json").read_bytes())
        content = (folder / "state.pt").read_bytes()
        expected = record["sha256"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    except OSError as error:  # no reason to remove it
        raise UserError(f"{folder}: cannot be read ({error.strerror or error}); see store.root") from error
    if digest(content) != expected:
        raise Damaged("its checksum is another")
    return content


def users_of(folder: Path) -> list[str]:
    """List the runs that used an entry.

    Args:
        folder: of the entry.

    Returns:
        Run folders as seen from the store's root, oldest first.
    """
    users = folder / "users.txt"
    return users.read_text(encoding="utf-8").splitlines() if users.exists() else []

"""`python -m unlearn.store ls|verify|prune [--root DIR]`: what lies in the stage store."""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unlearn.store import features, partial
from unlearn.store.entries import read_checked, users_of
from unlearn.store.files import LOCKS, Damaged, lock_of
from unlearn.values.errors import UserError

KEY = re.compile(r"[0-9a-f]{24,32}|[a-z]+-[0-9a-f]{24}\.pt")  # nothing else is ours to remove
PART = re.compile(rf"\.({KEY.pattern})\.part")  # of a writer that was killed, or that is at it


@dataclass(frozen=True)
class Entry:
    """One entry, or the state of a computation that was stopped.

    Attributes:
        path: its folder, or its file.
        stage: such as `pair`; `partial` for what was stopped, `features` for those of texts.
        lock: held by whoever writes it.
        size: bytes on disk.
        days: since it was written.
        users: run folders that used it and are still there.
    """

    path: Path
    stage: str
    lock: Path
    size: int
    days: float
    users: tuple[str, ...]


def entries(root: Path) -> Iterator[Entry]:
    """List what a store holds.

    Args:
        root: of the store.

    Yields:
        Its entries, by stage.
    """
    now = datetime.now(UTC).timestamp()
    for stage in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        fits = [path for path in stage.iterdir() if KEY.fullmatch(path.name) or PART.fullmatch(path.name)]
        for path in sorted(path for path in fits if path.is_file() == (stage.name == "partial")):
            with suppress(FileNotFoundError):  # a run that is going on removes what it has no use for any more
                files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
                size, days = sum(file.stat().st_size for file in files), (now - path.stat().st_mtime) / 86400
                named = users_of(path) if path.is_dir() else []
                users = tuple(user for user in named if (root.resolve() / user).exists())
                yield Entry(path, stage.name, _lock(root, stage.name, path), size, days, users)


def _lock(root: Path, stage: str, path: Path) -> Path:
    if part := PART.fullmatch(path.name):
        path = path.with_name(part[1])
    if stage == "features":
        return features.lock_of(path)
    # a partial state is named by the stage and the key of its entry
    return lock_of(root, *path.stem.split("-", 1)) if stage == "partial" else lock_of(root, stage, path.name)


def damage(entry: Entry) -> str | None:
    """Compare an entry with its checksum.

    Args:
        entry: any.

    Returns:
        What is wrong; None where nothing is, or where features are not complete, which have none yet.
    """
    if PART.fullmatch(entry.path.name):
        return None  # nobody reads it
    if entry.stage == "partial":
        with suppress(FileNotFoundError):  # its run is done by now
            return None if partial.is_whole(entry.path) else "its checksum is another"
        return None
    if entry.stage == "features":
        complete = (entry.path / features.RECORD).exists()
        return "its checksum is another" if complete and not features.is_whole(entry.path) else None
    try:
        read_checked(entry.path)
    except Damaged as error:
        return str(error)
    return None


def show(found: Sequence[Entry], console: Console) -> None:
    """Print a table.

    Args:
        found: the entries.
        console: where to.
    """
    table = Table(box=SIMPLE_HEAD)
    for heading in ("stage", "key", "MB", "days", "seconds to make", "used by"):
        table.add_column(heading, justify="right" if heading in ("MB", "days", "seconds to make") else "left")
    for entry in found:
        try:
            seconds = f"{json.loads((entry.path / 'entry.json').read_bytes())['seconds']:.1f}"
        except (OSError, ValueError, KeyError, TypeError):
            seconds = "-"
        used = f"{len(entry.users)} runs" + (f", such as {entry.users[-1]}" if entry.users else "")
        table.add_row(entry.stage, entry.path.name, f"{entry.size / 1e6:.2f}", f"{entry.days:.1f}", seconds, used)
    console.print(table)
    console.print(f"{len(found)} entries, {sum(entry.size for entry in found) / 1e6:.1f} MB", highlight=False)


def prune(found: Sequence[Entry], days: float, every: bool) -> list[Entry]:
    """Remove entries that nobody uses any more. What a run is writing or reading at the moment stays.

    Args:
        found: the entries.
        days: only those older than this.
        every: also those that runs which are still there have used, features of texts, of which nobody keeps the users,
            and the states of stopped runs; all of it is only computed again when asked for.

    Returns:
        The removed.

    Raises:
        UserError: an entry cannot be removed.
    """
    gone = []
    for entry in found:
        unused = not entry.users and (entry.stage not in ("features", "partial") or PART.fullmatch(entry.path.name))
        if entry.days < days or not (every or unused or damage(entry)):
            continue
        try:
            with FileLock(entry.lock, timeout=0):
                shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
        except (Timeout, FileNotFoundError):
            continue
        except OSError as error:
            raise UserError(f"{entry.path}: cannot be removed ({error.strerror or error})") from None
        gone.append(entry)
    return gone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line.

    Args:
        arguments: those of the command line, where None.

    Returns:
        The exit code: 1 where `verify` finds damage, 2 for bad input.

    Raises:
        UserError: never past this function; it becomes a line on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -m unlearn.store", description=__doc__)
    parser.add_argument("action", choices=("ls", "verify", "prune"))
    parser.add_argument("--root", type=Path, default=Path("outputs/store"))
    parser.add_argument("--days", type=float, default=0, help="prune: only what is older")
    parser.add_argument("--all", action="store_true", help="prune: also what runs used, features, stopped states")
    chosen = parser.parse_args(arguments)
    console = Console(markup=False)
    try:
        marked = any((chosen.root / mark).is_dir() for mark in (LOCKS, "features"))
        if not marked or (chosen.root / "sweep.json").exists():  # which has locks too
            raise UserError(f"--root {chosen.root}: there is no store; runs make one at store.root")
        return _act(chosen.action, list(entries(chosen.root)), chosen.days, chosen.all, console)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _act(action: str, found: Sequence[Entry], days: float, every: bool, console: Console) -> int:
    if action == "ls":
        show(found, console)
    elif action == "verify":
        broken = {entry.path: reason for entry in found if (reason := damage(entry))}
        for path, reason in broken.items():
            console.print(f"damaged: {path}: {reason}", highlight=False, soft_wrap=True)
        console.print(f"{len(found) - len(broken)} of {len(found)} entries are whole", highlight=False)
        return 1 if broken else 0
    else:
        gone = prune(found, days, every)
        console.print(f"removed {len(gone)} entries, {sum(e.size for e in gone) / 1e6:.1f} MB", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

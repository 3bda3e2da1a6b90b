"""`python -m unlearn.store ls|verify|prune [--root DIR]`: what lies in the stage store."""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unlearn.store.entries import checked, users_of
from unlearn.store.files import Damaged
from unlearn.values.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One entry, or the state of a computation that was stopped.

    Attributes:
        path: its folder, or its file.
        stage: such as `pair`; `partial` for what was stopped.
        size: bytes on disk.
        days: since it was written.
        users: run folders that used it and are still there.
    """

    path: Path
    stage: str
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
        for path in sorted(stage.iterdir()):
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files)
            users = tuple(user for user in users_of(path) if Path(user).exists()) if path.is_dir() else ()
            yield Entry(path, stage.name, size, (now - path.stat().st_mtime) / 86400, users)


def damage(entry: Entry) -> str | None:
    """Compare an entry with its checksum.

    Args:
        entry: any.

    Returns:
        What is wrong; None where nothing is, or where it has none.
    """
    if not (entry.path / "entry.json").exists() and entry.stage in ("partial", "features"):
        return None
    try:
        if (entry.path / "state.pt").exists() or entry.stage != "features":
            checked(entry.path)
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
    """Remove entries that nobody uses any more.

    Args:
        found: the entries.
        days: only those older than this.
        every: also those that runs which are still there have used; they are only computed again when asked for.

    Returns:
        The removed.
    """
    gone = [entry for entry in found if entry.days >= days and (every or not entry.users or damage(entry))]
    for entry in gone:
        shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
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
    parser.add_argument("--all", action="store_true", help="prune: also what existing runs have used")
    chosen = parser.parse_args(arguments)
    console = Console()
    try:
        if not chosen.root.is_dir():
            raise UserError(f"--root {chosen.root}: there is no store; runs make one at store.root")
        found = list(entries(chosen.root))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if chosen.action == "ls":
        show(found, console)
    elif chosen.action == "verify":
        broken = {entry.path: reason for entry in found if (reason := damage(entry))}
        for path, reason in broken.items():
            console.print(f"damaged: {path}: {reason}", highlight=False, soft_wrap=True)
        console.print(f"{len(found) - len(broken)} of {len(found)} entries are whole", highlight=False)
        return 1 if broken else 0
    else:
        gone = prune(found, chosen.days, chosen.all)
        console.print(f"removed {len(gone)} entries, {sum(e.size for e in gone) / 1e6:.1f} MB", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

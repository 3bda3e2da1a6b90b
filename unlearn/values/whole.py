"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearn.values.errors import UserError


@contextmanager
def whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a place to write to, wait for the disk, and put it where the file shall be: no reader sees half of it.

    Args:
        path: the file; folders above it are made.
        shared: whether two processes may write it at once; each then writes to a place of its own.

    Yields:
        A hidden file beside it, which is gone in any case when the block ends.

    Raises:
        OSError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(what: object, advice: str) -> Iterator[None]:
    """Say in one line that something cannot be written.

    Args:
        what: a path, or a setting that names one.
        advice: what to do then.

    Raises:
        UserError: the disk did not take it, in the block.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror or error}); {advice}") from error


def sync_folder(path: Path) -> None:
    """Wait until the disk holds the names in a folder.

    Args:
        path: the folder.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

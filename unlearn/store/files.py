"""Files that appear whole or not at all, and states that are read back without unpickling anything but tensors."""

import hashlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unlearn.values.errors import first_line
from unlearn.values.whole import sync_folder, whole, writing

ELSEWHERE = "choose another store.root, or store.enabled=false"
ROOM = "see store.root"  # where the disk does not take an entry
LOCKS = ".locks"  # in the root of a store


class Damaged(Exception):
    """A stored file is missing, cut short, or not what was written."""


def to_bytes(state: Any) -> bytes:
    """Write a state.

    Args:
        state: nested dicts and lists of tensors, numbers, strings and None; a tensor that stands in it twice is written
            once.

    Returns:
        torch's zip format.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes, device: torch.device) -> Any:
    """Read a state; anything but tensors and plain values is refused.

    Args:
        content: as `to_bytes` gave it.
        device: where the tensors go.

    Returns:
        The state.

    Raises:
        Damaged: it cannot be read.
        OutOfMemoryError: the device has no room; nothing is wrong with the content.
        MemoryError: nor has the host.
    """
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch raises whatever its parsers do
        raise Damaged(first_line(error)) from error


def lock_of(root: Path, stage: str, key: str) -> Path:
    """Name the lock of an entry of a stage, which is that of its partial state too.

    Args:
        root: of the store.
        stage: such as `pair`.
        key: of the entry.

    Returns:
        A file in the folder of locks.
    """
    return root / LOCKS / f"{stage}-{key}.lock"


def digest(content: bytes) -> str:
    """Give the checksum that stands beside stored content.

    Args:
        content: any.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    return hashlib.sha256(content).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the file, wait for the disk, and put it in place: no reader sees half of it.

    Args:
        path: the file; folders above it are made.
        content: what it shall hold.

    Raises:
        UserError: the disk does not take it.
    """
    with writing(path, ROOM), whole(path) as part:
        part.write_bytes(content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside the one wanted, and put it in place at the end.

    Args:
        path: the folder; what is there already is replaced.

    Yields:
        An empty folder to write to.

    Raises:
        UserError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with writing(path, ROOM):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
            sync_folder(part)
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)

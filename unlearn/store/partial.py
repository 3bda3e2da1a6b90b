"""The state of a computation that is not at its end: one file with its checksum in front."""

import logging
from pathlib import Path
from typing import Any

import torch

from unlearn.store.files import Damaged, digest, from_bytes, to_bytes, write_whole

logger = logging.getLogger(__name__)
SUM = 64  # hexadecimal digits of a checksum


def write_state(path: Path, state: Any) -> None:
    """Write a state with its checksum in front, whole or not at all.

    Args:
        path: the file.
        state: nested plain values and tensors.
    """
    content = to_bytes(state)
    write_whole(path, digest(content).encode() + content)


def read_state(path: Path, device: torch.device) -> Any:
    """Read what `write_state` wrote.

    Args:
        path: the file.
        device: where tensors go.

    Returns:
        The state; None where there is none, or a damaged one: that is told and removed.
    """
    path.with_name(f".{path.name}.part").unlink(missing_ok=True)
    if not path.exists():
        return None
    content = path.read_bytes()
    if _sound(content):
        try:
            return from_bytes(content[SUM:], device)
        except Damaged as error:  # written by another version of torch, say
            logger.warning("store: %s: %s", path, error)
    logger.warning("store: %s is damaged; starting from the beginning", path)
    path.unlink()
    return None


def is_whole(path: Path) -> bool:
    """Compare a state with its checksum.

    Args:
        path: the file.

    Returns:
        Whether it is what was written.
    """
    return _sound(path.read_bytes())


def _sound(content: bytes) -> bool:
    return digest(content[SUM:]).encode() == content[:SUM]

"""Which code made an entry: a hash of its sources and versions of libraries, so that no entry outlives a change."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers")  # a network and what it reads are made of these


@cache
def code_version(parts: tuple[str, ...], root: Path = PACKAGE) -> str:
    """Hash sources.

    Args:
        parts: packages and modules, such as `train` or `penalties.py`.
        root: the folder that they lie in.

    Returns:
        Twelve hexadecimal digits and the versions of `LIBRARIES`. Any change of the sources changes the digits, also
        one that changes no number: computing again is cheaper than a wrong reuse.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return f"{digest.hexdigest()[:12]} {libraries()}"


@cache
def libraries() -> str:
    """Name the installed `LIBRARIES` with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)

"""Which code made an entry: a hash of its sources and versions of libraries, so that no entry outlives a change."""

import hashlib
import inspect
import uuid
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
        Twelve hexadecimal digits and the versions of numpy, which finds eigenvalues, and `LIBRARIES`. Any change of the
        sources changes the digits, also one that changes no number: computing again is cheaper than a wrong reuse.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return f"{digest.hexdigest()[:12]} numpy {version('numpy')}, {libraries()}"


@cache  # a process keeps the code that it started with
def source_of(kind: type) -> str | None:
    """Hash the file of a class that is not ours, which no `code_version` knows.

    Args:
        kind: such as a method of the user's own.

    Returns:
        Twelve hexadecimal digits; None for a class of this package. What its file imports is not looked at. Of a class
        without a file another digest in each process, so that nothing is ever taken for its work.
    """
    if kind.__module__.partition(".")[0] == PACKAGE.name:
        return None
    try:
        source = Path(inspect.getfile(kind)).read_bytes()
    except (TypeError, OSError):
        source = uuid.uuid4().bytes
    return hashlib.sha256(source).hexdigest()[:12]


@cache
def libraries() -> str:
    """Name the installed `LIBRARIES` with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)

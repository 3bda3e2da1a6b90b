"""Where a run comes from: code, libraries, machine, seed and inputs."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "unlearn",
    "torch",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "wandb",
    "transformers",
    "tokenizers",
    "pandas",
    "numpy",
    "scipy",
    "scikit-learn",
)


def provenance(
    *,
    device: str,
    threads: int,
    seed: int,
    schedule: str,
    data: str,
    test: str,
    weights: str | None,
    source: Path = PACKAGE,
) -> dict[str, Any]:
    """Describe a run at its start.

    Args:
        device: what it computes on, in words.
        threads: torch's CPU threads.
        seed: the run's seed.
        schedule: the schedule's fingerprint.
        data: the training data's fingerprint.
        test: the test data's fingerprint.
        weights: digest of the weights that were read from a file; None where none were.
        source: the folder of the code.

    Returns:
        A JSON-ready mapping; what cannot be known is None.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command_line(),
        "seed": seed,
        "schedule": schedule,
        "data": data,
        "test": test,
        "weights": weights,
        "device": device,
        "threads": threads,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **code_state(source),
    }


@cache
def code_state(source: Path = PACKAGE) -> dict[str, Any]:
    """Say what code runs: ours, and that of the libraries.

    Args:
        source: the folder of the code.

    Returns:
        `git`, as `git_state` gives it, and `libraries`, their versions. Looked up once: a process keeps the code that
        it started with.
    """
    return {"git": git_state(source), "libraries": {name: _version(name) for name in LIBRARIES}}


def git_state(source: Path) -> dict[str, Any]:
    """Read the commit that a folder's code was checked out from.

    Args:
        source: a folder of the code.

    Returns:
        `commit`, 40 hexadecimal digits, and `dirty`, whether anything differs from it; both None where there is no
        git, or no checkout that holds this folder's files.
    """
    # an installed package can lie inside somebody else's checkout: that one's commit says nothing about it
    if _git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    commit, changes = _git(source, "rev-parse", "HEAD"), _git(source, "status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(source: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(source), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _command_line() -> list[str]:
    # where the program and the home lie says nothing about the run, and differs from machine to machine
    home = os.path.expanduser("~")
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return [re.sub(rf"{re.escape(home)}(?![^/])", "~", word) if len(home) > 1 else word for word in words]

"""Reads run folders into one tidy table: a row a run."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from unlearn.values.errors import UserError, in_one_line
from unlearn.values.nested import flatten
from unlearn.values.status import STATUSES
from unlearn.values.whole import whole, writing


@dataclass(frozen=True)
class Run:
    """What one folder says.

    Attributes:
        folder: where it lies.
        status: one of STATUSES.
        error: why it failed or diverged; None otherwise.
        config: leaves by dotted name; lists as JSON text. Empty where the run failed before it wrote them.
        summary: the same of `summary.json`.
    """

    folder: Path
    status: str
    error: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collected:
    """Many runs.

    Attributes:
        table: a row a run: `folder`, `status`, `error`, each config leaf that varied, each summary value.
        varied: the config leaves that did not have one value in all runs; one that some runs lack has varied.
        shared: the other leaves, with their value.
    """

    table: pd.DataFrame
    varied: tuple[str, ...]
    shared: dict[str, Any]


def collect(folder: Path) -> Collected:
    """Read all runs below a folder.

    Args:
        folder: a run's folder, or one that holds run folders at any depth, such as a sweep's.

    Returns:
        The runs; order follows the folders' names, numbers in them by size.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; give one that holds runs, such as outputs/sweeps/NAME")
    runs = [read(found) for found in sorted(find(folder), key=_natural)]
    if not runs:
        raise UserError(f"{folder}: holds no run (no config.yaml below it); give a folder such as outputs/sweeps/NAME")
    varied, shared = _split([run.config for run in runs if run.config])
    numbers = dict.fromkeys(name for run in runs for name in run.summary)
    columns = {
        "folder": _column([run.folder.relative_to(folder).as_posix() for run in runs]),
        "status": _column([run.status for run in runs]),
        "error": _column([run.error for run in runs]),
        **{name: _column([run.config.get(name) for run in runs]) for name in varied},
        **{name: _column([run.summary.get(name) for run in runs]) for name in numbers},
    }
    return Collected(pd.DataFrame(columns), varied, shared)


def find(folder: Path) -> Iterator[Path]:
    """Find run folders.

    Args:
        folder: where to look.

    Yields:
        Each folder with a `config.yaml` or a `failed.json`. What lies inside one (W&B's files) is left alone.
    """
    for place, below, files in os.walk(folder):
        if {"config.yaml", "failed.json"} & set(files):
            below.clear()
            yield Path(place)


def read(folder: Path) -> Run:
    """Read one run; a damaged file makes it a failed one and never stops the others.

    Args:
        folder: holds `config.yaml`, `summary.json` once the run has ended, and `failed.json` where a sweep gave it up.

    Returns:
        What it says.
    """
    problems: list[str] = []
    config = _load(folder / "config.yaml", problems)
    summary = _load(folder / "summary.json", problems)
    failure = _load(folder / "failed.json", problems)
    status = summary.pop("status", "unfinished")
    error = summary.pop("error", None)
    if status == "drawing":  # written for the figures; the run is at them, or was killed there
        status, summary = "unfinished", {}
    if failure and status != "diverged":
        status, error = "failed", failure.get("error", "no reason given")
    if status not in STATUSES:
        problems.append(f"summary.json: status {status!r} is none of {', '.join(STATUSES)}")
    if problems:
        status, error = "failed", "; ".join(problems)
    return Run(folder, status, None if error is None else " ".join(str(error).split()), config, summary)


def save(collected: Collected, folder: Path) -> list[Path]:
    """Write the table; each file appears whole or not at all.

    Args:
        collected: the runs.
        folder: gets `results.csv` and `results.parquet`.

    Returns:
        The paths of both.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = [folder / "results.csv", folder / "results.parquet"]
    for path, write in zip(paths, (collected.table.to_csv, collected.table.to_parquet), strict=True):
        with writing(path, "free or open the folder"), whole(path, shared=True) as part:  # two may collect at once
            write(part, index=False)
    return paths


def _load(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        # the loader in C: a thousand configs take seconds, not half a minute
        values = yaml.load(text, yaml.CSafeLoader) if path.suffix == ".yaml" else json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("holds no mapping")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name}: cannot be read ({in_one_line(error)})")
        return {}
    return {
        name: json.dumps(value) if isinstance(value, list) else value for name, value in flatten(values, ".").items()
    }


def _split(configs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict[str, Any]]:
    names = dict.fromkeys(name for config in configs for name in config)
    lacking = object()
    found = {name: [config.get(name, lacking) for config in configs] for name in names}
    shared = {name: values[0] for name, values in found.items() if all(value == values[0] for value in values)}
    return tuple(name for name in names if name not in shared), shared


def _column(values: Sequence[Any]) -> pd.Series:
    """Numbers stay numbers, also beside missing values; kinds that do not mix become text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")


def _natural(path: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

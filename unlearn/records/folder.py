"""The folder of one run: config.yaml, steps.csv, JSON records and weights, all readable without this package."""

import csv
import io
import json
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor

from unlearn.values.errors import Busy, UserError
from unlearn.values.measurement import COLUMNS, Measurement
from unlearn.values.neutral import NEUTRAL
from unlearn.values.status import DONE
from unlearn.values.whole import whole, writing

ANOTHER = "choose another folder"
RUN_MARKS = ("summary.json", "steps.csv", "provenance.json")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Files appear whole or not at all; `steps.csv` grows by whole rows.

    Attributes:
        path: where it lies.
    """

    path: Path
    _rows: list[str] = field(default_factory=list, repr=False, compare=False)  # of steps.csv, as they stand there

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make the folder, and try to write to it; or open the one of the same run, where that did not come to its end.

        Args:
            path: the folder; it may exist, but must not hold another run.
            config: the resolved config, in plain types.

        Returns:
            The open folder.

        Raises:
            UserError: the folder holds another run, or cannot be written.
        """
        path = Path(path)
        with writing(path, ANOTHER):
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass  # only a real file tells whether a full or read-only disk takes one
            for left in path.glob(".*.part"):
                left.unlink()
        if held(path) and (other := difference(path, config)):
            raise UserError(f"{path}: holds another run already ({other}); choose another folder")
        steps = path / "steps.csv"
        _drop_half_row(steps)
        return cls(path, steps.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if _headed(steps) else [])

    def finished(self) -> dict[str, Any] | None:
        """Read the summary of a run that came to its end.

        Returns:
            `summary.json`, or None where it is not there or cannot be read.
        """
        summary = self.read_json("summary")
        return summary if summary.get("status") in DONE else None

    def write_config(self, text: str) -> Path:
        """Write the resolved config.

        Args:
            text: YAML.

        Returns:
            The path of `config.yaml`.
        """
        return _write(self.path / "config.yaml", text.encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a record.

        Args:
            name: the file's name without `.json`.

        Returns:
            What it holds; empty where it is not there or cannot be read.
        """
        try:
            found = json.loads((self.path / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        """Write a JSON record; NaN and infinities, which JSON does not have, become null.

        Args:
            name: the file's name without `.json`.
            values: mappings, sequences, strings and numbers.

        Returns:
            The path of the file.
        """
        return write_json(self.path / f"{name}.json", values)

    def put(self, place: int, measurement: Measurement) -> None:
        """Have a row stand at a place of `steps.csv`. A run that goes on finds the rows that it wrote before.

        Where others stand there, since the code or the machine has changed, they go, with all that follow them.

        Args:
            place: from 0, at most the number of rows.
            measurement: one measured step.
        """
        path, row = self.path / "steps.csv", _line(astuple(measurement))
        if self._rows[place : place + 1] == [row]:
            return
        with writing(path, ANOTHER):
            if place < len(self._rows) or not _headed(path):
                if self._rows or (path.exists() and path.stat().st_size):
                    logger.warning(
                        "%s: what an earlier start wrote from row %d on is not what comes now", path, place + 1
                    )
                del self._rows[place:]
                _write(path, "".join([HEADER, *self._rows]).encode())
            with path.open("a", newline="", encoding="utf-8") as file:
                file.write(row)
        self._rows.append(row)

    def cut(self, rows: int) -> None:
        """Drop what an earlier start wrote beyond today's end, of a run that now ended sooner.

        Args:
            rows: how many stay.
        """
        if rows < len(self._rows):
            del self._rows[rows:]
            _write(self.path / "steps.csv", "".join([HEADER, *self._rows]).encode())

    def save_weights(self, name: str, tensors: Mapping[str, Tensor]) -> Path:
        """Write tensors as safetensors.

        Args:
            name: the file's name without `.safetensors`.
            tensors: by name, any shapes, any device; views of one vector are copied apart.

        Returns:
            The path of the file in `weights/`.
        """
        apart = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
        return _write(self.path / "weights" / f"{name}.safetensors", save(apart))


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a JSON file, whole or not at all; NaN and infinities, which JSON does not have, become null.

    Args:
        path: the file; the folder is made.
        values: mappings, sequences, strings and numbers.

    Returns:
        The path.
    """
    text = json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False)
    return _write(path, f"{text}\n".encode())


def _write(path: Path, content: bytes) -> Path:
    with writing(path, ANOTHER), whole(path) as part:
        part.write_bytes(content)
    return path


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Keep other processes from a run's folder: two at once would write each row twice.

    Args:
        path: the folder; made where it is not there.

    Yields:
        Nothing; while the block runs a hidden file `.lock` lies in the folder.

    Raises:
        Busy: another process is at it.
        UserError: the folder cannot be written.
    """
    with writing(path, ANOTHER):
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(f"{path}: another process is at this run; wait for it, or choose another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):  # of a disk that is full or gone the run itself tells
            (path / ".lock").unlink()
        lock.release()


def held(path: Path) -> bool:
    """Say whether a folder holds a run.

    Args:
        path: the folder.

    Returns:
        Whether it holds what a run writes once it has begun.
    """
    return any((path / name).exists() for name in RUN_MARKS)


def difference(path: Path, config: Mapping[str, Any]) -> str | None:
    """Compare a config with that of the run in a folder.

    Args:
        path: the folder.
        config: resolved, in plain types.

    Returns:
        None where both describe the same run; else where they differ, in words. How a run is logged, drawn, stored and
        checkpointed does not matter, nor what else changes no number.
    """
    try:
        there = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return "its config.yaml cannot be read"
    return _first_difference(there if isinstance(there, dict) else {}, config, "")


def _first_difference(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> str | None:
    for key in [*b, *(key for key in a if key not in b)]:
        if f"{prefix}{key}" in NEUTRAL:
            continue
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if inner := _first_difference(one, other, f"{prefix}{key}."):
                return inner
        elif one != other:
            return f"{prefix}{key} is {one} there, {other} here"
    return None


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


HEADER = _line(column.name for column in COLUMNS)


def _headed(path: Path) -> bool:
    """Say whether a file has the columns of today."""
    if not path.exists():
        return False
    with path.open(newline="", encoding="utf-8") as file:
        return file.readline() == HEADER


def _drop_half_row(path: Path) -> None:
    """A row that was cut off has no line end; what stands before it is whole."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        _write(path, content[: content.rfind(b"\n") + 1])


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

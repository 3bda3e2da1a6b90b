"""The folder of one run: config.yaml, steps.csv, JSON records and weights, all readable without this package."""

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Any

from safetensors.torch import save
from torch import Tensor

from unlearn.values.errors import UserError
from unlearn.values.measurement import COLUMNS, Measurement

RUN_MARKS = ("summary.json", "steps.csv")


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Files appear whole or not at all; `steps.csv` grows by whole rows.

    Attributes:
        path: where it lies.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> "RunFolder":
        """Make the folder, and try to write to it.

        Args:
            path: the folder; it may exist, but must not hold a run yet.

        Returns:
            The open folder.

        Raises:
            UserError: the folder holds a run, or cannot be written.
        """
        path = Path(path)
        with _one_line(path):
            path.mkdir(parents=True, exist_ok=True)
            held = [name for name in RUN_MARKS if (path / name).exists()]
            with tempfile.TemporaryFile(dir=path):
                pass  # only a real file tells whether a full or read-only disk takes one
        if held:
            raise UserError(f"{path}: holds a run already ({' and '.join(held)}); choose another folder")
        return cls(path)

    def write_config(self, text: str) -> Path:
        """Write the resolved config.

        Args:
            text: YAML.

        Returns:
            The path of `config.yaml`.
        """
        return self._write(self.path / "config.yaml", text.encode())

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        """Write a JSON record; NaN and infinities, which JSON does not have, become null.

        Args:
            name: the file's name without `.json`.
            values: mappings, sequences, strings and numbers.

        Returns:
            The path of the file.
        """
        text = json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False)
        return self._write(self.path / f"{name}.json", f"{text}\n".encode())

    def append(self, measurement: Measurement) -> None:
        """Add a row to `steps.csv`: the shortest text that reads back as the same number; an empty cell for None.

        Args:
            measurement: one measured step.
        """
        path = self.path / "steps.csv"
        with _one_line(path), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(column.name for column in COLUMNS)
            writer.writerow(astuple(measurement))

    def save_weights(self, name: str, tensors: Mapping[str, Tensor]) -> Path:
        """Write tensors as safetensors.

        Args:
            name: the file's name without `.safetensors`.
            tensors: by name, any shapes, any device; views of one vector are copied apart.

        Returns:
            The path of the file in `weights/`.
        """
        apart = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
        return self._write(self.path / "weights" / f"{name}.safetensors", save(apart))

    def _write(self, path: Path, content: bytes) -> Path:
        with _one_line(path):
            path.parent.mkdir(exist_ok=True)
            with _whole(path) as file:
                file.write(content)
        return path


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Write beside the file and put it in place at the end, so that no reader sees half of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

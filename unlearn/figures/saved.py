"""Reads what a run has saved."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from unlearn.values.errors import UserError, in_one_line
from unlearn.values.measurement import COLUMNS, WORDS


@dataclass(frozen=True)
class Saved:
    """A run's saved values.

    Attributes:
        steps: the rows of `steps.csv`, float64 but for columns of words; NaN where a cell is empty or infinite.
        summary: the content of `summary.json`; empty where the run was stopped before it wrote one.
        rooted: whether sigma is a square root (`measure.sigma=sqrt_signed`), and `unlearning_error_unrolled` no weight.
    """

    steps: pd.DataFrame
    summary: dict[str, Any]
    rooted: bool = False


def read(folder: Path) -> Saved:
    """Read a run folder.

    Args:
        folder: holds `steps.csv`, `config.yaml`, and `summary.json` once the run has ended.

    Returns:
        The saved values.

    Raises:
        UserError: the folder holds no run, or one that cannot be read.
    """
    try:
        kinds = {column.name: str if column.name in WORDS else float for column in COLUMNS}
        text = (folder / "steps.csv").read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a row without its end was cut off
        steps = pd.read_csv(io.StringIO(whole), dtype=kinds).replace([np.inf, -np.inf], np.nan)
        path = folder / "summary.json"
        summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except FileNotFoundError as error:
        raise UserError(f"{folder}: holds no run (no steps.csv); give the folder that a run wrote") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: cannot be read ({in_one_line(error)}); steps.csv, summary.json, config.yaml must be whole"
        ) from error
    missing = [column.name for column in COLUMNS if column.name not in steps]
    if missing:
        raise UserError(f"{folder}: steps.csv lacks {', '.join(missing)}; draw it with the version that wrote it")
    if not isinstance(summary, dict):
        raise UserError(f"{folder}: summary.json holds no mapping; it must be the one that the run wrote")
    measure = config.get("measure") if isinstance(config, dict) else None
    return Saved(steps, summary, isinstance(measure, dict) and measure.get("sigma") == "sqrt_signed")

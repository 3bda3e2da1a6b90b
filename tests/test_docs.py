"""What the docs list is what there is."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.pipeline.settings import read_settings
from unlearn.values.measurement import COLUMNS

ROOT = Path(__file__).resolve().parents[1]


def test_every_column_stands_in_the_docs_with_unit_and_meaning():
    text = (ROOT / "docs/outputs.md").read_text()
    for column in COLUMNS:
        assert f"| `{column.name}` | {column.unit} | {column.meaning} |" in text


def test_every_convention_stands_in_the_docs(composed):
    text = (ROOT / "docs/conventions.md").read_text()
    for leaf in composed().conventions:
        assert leaf == "name" or f"`{leaf}`" in text


def test_every_choice_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for group in ("dataset", "model", "optimizer", "forget", "penalty", "method", "curvature", "conventions"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{group}` |"))
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in row


def commands():
    """Give the command lines of runs and sweeps in the docs, with continued lines joined."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text().replace("\\\n", " ")
        found += [(path.name, line) for line in re.findall(r"^    python -m unlearn (.*)$", text, re.MULTILINE)]
    return found


@pytest.mark.parametrize(("name", "line"), commands())
def test_every_command_of_the_docs_composes(composed, name, line):
    words = [word for word in shlex.split(line, comments=True) if not word.startswith(("-", "hydra"))]
    first = [re.sub(r"=([^\[,]*),.*", r"=\1", word) for word in words]  # of values that vary
    assert read_settings(composed(*first)).parts.dataset.name


def test_the_example_of_own_parts_runs(tmp_path):
    text = (ROOT / "docs/own.md").read_text()
    files = re.findall(r"^`(my/\S+)`:\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    assert len(files) == 4
    for name, block in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(re.sub(r"^    ", "", block, flags=re.MULTILINE))
    variable, _, *words = shlex.split(re.search(r"^    (PYTHONPATH=\S+ python .*)$", text, re.MULTILINE)[1])
    path = os.pathsep.join([str(tmp_path / variable.partition("=")[2]), str(ROOT)])
    quick = ("logger.mode=disabled", "figures=false", "training.epochs=2", "hydra.run.dir=run", "device=cpu")
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, *words, *quick], cwd=tmp_path, env=environment, check=True, capture_output=True)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["ratio"] < 1

"""What the docs list is what there is."""

from pathlib import Path

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

import io
from pathlib import Path

import pytest
from rich.console import Console

from unlearn.pipeline.report import accuracy_table, errors_table, labels, verdict
from unlearn.values.measurement import ERROR_KINDS

NAMES = {"dataset": "digits", "model": "mlp", "method": "none"}


def test_a_sweep_is_one_group_also_one_of_wandbs_agent(monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert labels(NAMES, Path("sweeps/mine/seed=0"))["group"] == "mine"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert labels(NAMES, Path("runs/2026"))["group"] == "abc"


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (0.5, "M'' is 2 times closer to M' than M is."),
        (1.8, "M'' is 1.8 times as far from M' as M is: unlearning did not help."),
        (0.0, "M'' is M'."),
    ],
)
def test_what_a_ratio_means(ratio, told):
    assert verdict({"ratio": ratio}) == told


def rows(table):
    """Give the cells of a table's lines, by the words at their start."""
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_every_number_of_the_table_stands_on_its_line():
    """Each quantity and each correlation is another number."""
    keys = {
        "verification_error": "v", "noop_distance": "no-op", "ratio": "ratio", "correction_size": "correction",
        "predicted_noop_distance": "forecast", "sigma": "sigma", "distance_from_initial": "distance", "step": "t",
        **{f"unlearning_error_{kind}": kind for kind in ERROR_KINDS},
    }  # fmt: skip
    summary = {key: 10.0 + place for place, key in enumerate(keys)} | {"visits": 5}
    ranked = [
        key for key in keys if key.startswith("unlearning") or key in ("step", "noop_distance", "correction_size")
    ]
    summary["correlations"] = {
        key: {"spearman": place / 100, "spearman_differences": -place / 100} for place, key in enumerate(ranked, 1)
    }
    lines = rows(errors_table(summary, "code"))
    errors = [line for line in lines if line[0] == "e"]
    assert errors[0][1] == "code"
    for key, word in keys.items():
        start = ["e", *word.replace("_", ", ").split()] if key.startswith("unlearning") else [word]
        line = next(line for line in lines if line[: len(start)] == start and line[len(start)] != "mean")
        numbers = [f"{summary[key]:.5g}"]
        if key in ranked:
            place = ranked.index(key) + 1
            numbers += [f"{place / 100:+.3f}", f"{-place / 100:+.3f}"]
        assert line[-len(numbers) :] == numbers, key


def test_every_accuracy_stands_on_its_line():
    models, sets = ("original", "retrained", "unlearned"), ("retain", "forget", "test")
    values = {model: {name: (3 * i + j + 1) / 100 for j, name in enumerate(sets)} for i, model in enumerate(models)}
    values["retrained"]["forget"] = None
    lines = [line for line in rows(accuracy_table(values)) if line[0].startswith("M")]
    assert [line[1:] for line in lines] == [
        ["original", "1.00", "2.00", "3.00"],
        ["retrained", "4.00", "-", "6.00"],
        ["unlearned", "7.00", "8.00", "9.00"],
    ]

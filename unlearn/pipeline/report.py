"""What a person sees in the terminal: progress while it lasts, one table at the end."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unlearn.values.measurement import ERROR_KINDS, SETS


def labels(names: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Name a run for W&B.

    Args:
        names: of dataset, model, penalty, forget set and method.
        folder: the run's folder.

    Returns:
        `group`: the sweep of the W&B agent that started the run, else the folder that the run lies in, so that a
            sweep is one group; `job_type`: the method; `name`.
    """
    return {
        "group": os.environ.get("WANDB_SWEEP_ID") or folder.parent.name,
        "job_type": names["method"],
        "name": "-".join((names["dataset"], names["model"], names["method"], folder.name)),
    }


@contextmanager
def progress(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr; nothing where there is no terminal.

    Args:
        what: the stage.
        total: its steps.
        shown: False for nothing at all.

    Yields:
        A function to call with the number of steps done.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def show(summary: Mapping[str, Any], headline: str, folder: Path) -> None:
    """Print the result.

    Args:
        summary: as `summary.json` holds it.
        headline: which unlearning error to lead with.
        folder: where everything lies.
    """
    console = Console(markup=False)
    console.print(errors_table(summary, headline), accuracy_table(summary["accuracy"]), sep="\n")
    console.print(verdict(summary), highlight=False)
    console.print("rho: Spearman over the steps; whatever grows with t scores high within one run", style="dim")
    spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary["seconds"].items())
    console.print(f"seconds on {summary['computed_on']}: {spent}", style="dim", highlight=False, soft_wrap=True)
    console.print(f"saved in {folder}", highlight=False, soft_wrap=True)


def errors_table(summary: Mapping[str, Any], headline: str) -> Table:
    """Tabulate distances, proxies and how v correlated with them over the measured steps.

    Args:
        summary: as `summary.json` holds it.
        headline: which unlearning error comes first.

    Returns:
        The table.
    """
    table = Table(title=f"after {summary['step']} steps, {summary['visits']} with forgotten points", box=SIMPLE_HEAD)
    table.add_column("quantity")
    for heading in ("value", "rho with v", "of differences"):
        table.add_column(heading, justify="right", no_wrap=True)
    kinds = sorted(ERROR_KINDS, key=lambda kind: kind != headline)
    rows = [
        ("v          verification error", "verification_error"),
        ("no-op      norm(w_t - w')", "noop_distance"),
        ("ratio      v / no-op", "ratio"),
        ("correction norm(w'' - w_t)", "correction_size"),
        *((f"e          {kind.replace('_', ', ')}", f"unlearning_error_{kind}") for kind in kinds),
        ("forecast   of the no-op", "predicted_noop_distance"),
        ("sigma", "sigma"),
        ("distance   norm(w_t - w_0)", "distance_from_initial"),
        ("t          steps", "step"),
    ]
    for text, key in rows:
        found = summary["correlations"].get(key, {})
        value = summary[key]
        table.add_row(
            text,
            "-" if value is None else f"{value:.5g}",
            *("" if not found else _signed(found[kind]) for kind in ("spearman", "spearman_differences")),
        )
    return table


def accuracy_table(accuracies: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Tabulate accuracies.

    Args:
        accuracies: by model, by set.

    Returns:
        The table, in percent.
    """
    table = Table(title="accuracy, %", box=SIMPLE_HEAD)
    table.add_column("model")
    for name in SETS:
        table.add_column(name, justify="right")
    for model, symbol in (("original", "M"), ("retrained", "M'"), ("unlearned", "M''")):
        values = (accuracies[model][name] for name in SETS)
        table.add_row(f"{symbol}  {model}", *("-" if value is None else f"{100 * value:.2f}" for value in values))
    return table


def verdict(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what the ratio means.

    Args:
        summary: as `summary.json` holds it.

    Returns:
        One line.
    """
    ratio = summary["ratio"]
    if ratio is None and summary["visits"] == 0 and summary["accuracy"]["original"]["forget"] is not None:
        return "M and M' are the same: no forgotten point was seen in these steps."
    if ratio is None:
        return "M and M' are the same: nothing was to be unlearned."
    if ratio < 1:
        return f"M'' is {1 / ratio:.3g} times closer to M' than M is." if ratio else "M'' is M'."
    return f"M'' is {ratio:.3g} times as far from M' as M is: unlearning did not help."


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"

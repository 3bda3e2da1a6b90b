"""Mean and interval over seeds, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.special import stdtrit

from unlearn.results.collect import STATUSES, Collected
from unlearn.values.neutral import NEUTRAL

APART = ("seed", *NEUTRAL)  # seeds are averaged over; what changes no number is no setting of the experiment
QUANTITIES = {
    "v": "verification_error",
    "no-op": "noop_distance",
    "ratio": "ratio",
    "e": "e",
    "forecast": "predicted_noop_distance",
    "test M'', %": "test",
    "M'' - M', %": "test_difference",
}


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        n: how many seeds had a value.
        mean: None where n is 0.
        half: half the width of the 95 % t-interval, t(0.975, n - 1) s / sqrt(n); None below two values.
    """

    n: int
    mean: float | None
    half: float | None


def interval(values: pd.Series) -> Interval:
    """Give mean and 95 % t-interval.

    Args:
        values: one a seed; missing ones are left out.

    Returns:
        The interval.

    >>> interval(pd.Series([1.0, 3.0, None]))
    Interval(n=2, mean=2.0, half=12.706204736174694)
    """
    present = values.dropna().astype(float)
    n = len(present)
    if n < 2:
        return Interval(n, float(present.iloc[0]) if n else None, None)
    return Interval(n, float(present.mean()), float(stdtrit(n - 1, 0.975) * present.std() / n**0.5))


def settings(collected: Collected) -> list[str]:
    """Choose the leaves that tell the groups apart.

    A leaf that splits no group further than those before it is left out: a method's `_target_` beside its name, say.

    Args:
        collected: the runs.

    Returns:
        Names of varied leaves without the seed and what changes no number, the readable ones (`name`) first.
    """
    table, chosen = collected.table, list[str]()
    candidates = [leaf for leaf in collected.varied if not any(f"{leaf}.".startswith(f"{key}.") for key in APART)]
    groups = 1
    for leaf in sorted(candidates, key=lambda leaf: (not leaf.endswith("name"), leaf.endswith("_target_"))):
        found = len(table[[*chosen, leaf]].drop_duplicates())
        if found > groups:
            chosen.append(leaf)
            groups = found
    return chosen


def summarise(collected: Collected) -> pd.DataFrame:
    """Average over the seeds of each setting.

    Only completed runs are averaged. Runs of one seed count as one: a repetition brings nothing new.

    Args:
        collected: the runs.

    Returns:
        A row a setting: its leaves, `n` (seeds), how many runs were diverged, failed and unfinished, and an Interval
        for each of QUANTITIES.
    """
    leaves = settings(collected)
    table = _derived(collected)
    if leaves:
        table = table.sort_values(leaves, kind="stable")
        groups = [part for _, part in table.groupby(leaves, sort=False, dropna=False)]
    else:
        groups = [table]
    rows = []
    for part in groups:
        done = part[part.status == "completed"]
        over = done.groupby("seed", dropna=False)[list(QUANTITIES.values())].mean()
        rows.append(
            {
                **part.iloc[0][leaves],
                "n": len(over),
                **{status: int((part.status == status).sum()) for status in STATUSES[1:]},
                **{title: interval(over[name]) for title, name in QUANTITIES.items()},
            }
        )
    return pd.DataFrame(rows)


def show(summary: pd.DataFrame, headline: str) -> Table:
    """Lay out the averages.

    Args:
        summary: of `summarise`.
        headline: the unlearning error that stands in the column `e`.

    Returns:
        The table: mean ± half of the 95 % t-interval over n seeds.
    """
    left_out = [status for status in STATUSES[1:] if summary[status].any()]
    aside = ("n", *STATUSES[1:], *QUANTITIES)
    leaves = [name for name in summary if name not in aside]
    table = Table(title="mean ± half of the 95 % t-interval over n seeds", box=SIMPLE_HEAD)
    for leaf in leaves:
        table.add_column(leaf, overflow="fold")
    for heading in ("n", *left_out, *QUANTITIES):
        table.add_column(f"e {headline}" if heading == "e" else heading, justify="right", overflow="fold")
    for _, row in summary.iterrows():
        table.add_row(
            *("-" if pd.isna(row[leaf]) else str(row[leaf]) for leaf in leaves),
            *(str(row[name]) for name in ("n", *left_out)),
            *(_cell(row[title], row["n"], title.endswith("%")) for title in QUANTITIES),
        )
    return table


def headline(collected: Collected) -> str:
    """Say which unlearning error leads.

    Args:
        collected: the runs.

    Returns:
        `conventions.headline_error`, or `headline` where it differs between the runs.
    """
    return str(collected.shared.get("conventions.headline_error", "headline"))


def _derived(collected: Collected) -> pd.DataFrame:
    table = collected.table.copy()
    wanted = ["seed", "verification_error", "noop_distance", "ratio", "predicted_noop_distance"]
    table = table.reindex(columns=[*table.columns, *(name for name in wanted if name not in table)])
    kinds = table.get("conventions.headline_error", pd.Series(headline(collected), index=table.index))
    table["e"] = [_number(table, index, f"unlearning_error_{kind}") for index, kind in kinds.items()]
    unlearned, retrained = (_share(table, f"accuracy.{model}.test") for model in ("unlearned", "retrained"))
    table["test"] = 100 * unlearned
    table["test_difference"] = 100 * (unlearned - retrained)
    numbers = list(QUANTITIES.values())
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in numbers})


def _number(table: pd.DataFrame, index: object, name: str) -> float:
    return table.at[index, name] if name in table else float("nan")


def _share(table: pd.DataFrame, name: str) -> pd.Series:
    return pd.to_numeric(table.get(name, pd.Series(float("nan"), index=table.index)), errors="coerce").astype(float)


def _cell(found: Interval, seeds: int, percent: bool) -> str:
    if found.mean is None:
        return "-"
    form = ".2f" if percent else ".4g"
    width = "-" if found.half is None else f"{found.half:{'.2f' if percent else '.2g'}}"
    fewer = f" (n={found.n})" if found.n != seeds else ""
    return f"{found.mean:{form}} ± {width}{fewer}"


def counts(statuses: Sequence[str]) -> str:
    """Count runs by status.

    Args:
        statuses: one a run.

    Returns:
        A line such as `3 runs: 2 completed, 1 failed`.

    >>> counts(["completed", "failed", "completed"])
    '3 runs: 2 completed, 1 failed'
    """
    found = [(list(statuses).count(status), status) for status in STATUSES]
    return f"{len(statuses)} runs: " + ", ".join(f"{number} {status}" for number, status in found if number)

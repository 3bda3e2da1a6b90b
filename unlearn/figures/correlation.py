"""v against its proxy, and against the proxy that knows nothing but the step count."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from unlearn.figures import style
from unlearn.figures.saved import Saved

V = "verification_error"
PROXY = "unlearning_error_unrolled"


def draw(run: Saved) -> Figure | None:
    """Draw v against the unrolled unlearning error and against the step count, each with Spearman's rho.

    Args:
        run: the saved values.

    Returns:
        The figure; None where fewer than two steps from the first visit on have both, or v never changes.
    """
    both = run.steps.loc[run.steps["visits"] > 0, ["step", PROXY, V]].dropna()  # before the first visit v is 0
    if len(both) < 2 or both[V].nunique() < 2:
        return None
    log = bool((both > 0).all(axis=None))
    size, edge = (26, 0.4) if len(both) <= 200 else (10, 0)  # outlines of crowded points hide their colours
    figure = style.blank(8.6, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, proxy, title, label in (
        (left, both[PROXY], "v against its proxy e", "e, unrolled" if run.rooted else "e, unrolled (weight units)"),
        (right, both["step"], "v against the null proxy, the step count", "t (steps)"),
    ):
        points = axes.scatter(
            proxy, both[V], c=both["step"], cmap="viridis", s=size, edgecolors="black", linewidths=edge
        )
        axes.set_title(f"{title}\n{agreement(run.summary, str(proxy.name), len(both))}", fontsize=10)
        axes.set_xlabel(label)
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
            style.spread_ticks(axes.xaxis, proxy)
            style.spread_ticks(axes.yaxis, both[V])
        style.tidy(axes)
    left.set_ylabel("v, verification error (weight units)")
    figure.colorbar(points, ax=[left, right], label="t (steps)", pad=0.02)
    return figure


def agreement(summary: Mapping[str, Any], proxy: str, points: int) -> str:
    """Say how well v ranks like a proxy, as the summary has it.

    Args:
        summary: of the run; may be empty.
        proxy: a column.
        points: how many are drawn.

    Returns:
        Spearman's rho and n; the number of points alone where the summary has no rho.
    """
    found = summary.get("correlations", {}).get(proxy, {})
    if found.get("spearman") is None:
        return f"n = {points}"
    return rf"Spearman $\rho$ = {found['spearman']:.3f}, n = {found['n']}"

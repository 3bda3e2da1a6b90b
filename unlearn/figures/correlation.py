"""v against its proxy, and against the proxy that knows nothing but the step count."""

from matplotlib.figure import Figure
from pandas import DataFrame

from unlearn.figures import style
from unlearn.figures.saved import Saved
from unlearn.metrics.correlations import correlation

V = "verification_error"
PROXY = "unlearning_error_unrolled"


def draw(run: Saved) -> Figure | None:
    """Draw v against the unrolled unlearning error and against the step count, each with Spearman's rho.

    Args:
        run: the saved values.

    Returns:
        The figure; None where fewer than two steps from the first visit on have both, or v never changes.
    """
    seen = run.steps[run.steps["visits"] > 0]  # before the first visit v is 0
    both = seen[["step", PROXY, V]].dropna()
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
        axes.set_title(f"{title}\n{agreement(seen, str(proxy.name))}", fontsize=10)
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


def agreement(steps: DataFrame, proxy: str) -> str:
    """Say how well v ranks like a proxy, as the summary does.

    Args:
        steps: measured ones.
        proxy: a column.

    Returns:
        Spearman's rho and n; no rho where fewer than three points, or equal ones, leave nothing to rank.
    """
    found = correlation(steps["step"].tolist(), steps[V].tolist(), steps[proxy].tolist())
    rho = "" if found["spearman"] is None else rf"Spearman $\rho$ = {found['spearman']:.3f}, "
    return f"{rho}n = {found['n']}"

"""v and its proxies over the steps."""

from itertools import cycle
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from unlearn.figures import style
from unlearn.figures.saved import Saved
from unlearn.values.measurement import COLUMNS, ERRORS

V = "verification_error"
NOOP = "noop_distance"
FORECAST = "predicted_noop_distance"
LOG_FROM = 20  # largest over smallest value from which a linear axis would flatten a curve


def draw(run: Saved) -> Figure | None:
    """Draw v, the distance of doing nothing and the unlearning errors over the steps.

    The axis is logarithmic where the values differ much; a logarithm has no zero, so the legend counts the zeros.

    Args:
        run: the saved values.

    Returns:
        The figure, or None where neither v nor an unlearning error was measured.
    """
    looks = _looks()
    steps = run.steps.set_index("step")[list(looks)].dropna(axis="columns", how="all")
    names = [name for name in looks if name in steps]
    if not set(names) - {NOOP, FORECAST}:
        return None
    values = steps.to_numpy()
    positive = values[values > 0]
    log = positive.size > 0 and bool(positive.max() > LOG_FROM * positive.min())

    figure = style.blank(7.6, 4.2)
    axes = figure.add_subplot()
    lines: dict[str, Line2D] = {}
    for place, name in enumerate(names):
        measured = steps[name].dropna()
        shown = measured[measured > 0] if log else measured
        zeros = len(measured) - len(shown)
        label = _label(name) + (f"\n(0 at {zeros} of {len(measured)}, not shown)" if zeros else "")
        every = (place, max(len(shown) // 8, 1)) if len(shown) > 16 else 1
        (lines[name],) = axes.plot(shown.index, shown, label=label, markevery=every, **looks[name])
    if log:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel("t (steps)")
    axes.set_ylabel("error or distance (units: see legend)")
    style.tidy(axes)
    units = {column.name: column.unit for column in COLUMNS}
    if run.rooted:
        units["unlearning_error_unrolled"] = ""
    _legend(figure, lines, units, [str(name) for name in steps.ffill().iloc[-1].sort_values(ascending=False).index])
    return figure


def _looks() -> dict[str, dict[str, Any]]:
    colors = (style.VERMILLION, style.BLUE, style.SKY, style.GREEN, style.ORANGE)
    dashes = ((0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (2, 1.5)), (0, (6, 1, 1, 1, 1, 1)))
    looks: dict[str, dict[str, Any]] = {
        V: {"color": style.BLACK, "linewidth": 3, "marker": "o", "markersize": 5, "zorder": 3},
        NOOP: {"color": style.PURPLE, "linewidth": 1.8, "marker": "s", "markersize": 4.5},
        FORECAST: {
            "color": style.GREY, "linewidth": 1.6, "linestyle": ":", "zorder": 4,
            "marker": "o", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.3,
        },
    }  # fmt: skip
    # what foretells a line is drawn over it: the better it is, the more of it would be hidden
    for color, dash, marker, name in zip(cycle(colors), cycle(dashes), cycle("^vDXP"), ERRORS, strict=False):
        lines = {"color": color, "linestyle": dash, "linewidth": 1.6}
        looks[name] = {**lines, "marker": marker, "markersize": 5, "zorder": 4}
    return looks


def _label(name: str) -> str:
    named = {V: "v, verification error", NOOP: "no-op distance", FORECAST: "no-op distance, predicted"}
    return named.get(name, "e, " + name.removeprefix("unlearning_error_").replace("_", " "))


def _legend(figure: Figure, lines: dict[str, Line2D], units: dict[str, str], order: list[str]) -> None:
    """List the lines as they end, from top to bottom, those in weight units first."""
    groups = {
        "in weight units": [lines[name] for name in order if units[name] == "weight"],
        "in other units": [lines[name] for name in order if units[name] != "weight"],
    }
    handles: list[Line2D] = []
    for heading, members in groups.items():
        if members:
            handles += [Line2D([], [], linestyle="", label=heading), *members]
    legend = figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, handlelength=3.2)
    for text in legend.get_texts():
        if text.get_text() in groups:
            text.set_fontweight("bold")

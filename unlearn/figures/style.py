"""One look for all figures: fit for print, and for eyes that cannot tell red from green."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from pandas import Series

from unlearn.values.whole import whole

# Okabe and Ito's palette, without the yellow, which white paper swallows
BLACK = "#000000"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREY = "#555555"

SHORT = 30.0  # largest over smallest value, below which powers of ten are too few labels


def blank(width: float, height: float) -> Figure:
    """Start a figure that belongs to no window and to no global state.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        An empty figure, 150 dots an inch, that makes room for its labels by itself.
    """
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes: Axes) -> None:
    """Take away what carries nothing, and lay a faint grid below the data.

    Args:
        axes: changed in place.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def spread_ticks(axis: Axis, values: Series) -> None:
    """Label a short logarithmic axis at 1, 2 and 5 alone; matplotlib's own labels of every digit run into each other.

    Args:
        axis: a logarithmic axis; changed in place.
        values: what is drawn along it, all positive.
    """
    if values.max() < SHORT * values.min():
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; the same data give the same bytes.

    Args:
        figure: a finished figure.
        path: the file; its folder is made.

    Returns:
        The path.
    """
    with whole(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})
    return path

"""What the three models get right."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearn.figures import style
from unlearn.figures.saved import Saved
from unlearn.values.measurement import SETS

MODELS = {
    "original": ("M, original", style.SKY, ""),
    "retrained": ("M', retrained", style.ORANGE, "//"),
    "unlearned": ("M'', unlearned", style.GREEN, ".."),
}


def draw(run: Saved) -> Figure | None:
    """Draw the accuracy of M, M' and M'' on the retain, forget and test set.

    Args:
        run: the saved values.

    Returns:
        The figure, or None where no accuracy was saved.
    """
    accuracies = run.summary.get("accuracy") or {}
    saved = {model: accuracies.get(model) or {} for model in MODELS}
    # rows are sets, columns are models; a set without points, or a model that was not made, has NaN
    table = pd.DataFrame(saved, index=pd.Index(SETS), dtype=float) * 100
    table = table.dropna(axis="index", how="all").dropna(axis="columns", how="all")
    if table.empty:
        return None
    figure = style.blank(6.4, 3.8)
    axes = figure.add_subplot()
    width = 0.8 / table.shape[1]
    for place, model in enumerate(model for model in MODELS if model in table):
        label, color, hatch = MODELS[model]
        left = np.arange(len(table)) + (place - (table.shape[1] - 1) / 2) * width
        bars = axes.bar(left, table[model], 0.9 * width, label=label, color=color, hatch=hatch, edgecolor="black")
        texts = [f"{value:.1f}" if np.isfinite(value) else "" for value in table[model]]
        axes.bar_label(bars, texts, padding=2, fontsize=8)
    axes.set_xticks(np.arange(len(table)), [f"{name} set" for name in table.index])
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy (%)")
    style.tidy(axes)
    axes.grid(False, axis="x")
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure

"""Correlations of the verification error with its proxies, the null proxies among them.

In one run both v and e grow with t, so a plain correlation mostly says that. First differences, each divided by the
steps that it spans (the last one is often shorter), take the trend out, and
the step count as a rival shows how much of the correlation any growing number would have had.

A size is the norm of a difference of float32 weights, so one that stands still trembles in its last digits, and so do
the steps of one that rises evenly. Ranks would take that for rise and fall: what agrees to `SAME` is the same here, and
so are differences that agree to what `SAME` of the values leaves of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

SAME = 1e-6  # relative


def correlation(steps: Sequence[int], x: Sequence[float | None], y: Sequence[float | None]) -> dict[str, Any]:
    """Correlate two series over steps, plain and by first differences.

    Args:
        steps: the measured steps, ascending.
        x: one value for each; None or NaN where there is none.
        y: as long as x.

    Returns:
        `pearson`, `spearman`, `pearson_differences`, `spearman_differences`: None where fewer than three pairs are
        there or one side is constant; `n`: how many steps have both values.
    """
    pairs = np.array([x, y], dtype=float)
    found = np.isfinite(pairs).all(axis=0)
    pairs = np.array([_still(series) for series in pairs[:, found]])
    gaps = np.diff(np.array(steps)[found])
    rates = np.array([_even(np.diff(series) / gaps, _trembling(series, gaps)) for series in pairs])
    plain, spread = _both(pairs), _both(rates)
    return {
        "pearson": plain[0],
        "spearman": plain[1],
        "pearson_differences": spread[0],
        "spearman_differences": spread[1],
        "n": pairs.shape[1],
    }


def _still(series: np.ndarray) -> np.ndarray:
    """Let each value that agrees with the one before be that one; a drift is let go once it has left where it stood."""
    out = series.copy()
    for k in range(1, len(out)):
        if abs(out[k] - out[k - 1]) <= SAME * abs(out[k - 1]):
            out[k] = out[k - 1]
    return out


def _trembling(series: np.ndarray, gaps: np.ndarray) -> float:
    """Give the most by which two differences a step may differ for rounding alone."""
    return 2 * SAME * float(np.abs(series).max() / gaps.min()) if len(gaps) else 0.0


def _even(rates: np.ndarray, tolerance: float) -> np.ndarray:
    """Let rates that agree be one: each run of them in ascending order, as far as its least reaches."""
    out, least = rates.copy(), -np.inf
    for place in rates.argsort():
        if rates[place] - least <= tolerance:
            out[place] = least
        else:
            least = rates[place]
    return out


def _both(pairs: np.ndarray) -> tuple[float | None, float | None]:
    if pairs.shape[1] < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return None, None
    return float(stats.pearsonr(*pairs).statistic), float(stats.spearmanr(*pairs).statistic)

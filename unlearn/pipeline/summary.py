"""From measured steps to the numbers a run ends with."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from unlearn.metrics.correlations import correlation
from unlearn.values.measurement import ERRORS, NULL_PROXIES, Measurement


def summarise(rows: Sequence[Measurement], **rest: Any) -> dict[str, Any]:
    """Put together `summary.json`.

    Args:
        rows: the measured steps, in order.
        rest: further entries; `status` among them.

    Returns:
        `rest`; the last value of each column; `ratio`, v over the no-op distance (None where that is 0);
        `correlations` of v with each unlearning error and with each null proxy, from the first visit on: before it v is
        0 whatever they are.
    """
    status = {"status": rest.pop("status")}
    if not rows:
        return {**status, **rest}
    last = asdict(rows[-1])
    v, noop = last["verification_error"], last["noop_distance"]
    visited = [row for row in rows if row.visits]
    series = {name: [getattr(row, name) for row in visited] for name in last}
    return {
        **status,
        **last,
        "ratio": v / noop if v is not None and noop else None,
        "correlations": {
            name: correlation(series["step"], series["verification_error"], series[name])
            for name in (*ERRORS, *NULL_PROXIES)
        },
        **rest,
    }

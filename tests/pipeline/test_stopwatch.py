"""Seconds by stage, on a clock of our own."""

import time

import pytest

from unlearn.pipeline.stopwatch import Stopwatch


def test_stages_add_up_and_hold_what_is_inside_them(monkeypatch):
    instants = iter([0, 1, 3, 7, 20, 21, 30, 34])
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(instants)))
    seconds = Stopwatch()
    with seconds("outer"), seconds("inner"):  # 0 and 1, then 3 and 7
        pass
    with seconds("inner"):
        pass
    with pytest.raises(KeyError), seconds("fails"):
        raise KeyError
    assert seconds.seconds == {"inner": (3 - 1) + (21 - 20), "outer": 7, "fails": 4}

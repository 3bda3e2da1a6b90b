"""The numbers that a run ends with."""

import pytest

from tests.rows import row
from unlearn.pipeline.summary import summarise


def rows(visits, v, e):
    return [
        row(step=5 * (k + 1), visits=visits[k], verification_error=v[k], unlearning_error_unrolled=e[k])
        for k in range(len(v))
    ]


def test_correlations_begin_at_the_first_visit():
    found = summarise(rows([0, 0, 1, 1, 1, 1], [0, 0, 1, 3, 2, 4.0], [9, 9, 1, 3, 2, 4.0]), status="completed")
    unrolled, step = (found["correlations"][key] for key in ("unlearning_error_unrolled", "step"))
    assert (unrolled["spearman"], unrolled["n"]) == (pytest.approx(1), 4)
    assert step["spearman"] == pytest.approx(0.8)


def test_the_last_row_and_the_ratio():
    found = summarise(rows([1, 1], [0.2, 0.11], [1.0, 1.0]), status="completed", extra=3)
    assert (found["step"], found["status"], found["extra"]) == (10, "completed", 3)
    assert found["ratio"] == pytest.approx(0.11 / 0.3)


def test_there_is_no_ratio_where_m_prime_is_m():
    assert summarise([row(noop_distance=0.0, verification_error=0.0)], status="completed")["ratio"] is None


def test_nothing_measured_is_a_status_alone():
    assert summarise([], status="diverged", error="x") == {"status": "diverged", "error": "x"}

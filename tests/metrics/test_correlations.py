import pytest

from unlearn.metrics.correlations import correlation


def test_by_hand():
    found = correlation([1, 2, 3, 5], [1.0, 2.0, 3.0, 5.0], [1.0, 4.0, 9.0, 25.0])
    assert found["spearman"] == 1
    assert found["pearson"] == pytest.approx(53.75 / (8.75 * 342.75) ** 0.5)
    assert found["n"] == 4


def test_a_common_trend_is_taken_out_by_differences():
    steps = list(range(20))
    up_and_down = [(-1) ** i * 0.3 for i in steps]
    a = [i + d for i, d in zip(steps, up_and_down, strict=True)]
    b = [i - d for i, d in zip(steps, up_and_down, strict=True)]
    found = correlation(steps, a, b)
    assert found["spearman"] > 0.98
    assert found["pearson_differences"] == pytest.approx(-1)


def test_missing_values_are_left_out():
    found = correlation([1, 2, 3, 4, 5], [1.0, None, 3.0, 4.0, float("nan")], [2.0, 5.0, None, 8.0, 9.0])
    assert found == {
        "pearson": None, "spearman": None, "pearson_differences": None, "spearman_differences": None, "n": 2,
    }  # fmt: skip


def test_a_constant_has_no_correlation():
    assert correlation([1, 2, 3], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0])["pearson"] is None


def test_a_short_last_gap_is_no_difference():
    """v and the step count grow at rates that have nothing to do with each other, and the last gap is half as long."""
    steps, rates = [10, 20, 30, 40, 45], [3.0, 1.0, 2.0, 2.5]
    v = [0.0]
    for gap, rate in zip([10, 10, 10, 5], rates, strict=True):
        v.append(v[-1] + gap * rate)
    found = correlation(steps, v, steps)
    assert found["spearman"] == pytest.approx(1)
    assert found["spearman_differences"] is None  # the count grows by one a step, always
    double = correlation(steps, v, [2 * value for value in v])
    assert double["pearson_differences"] == pytest.approx(1)


def test_what_stands_still_but_for_rounding_is_constant():
    """The size of a correction between two visits, as float32 weights give it."""
    v = [float(step) for step in range(1, 9)]
    trembling = [0.04 * (1 + 1e-7 * (-1) ** step) for step in range(8)]
    assert correlation(range(8), v, trembling) == {
        "pearson": None, "spearman": None, "pearson_differences": None, "spearman_differences": None, "n": 8,
    }  # fmt: skip
    jumps = [value + (0.02 if step > 3 else 0) for step, value in enumerate(trembling)]
    sharp = [0.04 + (0.02 if step > 3 else 0) for step in range(8)]
    found, wanted = correlation(range(8), v, jumps), correlation(range(8), v, sharp)
    assert found["spearman"] == wanted["spearman"]
    assert found["spearman_differences"] is wanted["spearman_differences"] is None  # of the differences of v: all 1
    quick = [value * value for value in v]
    found, wanted = correlation(range(8), quick, jumps), correlation(range(8), quick, sharp)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_slow_drift_is_no_standstill():
    drift = [1 + 3e-7 * step for step in range(40)]
    assert correlation(range(40), [float(step) for step in range(40)], drift)["spearman"] > 0.98


def test_even_jumps_but_for_rounding_are_even():
    """A correction that grows by the same gradient at each visit, measured once an epoch, as a run gave it."""
    jumps = [0.004203029846, 0.004203024879, 0.004203011629, 0.004203032415]
    correction = [0.004203]
    for jump in jumps:
        correction.append(correction[-1] + jump)
    v = [0.0013, 0.003254, 0.005821, 0.008771, 0.011849]
    found = correlation([45, 90, 135, 180, 225], v, correction)
    assert (found["spearman_differences"], found["pearson_differences"]) == (None, None)
    assert found["spearman"] == pytest.approx(1)


def test_even_jumps_and_none_between_are_two_values():
    """Visits lie between some of the rows only; which of the jumps is the largest is rounding."""
    quick = [float(step * step) for step in range(9)]
    trembling = [0.0, 0.0, 0.01 + 1e-10, 0.01, 0.02, 0.02 + 2e-10, 0.03, 0.03, 0.04 + 3e-10]
    sharp = [round(value, 4) for value in trembling]
    found, wanted = correlation(range(9), quick, trembling), correlation(range(9), quick, sharp)
    assert found["spearman_differences"] == pytest.approx(wanted["spearman_differences"], abs=1e-12)

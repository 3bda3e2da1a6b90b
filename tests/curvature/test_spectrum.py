import pytest
import torch

from tests.curvature.matrix import start, symmetric
from unlearn.curvature.spectrum import eigenpairs, error_of
from unlearn.values.errors import UserError

SPECTRUM = [9.0, 7.5, 4.0, 2.0, 0.5, 0.0, -0.25, -1.0, -6.0, -8.0]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("magnitude", [9.0, -8.0, 7.5, -6.0]),
        ("highest", [9.0, 7.5, 4.0, 2.0]),
        ("lowest", [-8.0, -6.0, -1.0, -0.25]),
        ("both", [9.0, -8.0, 7.5, -6.0]),
    ],
)
def test_the_ends_of_a_built_spectrum(which, expected):
    operator, q = symmetric(SPECTRUM)
    found = eigenpairs(operator, start(10), 4, which, 1e-10, 10)
    assert [pair.value for pair in found] == pytest.approx(expected, abs=1e-9)
    for pair in found:
        assert pair.converged
        own = q[:, SPECTRUM.index(pytest.approx(pair.value, abs=1e-6))]
        assert abs(float(pair.vector @ own)) == pytest.approx(1, abs=1e-9)


def test_it_stops_before_the_space_is_whole_and_says_how_far_off_each_value_is():
    eigenvalues = [*torch.linspace(-1, 1, 300, dtype=torch.float64).tolist(), 10.0, 8.0, 6.0, -5.0]
    operator, _ = symmetric(eigenvalues)
    found = eigenpairs(operator, start(304), 3, "highest", 1e-3, 100)
    assert found[0].products < 20
    for pair, truth in zip(found, (10.0, 8.0, 6.0), strict=True):
        assert pair.converged
        assert abs(pair.value - truth) <= pair.error < 1e-3 * truth


def test_a_budget_that_is_too_small_is_said_pair_by_pair():
    operator, _ = symmetric(torch.linspace(0, 1, 100, dtype=torch.float64).tolist())
    found = eigenpairs(operator, start(100), 3, "highest", 1e-9, 5)
    assert [(pair.products, pair.converged) for pair in found] == [(5, False)] * 3


def test_fewer_pairs_where_there_are_fewer():
    operator, _ = symmetric([3.0, 1.0])
    assert [pair.value for pair in eigenpairs(operator, start(2), 5, "both", 1e-8, 20)] == pytest.approx([3.0, 1.0])


def test_an_unknown_end_is_refused():
    operator, _ = symmetric([3.0, 1.0])
    with pytest.raises(UserError, match="which=top"):
        eigenpairs(operator, start(2), 1, "top", 1e-8, 20)


def test_the_error_is_of_second_order_only_where_the_gap_allows():
    assert error_of(0.1, 4.0) == pytest.approx(0.01)
    assert error_of(0.1, 0.05) == 0.1
    assert error_of(0.1, 0.0) == 0.1

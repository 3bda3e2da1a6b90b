import pytest
import torch

from tests.curvature.matrix import Matrix, start, symmetric
from unlearn.curvature.estimators import Dense, Lanczos, PowerIteration

TIGHT = [Lanczos("lanczos", 1e-10, 200), PowerIteration("power", 1e-13, 100_000), Dense("dense")]


@pytest.mark.parametrize("estimator", TIGHT, ids=lambda e: e.name)
@pytest.mark.parametrize(
    "eigenvalues",
    [
        [5.0, 1, 0.5, 0, -1, -2],
        [-7.0, 6, 1, 0, 0, 0],
        [3.0, 2.99, 2.9, 1, 0, -1],
        [-1e-8, 1e-9, 0, 0],
        [2.0],
        [-2.0],
    ],
    ids=["positive", "negative", "clustered", "tiny", "one", "one negative"],
)
def test_the_eigenvalue_of_largest_magnitude_and_its_vector(estimator, eigenvalues):
    operator, q = symmetric(eigenvalues)
    found = estimator(operator, start(len(eigenvalues)))
    assert found.value == pytest.approx(eigenvalues[0], rel=1e-6)
    assert found.converged
    assert abs(float(found.vector @ q[:, 0])) == pytest.approx(1, abs=1e-3)
    actual = torch.linalg.vector_norm(operator.matvec(found.vector) - found.value * found.vector)
    assert actual.item() == pytest.approx(found.residual, abs=1e-9)


def test_a_double_eigenvalue_is_found():
    operator, _ = symmetric([4.0, 4.0, 1.0, 0.0])
    assert Lanczos("lanczos", 1e-8, 30)(operator, start(4)).value == pytest.approx(4)


def test_the_zero_operator_has_sigma_zero():
    for estimator in TIGHT:
        assert estimator(Matrix(torch.zeros(4, 4, dtype=torch.float64)), start(4)).value == 0


def test_an_eigenvector_as_start_needs_one_product():
    operator, q = symmetric([5.0, 3, 1, 0])
    found = Lanczos("lanczos", 1e-6, 30)(operator, q[:, 0])
    assert (found.products, found.converged) == (1, True)
    assert found.value == pytest.approx(5)


def test_the_tolerance_is_an_error_for_lanczos_and_not_for_power_iteration():
    eigenvalues = torch.linspace(-1, 10, 200, dtype=torch.float64).flip(0).tolist()
    operator, _ = symmetric(eigenvalues)
    lanczos, power = (e(operator, start(200)) for e in (Lanczos("l", 1e-3, 60), PowerIteration("p", 1e-3, 100)))
    assert lanczos.converged
    assert abs(lanczos.value / 10 - 1) < 1e-3
    assert power.converged
    assert abs(power.value / 10 - 1) > 1e-2
    same_budget = Lanczos("l", 1e-12, power.products)(operator, start(200))
    assert abs(same_budget.value - 10) < abs(power.value - 10) / 5


def test_the_budget_is_kept_and_said():
    operator, _ = symmetric(torch.linspace(0, 1, 100, dtype=torch.float64).flip(0).tolist())
    for estimator in (Lanczos("lanczos", 1e-12, 4), PowerIteration("power", 1e-12, 4)):
        found = estimator(operator, start(100))
        assert (found.products, found.converged) == (4, False)


class Diagonal:
    """As many weights as a ResNet-18 in float32, where a float32 norm is half a per mille too low."""

    def __init__(self, dim):
        self.dim = dim
        self.entries = torch.linspace(0, 1, dim)
        self.entries[dim // 2] = 2.0

    def matvec(self, vector):
        return self.entries * vector


@pytest.mark.parametrize("estimator", [Lanczos("lanczos", 1e-5, 30), PowerIteration("power", 1e-7, 100)])
def test_eleven_million_weights_in_float32(estimator):
    operator = Diagonal(11_000_000)
    start = torch.randn(operator.dim, generator=torch.Generator().manual_seed(0))
    start[operator.dim // 2] += 1000  # so that few products are enough
    found = estimator(operator, start)
    assert found.value == pytest.approx(2, rel=2e-5)
    assert found.value <= 2 * (1 + 1e-6)  # a Rayleigh quotient never exceeds the top eigenvalue
    assert torch.linalg.vector_norm(found.vector.double()).item() == pytest.approx(1, abs=1e-6)

import pytest
import torch

from tests.curvature.matrix import Matrix
from unlearn.curvature.krylov import krylov
from unlearn.curvature.operator import Halves


def operator(dim=12, seed=0):
    stream = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, dim, generator=stream, dtype=torch.float64)
    return Matrix((root + root.T) / 2), torch.randn(dim, generator=stream, dtype=torch.float64)


def test_basis_is_orthonormal_and_t_is_the_operator_in_it():
    a, b = operator()
    space = krylov(a, b, 7)
    q = torch.stack(space.basis[:7], dim=1)
    assert torch.allclose(q.T @ q, torch.eye(7, dtype=torch.float64), atol=1e-13)
    assert torch.allclose(q.T @ a.entries @ q, space.tridiagonal(), atol=1e-12)


@pytest.mark.parametrize("f", [torch.exp, torch.tanh, lambda x: (1 - 0.1 * x) ** 30, torch.ones_like])
def test_functions_are_exact_with_as_many_products_as_dimensions(f):
    a, b = operator()
    values, vectors = torch.linalg.eigh(a.entries)
    truth = vectors @ (f(values) * (vectors.T @ b))
    space = krylov(a, b, 12)
    assert space.exhausted
    assert torch.allclose(space.combine(space.function(f)), truth, rtol=1e-10)
    assert space.error(f) == 0


def test_one_run_serves_another_start_in_the_space():
    a, b = operator()
    space = krylov(a, b, 12)
    other = torch.arange(12.0, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(a.entries)
    truth = vectors @ (values.exp() * (vectors.T @ other))
    assert torch.allclose(space.combine(space.function(torch.exp, space.coordinates(other))), truth, rtol=1e-9)


def test_the_error_estimate_follows_the_error():
    a, b = operator(dim=60)
    a = Matrix(a.entries / 10)
    values, vectors = torch.linalg.eigh(a.entries)
    truth = vectors @ (values.exp() * (vectors.T @ b))
    errors = []
    for products in (2, 4, 6, 8):
        space = krylov(a, b, products)
        actual = float(torch.linalg.vector_norm(space.combine(space.function(torch.exp)) - truth))
        assert actual < space.error(torch.exp) < 30 * actual + 1e-12
        errors.append(actual)
    assert errors == sorted(errors, reverse=True)
    assert krylov(a, b, 1).error(torch.exp) == float("inf")


def test_an_invariant_space_ends_the_run():
    a = Matrix(torch.diag(torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)))
    space = krylov(a, torch.tensor([1.0, 1, 0, 0], dtype=torch.float64), 4)
    assert (space.products, space.exhausted) == (2, True)


def test_projections_of_halves():
    (one, b), (other, _) = operator(), operator(seed=1)
    space = krylov(Halves(one, other, 0.25), b, 5)
    q = torch.stack(space.basis[:5], dim=1)
    for found, half in zip(space.halves(), (one, other), strict=True):
        assert torch.allclose(found, q.T @ half.entries @ q, atol=1e-12)


def test_equal_halves_that_are_not_symmetric_project_alike():
    """A quotient over kinks is none; all that is unsymmetric was laid to the second half once."""
    one, b = operator()
    skewed = Matrix(one.entries + torch.triu(torch.ones_like(one.entries), 1))
    first, second = krylov(Halves(skewed, skewed, 0.5), b, 5).halves()
    assert torch.equal(first, second)
    assert krylov(skewed, b, 5).halves() is None

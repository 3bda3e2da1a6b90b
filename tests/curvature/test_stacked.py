"""Stacked curvature against the single one, in float64."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.curvature.matrix import Matrix
from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.krylov import krylov
from unlearn.curvature.lockstep import lockstep
from unlearn.curvature.operator import Hessian
from unlearn.curvature.spectrum import search
from unlearn.curvature.stacked import (
    StackedHessian,
    StackedKrylov,
)
from unlearn.curvature.tracker import Tracker, Warmth

DIM, ROWS = 30, 5


@dataclass(frozen=True)
class Matrices:
    entries: Tensor

    def matvec(self, vectors, going):
        return torch.einsum("kij,kj->ki", self.entries, vectors)


def symmetric(seed, scale=1.0):
    stream = torch.Generator().manual_seed(seed)
    root = torch.randn(ROWS, DIM, DIM, generator=stream, dtype=torch.float64)
    return root + root.mT + scale * torch.diag(torch.linspace(-3, 12, DIM, dtype=torch.float64))


def vectors(seed):
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_products_are_those_of_each_row():
    def loss(row, k):
        return (row.sin() * row.roll(1)).sum() * (k + 1) + row.pow(4).sum()

    weights, directions = vectors(0), vectors(1)

    def losses(some):
        return torch.stack([loss(row, k) for k, row in enumerate(some)])

    found = StackedHessian(weights, losses).matvec(directions, torch.ones(ROWS, dtype=torch.bool))
    for k in range(ROWS):
        expected = Hessian(weights[k], [(1.0, lambda row, k=k: loss(row, k))]).matvec(directions[k])
        assert torch.allclose(found[k], expected, rtol=0, atol=1e-12)


def test_losses_linear_in_the_weights_have_no_curvature():
    operator = StackedHessian(vectors(0), lambda some: some.sum(1))
    assert not operator.matvec(vectors(1), torch.ones(ROWS, dtype=torch.bool)).any()


def grown(operator, starts, products):
    space = StackedKrylov.start(starts, products + 1)
    for _ in range(products):
        space.expand(operator, ~space.exhausted)
    return space


@pytest.mark.parametrize("products", [1, 4, DIM])
def test_spaces_are_those_of_each_row(products):
    entries, starts = symmetric(0), vectors(1)
    found = grown(Matrices(entries), starts, products)
    for k in range(ROWS):
        alone = krylov(Matrix(entries[k]), starts[k], products)
        assert (int(found.products[k]), bool(found.exhausted[k])) == (alone.products, alone.exhausted)
        assert torch.allclose(found.tridiagonal(torch.tensor([k]))[0], alone.tridiagonal(), rtol=0, atol=1e-8)
        assert torch.allclose(found.basis[k, :products], torch.stack(alone.basis), rtol=0, atol=1e-8)
        if not alone.exhausted:
            assert float(found.leftover[k]) == pytest.approx(alone.leftover)


def test_a_space_that_ends_early_and_one_that_is_not_there():
    entries, starts = symmetric(0), vectors(1)
    entries[1] = torch.eye(DIM, dtype=torch.float64)
    starts[2] = 0
    found = grown(Matrices(entries), starts, 4)
    assert found.products.tolist() == [4, 1, 0, 4, 4]
    assert bool(found.exhausted[1])
    assert float(found.diagonal[0][1]) == pytest.approx(1)


def searches(lanczos, starts, rows):
    return {k: search(starts[k], 1, "magnitude", lanczos.tolerance, lanczos.max_products) for k in rows}


def test_each_search_ends_where_it_would_alone():
    entries, starts = symmetric(0, 3.0), vectors(1)
    lanczos = Lanczos("lanczos", 1e-6, 20)
    found = lockstep(searches(lanczos, starts, [0, 2, 3, 4]), Matrices(entries), starts)
    assert found.keys() == {0, 2, 3, 4}
    assert len({each.products for _, (each,) in found.values()}) > 1
    for k, (_, (each,)) in found.items():
        alone = lanczos(Matrix(entries[k]), starts[k])
        assert (each.products, each.converged) == (alone.products, alone.converged)
        assert each.value == pytest.approx(alone.value, abs=1e-10)
        assert each.error == pytest.approx(alone.error, rel=1e-4)
        assert torch.allclose(each.vector, alone.vector, rtol=0, atol=1e-8)


def test_a_row_that_is_not_finite_leaves_the_others_alone():
    entries, starts = symmetric(0), vectors(1)
    entries[3] = float("nan")
    lanczos = Lanczos("lanczos", 1e-6, 20)
    found = lockstep(searches(lanczos, starts, range(ROWS)), Matrices(entries), starts)
    assert found[3] is None
    assert found[0][1][0].value == pytest.approx(lanczos(Matrix(entries[0]), starts[0]).value, abs=1e-10)


@pytest.mark.parametrize("warmth", [Warmth(True, 0.01, 4), Warmth(False, 0.01, 4)])
def test_following_eigenvalues_costs_what_it_costs_alone(warmth):
    lanczos = Lanczos("lanczos", 1e-3, 30)
    turn = symmetric(7) * 0.02
    together, alone = ([Tracker(lanczos, warmth) for _ in range(ROWS)] for _ in range(2))
    for step in range(12):
        entries, probes = symmetric(0) + step * turn, vectors(100 + step)
        rows = range(ROWS) if step < 8 else [0, 1, 4]  # two rows drop out
        found = lockstep({k: together[k].search(lanczos, probes[k]) for k in rows}, Matrices(entries), probes)
        assert sorted(found) == list(rows)
        for k in rows:
            expected = alone[k](Matrix(entries[k]), probes[k])
            assert found[k].products == expected.products
            assert found[k].value == pytest.approx(expected.value, abs=1e-9)


def test_room_for_the_basis_grows():
    space = StackedKrylov.start(vectors(0), 1)
    entries = symmetric(0)
    for _ in range(5):
        space.expand(Matrices(entries), torch.ones(ROWS, dtype=torch.bool))
    basis = space.basis[0, :5]
    assert torch.allclose(basis @ basis.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)

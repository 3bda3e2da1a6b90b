from functools import partial

import pytest
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import hessian

from tests.worlds import classifier, learner, quadratic
from unlearn.curvature.estimators import Lanczos
from unlearn.curvature.operator import Hessian, Quotient, dense
from unlearn.penalties import SDPenalty


@pytest.fixture
def objective():
    return classifier(penalty=SDPenalty("sd", 0.5, "none"))


def operator_of(objective, weights, parts):
    losses = [(len(part) / 24, partial(lambda part, w: objective.loss(w, {}, part), part)) for part in parts]
    return Hessian(weights, losses)


def test_products_equal_the_dense_hessian(objective):
    weights, points = objective.network.initial_weights(), torch.arange(24)
    truth = hessian(lambda w: objective.loss(w, {}, points))(weights)
    whole, parts = (operator_of(objective, weights, points.split(size)) for size in (24, 7))
    assert torch.allclose(dense(whole, weights), truth, atol=1e-12)
    # each part's loss is a mean, so the weighted parts add up to the mean over all
    assert torch.allclose(dense(parts, weights), truth, atol=1e-12)


def test_sigma_against_the_dense_hessian_to_1e_6(objective):
    weights = objective.network.initial_weights()
    operator = operator_of(objective, weights, [torch.arange(24)])
    truth = torch.linalg.eigvalsh(dense(operator, weights)).abs().max().item()
    stream = torch.Generator().manual_seed(0)
    start = torch.randn(operator.dim, generator=stream, dtype=torch.float64)
    assert Lanczos("lanczos", 1e-9, 60)(operator, start).value == pytest.approx(truth, rel=1e-6)


def test_curvlinops_and_scipy_agree():
    objective = classifier()
    module, weights = objective.network.module, objective.network.initial_weights()
    data = [(objective.split.inputs, objective.split.labels)]
    theirs = HessianLinearOperator(module, nn.CrossEntropyLoss(), list(module.parameters()), data)
    top = eigsh(theirs.to_scipy(), k=1, which="LM", return_eigenvectors=False, tol=1e-10)[0]
    ours = Lanczos("lanczos", 1e-9, 60)(operator_of(objective, weights, [torch.arange(24)]), torch.ones_like(weights))
    assert ours.value == pytest.approx(top, rel=1e-6)


def test_a_quotient_is_the_hessian_of_a_quadratic_whatever_its_length():
    world, at = quadratic(), learner().weights
    parts = [(share, lambda by: world.gradient(at + by, {}, torch.arange(12))[1]) for share in (0.25, 0.75)]
    for length in (1e-3, 1.0, 100.0):
        product = Quotient(5, parts, length).matvec(3 * at)
        assert torch.allclose(product, 3 * world.a @ at, rtol=1e-9)


def test_a_quotient_sees_the_kinks_within_reach_and_the_hessian_does_not():
    def loss(w):
        return (w - 0.2).relu().sum()  # flat curvature, but the gradient jumps by 1 at .2

    def gradient(by):
        point = by.clone().requires_grad_()
        return torch.autograd.grad(loss(point), point)[0]

    v = torch.tensor([2.0], dtype=torch.float64)
    slopes = [Quotient(1, [(1.0, gradient)], length).matvec(v).item() for length in (0.1, 0.5, 1.0)]
    assert slopes == pytest.approx([0.0, 2 * 1 / (2 * 0.5), 2 * 1 / (2 * 1.0)])
    assert Hessian(torch.zeros(1, dtype=torch.float64), [(1.0, loss)]).matvec(v).item() == 0


def test_a_loss_linear_in_the_weights_has_no_curvature():
    weights = torch.ones(3, dtype=torch.float64)
    assert Hessian(weights, [(1.0, lambda w: w.sum())]).matvec(weights).abs().sum() == 0

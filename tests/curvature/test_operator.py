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
from unlearn.models.network import clone
from unlearn.penalties import L2Penalty, SDPenalty
from unlearn.train.hessian import Sample, chunk_for, gauss_newton_at, hessian_at
from unlearn.train.learner import Learner


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


@pytest.mark.parametrize(
    "penalty", [None, SDPenalty("sd", 0.5, "none"), L2Penalty("l2", 0.3, False), L2Penalty("l2", 0.3, True)]
)
def test_gauss_newton_is_the_hessian_of_a_linear_network(penalty):
    """A linear network has no curvature of its own, so there both agree."""
    objective = classifier(module=nn.Linear(4, 3), penalty=penalty)
    weights, points = objective.network.initial_weights(), torch.arange(24)
    sample = Sample(points, train_mode=True, batch_size=8, chunk=10)
    at = Learner.start(weights, {})
    matrices = [dense(make(objective, at, sample), weights) for make in (gauss_newton_at, hessian_at)]
    assert torch.allclose(*matrices, atol=1e-12)


def test_gauss_newton_of_a_network_is_positive_where_the_hessian_is_not():
    objective = classifier()
    weights = objective.network.initial_weights()
    at, sample = Learner.start(weights, {}), Sample(torch.arange(24), True, 8, 24)
    newton, full = (dense(make(objective, at, sample), weights) for make in (gauss_newton_at, hessian_at))
    assert torch.linalg.eigvalsh(newton).min() > -1e-12
    assert torch.linalg.eigvalsh(full).min() < -1e-3


@pytest.mark.parametrize("chunk", [5, 24])
def test_chunks_change_memory_and_not_the_product(chunk):
    objective = classifier()
    weights = objective.network.initial_weights()
    at, sample = Learner.start(weights, {}), Sample(torch.arange(24), True, 8, chunk)
    truth = dense(operator_of(objective, weights, [torch.arange(24)]), weights)
    operator = hessian_at(objective, at, sample)
    assert operator.keep == (chunk == 24)
    assert torch.allclose(dense(operator, weights), truth, atol=1e-12)


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


def test_a_large_network_never_holds_more_than_a_chunk():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sizes = [chunk_for(6_090, None, cpu), chunk_for(11_173_962, None, cpu), chunk_for(11_173_962, None, cuda)]
    assert [*sizes, chunk_for(11_173_962, 64, cpu)] == [512, 16, 512, 64]
    objective = classifier()
    at = Learner.start(objective.network.initial_weights(), {})
    assert not hessian_at(objective, at, Sample(torch.arange(24), True, 8, 8)).keep


LINEAR = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)]
CONVOLVING = [nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3)]


def test_fewer_points_than_a_batch_are_one_part():
    found = Sample(torch.arange(6), True, 8, 512).parts(True)
    assert [(part.tolist(), batches) for part, batches in found] == [(list(range(6)), 1)]


# 8 + 8 + 6 points: two batches side by side or one after the other, and what is left
@pytest.mark.parametrize("layers", [LINEAR, CONVOLVING])
@pytest.mark.parametrize("chunk", [1, 8, 16, 512])
@pytest.mark.parametrize("make", [hessian_at, gauss_newton_at])
def test_in_train_mode_batchnorm_sees_batches_of_the_training_size(layers, chunk, make):
    objective = classifier(module=nn.Sequential(*layers))
    at = Learner.fresh(objective.network, torch.device("cpu"))
    before = {name: buffer.clone() for name, buffer in at.buffers.items()}
    points = torch.arange(22)

    def of(part):
        share = len(part) / len(points)
        return share, make(objective, at, Sample(part, True, len(part), 1))

    truth = sum(share * dense(operator, at.weights) for share, operator in map(of, points.split(8)))
    found = dense(make(objective, at, Sample(points, True, 8, chunk)), at.weights)
    assert torch.allclose(found, truth, atol=1e-12)
    assert all(before[name].equal(at.buffers[name]) for name in before)


def test_the_hessian_in_train_mode_is_the_slope_of_the_gradient():
    objective = classifier(module=nn.Sequential(*LINEAR))
    at = Learner.fresh(objective.network, torch.device("cpu"))

    def gradient(weights):
        return sum(objective.gradient(weights, clone(at.buffers), part)[1] for part in torch.arange(24).split(8)) / 3

    eye = 1e-5 * torch.eye(len(at.weights), dtype=torch.float64)
    truth = torch.stack([(gradient(at.weights + e) - gradient(at.weights - e)) / 2e-5 for e in eye])
    found = dense(hessian_at(objective, at, Sample(torch.arange(24), True, 8, 512)), at.weights)
    assert torch.allclose(found, truth, atol=1e-7)


def test_a_loss_linear_in_the_weights_has_no_curvature():
    weights = torch.ones(3, dtype=torch.float64)
    assert Hessian(weights, [(1.0, lambda w: w.sum())]).matvec(weights).abs().sum() == 0

"""The training loss's curvature on a sample: chunks, BatchNorm's batches, penalties, Gauss-Newton."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import hessian

from tests.worlds import classifier
from unlearn.curvature.operator import dense
from unlearn.models.network import clone
from unlearn.penalties import L2Penalty, SDPenalty
from unlearn.train.hessian import Sample, chunk_for, gauss_newton_at, hessian_at, sample_points
from unlearn.train.learner import Learner


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
    truth = hessian(lambda w: objective.loss(w, {}, torch.arange(24)))(weights)
    operator = hessian_at(objective, at, sample)
    assert operator.keep == (None if chunk == 24 else 0)
    assert torch.allclose(dense(operator, weights), truth, atol=1e-12)


@pytest.mark.parametrize(("kept", "graphs"), [(0, 0), (4, 0), (5, 1), (14, 2), (20, 4), (24, 5), (512, 5)])
def test_graphs_that_are_kept_change_no_bit_of_a_product(kept, graphs):
    objective = classifier()
    weights = objective.network.initial_weights()
    at, sample = Learner.start(weights, {}), Sample(torch.arange(24), True, 8, 5)
    anew, operator = (hessian_at(objective, at, replace(sample, kept=points)) for points in (0, kept))
    built = []

    def counted(loss, flat):
        built.append(loss)
        return loss(flat)

    operator.losses = [(share, partial(counted, loss)) for share, loss in operator.losses]
    for vector in torch.randn(3, len(weights), generator=torch.Generator().manual_seed(3), dtype=torch.float64):
        assert operator.matvec(vector).equal(anew.matvec(vector))
    assert len(built) == 5 + 2 * (5 - graphs)


def test_a_large_network_never_holds_more_than_a_chunk():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sizes = [chunk_for(6_090, None, cpu), chunk_for(11_173_962, None, cpu), chunk_for(11_173_962, None, cuda)]
    assert [*sizes, chunk_for(11_173_962, 64, cpu)] == [512, 16, 512, 64]
    objective = classifier()
    at = Learner.start(objective.network.initial_weights(), {})
    assert hessian_at(objective, at, Sample(torch.arange(24), True, 8, 8)).keep == 0


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


def test_batches_of_a_drawn_sample_are_mixed_however_the_data_is_stored():
    first = sample_points(64, 32, None)
    drawn = sample_points(64, 32, torch.Generator().manual_seed(0))
    assert first.tolist() == list(range(32))
    assert len(set(drawn.tolist())) == 32
    labels = torch.arange(64) // 16  # stored class by class
    assert all(len(batch.unique()) > 1 for batch in labels[drawn].split(8))


def test_which_points_are_kept_with_batches_side_by_side():
    sample = Sample(torch.arange(22), True, 8, 8)
    assert [replace(sample, kept=kept).held(True) for kept in (0, 7, 8, 16, 21, 22)] == [
        [], [], [8], [8, 16], [8, 16], [8, 16, 22],
    ]  # fmt: skip

"""The curvature of the path: of the batches that M' trained on too, at the weights they were seen at."""

import pytest
import torch
from torch import nn

from tests.worlds import classifier, recipe
from unlearn.curvature.operator import Halves
from unlearn.train.hessian import Sample, hessian_at
from unlearn.train.learner import Learner
from unlearn.train.path import Segment, quotient_on

UNIT = {"order": "as_stored", "batch_size": 6, "forget": (0, 1, 2, 3, 4, 5), "unit": 0}


def ends(objective, far):
    before = objective.network.initial_weights()
    return before, Learner.start(before + far * torch.linspace(-1, 1, len(before), dtype=torch.float64), {})


@pytest.mark.parametrize("decay", ["constant", "linear"])
def test_it_is_the_mean_hessian_of_the_kept_batches_along_the_line(decay):
    objective = classifier()
    plan = recipe(objective, epochs=1, decay=decay, **UNIT)
    before, now = ends(objective, 0.3)
    push = 1e-5 * torch.ones_like(before)
    found = quotient_on(Segment(plan, before, now, range(4), 0), 24, push)
    assert isinstance(found, Halves)  # batches 1 and 3, and 2
    truth, rates = 0, [plan.rate.at(step) for step in (1, 2, 3)]
    assert len(set(rates)) == (1 if decay == "constant" else 3)
    for place in (1, 2, 3):  # batch 0 is forgotten: M' takes no step there
        at = Learner.start(torch.lerp(before, now.weights, place / 4), {})
        sample = Sample(torch.arange(6 * place, 6 * place + 6), True, 6, 6)
        truth = truth + hessian_at(objective, at, sample).matvec(push) * plan.rate.at(place) / sum(rates)
    assert torch.allclose(found.matvec(push), truth, rtol=1e-5, atol=1e-12)


def test_steps_before_the_first_visit_do_not_count():
    objective = classifier()
    plan = recipe(objective, epochs=1, order="as_stored", batch_size=6, forget=tuple(range(6, 12)), unit=1)
    before, now = ends(objective, 0.3)
    push = 1e-5 * torch.ones_like(before)
    found = quotient_on(Segment(plan, before, now, range(4), 1), 24, push)
    truth = 0
    for place in (2, 3):  # M' took step 0 too, when there was nothing to be carried yet
        at = Learner.start(torch.lerp(before, now.weights, place / 4), {})
        sample = Sample(torch.arange(6 * place, 6 * place + 6), True, 6, 6)
        truth = truth + hessian_at(objective, at, sample).matvec(push) / 2
    assert torch.allclose(found.matvec(push), truth, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(("most", "batches"), [(1, 1), (13, 2), (100, 6)])
def test_no_more_points_than_asked_for_but_one_batch(most, batches):
    objective = classifier()
    plan = recipe(objective, epochs=2, **UNIT)
    before, now = ends(objective, 0.1)
    found = quotient_on(Segment(plan, before, now, range(1, 9), 1), most, torch.ones_like(before))
    halves = (found.first, found.second) if isinstance(found, Halves) else (found,)
    assert sum(len(half.parts) for half in halves) == batches


def test_it_changes_nothing_in_m():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    objective = classifier(module=module)
    now = Learner.fresh(objective.network, torch.device("cpu"))
    weights, buffers = now.weights.clone(), {name: buffer.clone() for name, buffer in now.buffers.items()}
    push = torch.ones_like(weights)
    segment = Segment(recipe(objective, epochs=1, **UNIT), weights, now, range(4), 0)
    quotient_on(segment, 24, push).matvec(push)
    assert now.weights.equal(weights)
    assert all(now.buffers[name].equal(buffer) for name, buffer in buffers.items())

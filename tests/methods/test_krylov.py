"""Krylov unlearning against the closed form on a classifier of 51 weights."""

import pytest
import torch
from torch.func import hessian, jacrev

from tests.worlds import classifier, recipe, trained
from unlearn.methods.krylov import KrylovUnlearning
from unlearn.train.learner import Learner

LR, UNIT = 0.5, {"order": "as_stored", "forget": tuple(range(6)), "unit": 0}
EVERY = torch.arange(24)


def state(objective, **schedule):
    start = Learner.fresh(objective.network, torch.device("cpu"))
    return trained(recipe(objective, lr=LR, batch_size=6, epochs=1, **schedule), "visits", start=start)


def curvature(objective, kind, at):
    if kind == "hessian":
        return hessian(lambda w: objective.loss(w, {}, EVERY))(at)
    outer = hessian(lambda z: objective.on_data(EVERY, z))(objective.logits(at, {}, EVERY))  # (n, c, n, c)
    inner = jacrev(lambda w: objective.logits(w, {}, EVERY))(at).flatten(0, 1)
    return inner.T @ outer.flatten(2, 3).flatten(0, 1) @ inner


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_what_three_later_steps_left_of_the_removal_is_added_back(kind):
    objective = classifier()
    done = state(objective, **UNIT)
    at, initial = done.original.weights, objective.network.initial_weights()
    values, vectors = torch.linalg.eigh(curvature(objective, kind, at))
    _, g_0 = objective.gradient(initial, {}, EVERY[:6])
    left = (1 - LR * values.clamp(0, 1 / LR)) ** 3
    expected = at + vectors @ (left * (vectors.T @ (LR * g_0)))
    found = KrylovUnlearning("krylov", len(at), 24, None, kind).unlearn(done)
    assert torch.allclose(found.weights, expected, rtol=0, atol=1e-8)
    assert left.min() < 0.9  # the curvature has a say
    fewer = KrylovUnlearning("krylov", 5, 24, None, kind).unlearn(done)
    assert fewer.gradient_evaluations == 3 * 24 * 5  # a product is about three gradients of the sample


def test_with_nothing_visited_m_stays():
    done = state(classifier(), order="as_stored")
    found = KrylovUnlearning("krylov", 3, 24, None, "hessian").unlearn(done)
    assert found.weights.equal(done.original.weights)
    assert found.gradient_evaluations == 0

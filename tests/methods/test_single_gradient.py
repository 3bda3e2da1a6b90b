"""Single-gradient unlearning and its errors on a quadratic, where all has a closed form."""

import pytest
import torch

from tests.worlds import learner, quadratic, recipe, trained
from unlearn.methods.single_gradient import SingleGradient
from unlearn.values.errors import UserError
from unlearn.values.flat import distance

FIRST = {"order": "as_stored", "forget": (0, 1, 2), "unit": 0}


def unlearn(state, at="initial", correction="plain"):
    return SingleGradient("single_gradient", at, correction).unlearn(state)


def g_0(world):
    return world.a @ learner().weights - world.b[:3].mean(dim=0)


def test_verification_error_in_closed_form():
    world, lr = quadratic(), 0.05
    state = trained(recipe(world, lr=lr, epochs=1, **FIRST), "initial_gradient")
    found = unlearn(state)
    # M' never took the first step; three shared steps later what it did is (I - eta A)^3 eta g_0
    transported = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - lr * world.a, 3) @ (lr * g_0(world))
    assert torch.allclose(state.retrained.weights - state.original.weights, transported, atol=1e-14)
    v = torch.linalg.vector_norm(lr * g_0(world) - transported)
    assert distance(found.weights, state.retrained.weights).item() == pytest.approx(v.item(), rel=1e-12)


def test_one_step_is_undone_exactly():
    state = trained(recipe(quadratic(), epochs=1, max_steps=1, **FIRST), "initial_gradient")
    assert distance(unlearn(state).weights, state.retrained.weights).item() < 1e-15


def test_m_visits_give_the_gradient_back_m_times():
    world = quadratic()
    state = trained(recipe(world, epochs=3, **FIRST), "initial_gradient")
    assert torch.allclose(unlearn(state).weights - state.original.weights, 3 * 0.05 * g_0(world))


def test_points_of_a_batch_as_the_paper_has_them():
    world = quadratic(renormalise="batch_size")
    state = trained(recipe(world, epochs=2, order="as_stored", forget=(0, 5, 7)), "initial_gradient")
    start = learner().weights
    summed = sum(world.a @ start - world.b[i] for i in (0, 5, 7))
    assert torch.allclose(unlearn(state).weights - state.original.weights, 0.05 * 2 / 3 * summed)


def test_momentum_aware_undoes_the_first_order_effect_of_momentum():
    world = quadratic()
    small = 1e-6  # curvature enters with lr^2
    state = trained(recipe(world, lr=small, epochs=1, momentum=0.9, **FIRST), "initial_gradient")
    noop = distance(state.original.weights, state.retrained.weights).item()
    aware, plain = (unlearn(state, correction=c) for c in ("momentum_aware", "plain"))
    assert distance(aware.weights, state.retrained.weights).item() < 1e-4 * noop
    # the effect is (1 - mu^4)/(1 - mu) = 3.439 gradients, of which plain gives one back
    assert distance(plain.weights, state.retrained.weights).item() == pytest.approx(noop * 2.439 / 3.439, rel=1e-4)


def test_gradient_at_the_current_weights():
    world = quadratic()
    state = trained(recipe(world, epochs=1, **FIRST))
    gradient = world.a @ state.original.weights - world.b[:3].mean(dim=0)
    found = unlearn(state, at="current")
    assert torch.allclose(found.weights - state.original.weights, 0.05 * gradient)
    assert found.gradient_evaluations == 3


def test_gradient_after_the_first_step():
    world = quadratic()
    state = trained(recipe(world, epochs=1, **FIRST), "first_gradient")
    w_1 = learner().weights - 0.05 * g_0(world)
    expected = 0.05 * (world.a @ w_1 - world.b[:3].mean(dim=0))
    assert torch.allclose(unlearn(state, at="first").weights - state.original.weights, expected)


def test_checkpoints_use_the_recorded_correction():
    state = trained(recipe(quadratic(), epochs=2, momentum=0.9, **FIRST), "checkpoint_gradients")
    at, start = state.recording.checkpointed, state.original.weights
    for correction, expected in (("plain", at.plain), ("momentum_aware", at.momentum_aware)):
        found = unlearn(state, at="checkpoint", correction=correction)
        assert torch.allclose(found.weights - start, expected, atol=1e-15)
    assert not torch.allclose(at.plain, at.momentum_aware)


def test_nothing_forgotten_changes_nothing():
    state = trained(recipe(quadratic(), epochs=1), "initial_gradient")
    assert unlearn(state).weights.equal(state.original.weights)


@pytest.mark.parametrize("wrong", [{"at": "w0"}, {"correction": "aware"}])
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(UserError, match="method"):
        unlearn(None, **wrong)

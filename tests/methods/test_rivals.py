"""The rivals: no-op, retraining, amnesiac, ascent and fine-tuning."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.worlds import classifier, learner, quadratic, recipe, trained
from unlearn.data.augmentation import Augmentation
from unlearn.methods.amnesiac import Amnesiac
from unlearn.methods.finetune import Finetune
from unlearn.methods.gradient_ascent import GradientAscent
from unlearn.methods.krylov import KrylovUnlearning
from unlearn.methods.method import applied
from unlearn.methods.noop import Nothing
from unlearn.methods.retrain import Retrain
from unlearn.train.learner import Learner
from unlearn.values.errors import UserError
from unlearn.values.flat import distance
from unlearn.values.streams import seed_for

FIRST = {"order": "as_stored", "forget": (0, 1, 2), "unit": 0}


def test_the_no_op_is_m_and_retraining_is_m_prime():
    state = trained(recipe(quadratic(), epochs=1, **FIRST))
    assert Nothing("none").unlearn(state).weights.equal(state.original.weights)
    retrained = Retrain("retrain").unlearn(state)
    assert retrained.weights.equal(state.retrained.weights)
    assert retrained.gradient_evaluations == 9


def test_amnesiac_takes_the_update_back():
    plan = recipe(quadratic(), epochs=1, max_steps=1, momentum=0.9, weight_decay=0.1, **FIRST)
    state = trained(plan, "updates")
    assert torch.allclose(Amnesiac("amnesiac").unlearn(state).weights, state.retrained.weights, atol=1e-15)


def test_amnesiac_equals_single_gradient_at_the_visit_under_plain_sgd():
    world = quadratic()
    state = trained(recipe(world, epochs=1, **FIRST), "updates")
    g_0 = world.a @ learner().weights - world.b[:3].mean(dim=0)
    assert torch.allclose(Amnesiac("amnesiac").unlearn(state).weights - state.original.weights, 0.05 * g_0)


def test_ascent_follows_the_gradient_up():
    world = quadratic()
    state = trained(recipe(world, epochs=1, **FIRST))
    found = GradientAscent("gradient_ascent", 0.1, 2).unlearn(state)
    w = state.original.weights
    for _ in range(2):
        w = w + 0.1 * (world.a @ w - world.b[:3].mean(dim=0))
    assert torch.allclose(found.weights, w)
    assert found.gradient_evaluations == 6


def test_finetuning_sees_the_retain_set_alone_and_leaves_m_alone():
    objective = classifier()
    state = trained(recipe(objective, forget=(0, 1, 2)), start=Learner.fresh(objective.network, torch.device("cpu")))
    before = state.original.weights.clone()
    found = Finetune("finetune", 0.1, 3).unlearn(state)
    assert state.original.weights.equal(before)
    assert found.gradient_evaluations == 3 * 21
    retain = torch.arange(3, 24)
    losses = [objective.loss(w, {}, retain).item() for w in (found.weights, before)]
    assert losses[0] < losses[1]
    split = objective.split
    inputs, labels = split.inputs.clone(), split.labels.clone()
    inputs[:3] += 1
    labels[:3] = (labels[:3] + 1) % 3
    other = replace(objective, split=replace(split, inputs=inputs, labels=labels))  # of the forgotten points
    again = Finetune("finetune", 0.1, 3).unlearn(replace(state, recipe=replace(state.recipe, objective=other)))
    assert again.weights.equal(found.weights)
    coarse = replace(objective, arithmetic="bf16")  # of the passes that train M and M' alone
    again = Finetune("finetune", 0.1, 3).unlearn(replace(state, recipe=replace(state.recipe, objective=coarse)))
    assert again.weights.equal(found.weights)


@pytest.mark.parametrize(
    "method",
    [
        GradientAscent("gradient_ascent", 0.1, 2),
        KrylovUnlearning("krylov", 5, 24, None, "hessian"),
        Finetune("finetune", 0.1, 2),
    ],
    ids=lambda method: method.name,
)
def test_crops_drawn_once_are_the_training_set_of_a_method_too(method):
    """So is a data set that was cropped before, and is not augmented."""
    images = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    plain = classifier(features=16, module=module)
    plain = replace(plain, split=replace(plain.split, inputs=images))
    once = replace(plain, augmentation=Augmentation("crop_flip", padding=1), augment="once")
    cropped = plain.split.batch(torch.arange(24), once.draws(0))
    assert not cropped.equal(images)
    before = replace(plain, split=replace(plain.split, inputs=cropped))
    found = []
    for objective in (once, before):
        start = Learner.fresh(objective.network, torch.device("cpu"))
        state = trained(recipe(objective, epochs=1, **FIRST), "visits", start=start)
        found.append(method.unlearn(state).weights)
        assert not found[-1].equal(state.original.weights)
    assert torch.allclose(*found, rtol=0, atol=1e-12)


def test_finetuning_is_the_recorded_sgd_on_the_mean_of_the_retain_set():
    """One batch of all points, so that their order does not matter: the recursion by hand."""
    world = quadratic()
    plan = recipe(world, lr=0.5, batch_size=12, epochs=1, forget=(0, 1, 2), momentum=0.9, weight_decay=0.1)
    state = trained(plan)
    found = Finetune("finetune", 0.03, 4).unlearn(state)
    w, velocity = state.original.weights, torch.zeros(5, dtype=torch.float64)
    for _ in range(4):
        velocity = 0.9 * velocity + world.a @ w - world.b[3:].mean(dim=0) + 0.1 * w
        w = w - 0.03 * velocity
    assert torch.allclose(found.weights, w, rtol=0, atol=1e-14)
    assert found.gradient_evaluations == 4 * 9


def test_no_epochs_is_the_no_op():
    objective = classifier()
    state = trained(recipe(objective, forget=(0, 1, 2)), start=Learner.fresh(objective.network, torch.device("cpu")))
    for method in (GradientAscent("gradient_ascent", 0.1, 0), Finetune("finetune", 0.1, 0)):
        assert distance(method.unlearn(state).weights, state.original.weights) == 0


@pytest.mark.parametrize("kind", [GradientAscent, Finetune])
def test_settings_are_checked(kind):
    with pytest.raises(UserError, match=r"method\.lr"):
        kind("x", 0.0, 1)
    with pytest.raises(UserError, match=r"method\.epochs"):
        kind("x", 0.1, -1)


def test_ascent_drops_anew_at_each_step_and_not_as_m_did():
    objective = classifier(module=nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    state = trained(recipe(objective, forget=(0, 1, 2)), start=Learner.fresh(objective.network, torch.device("cpu")))
    w, forget = state.original.weights, torch.tensor([0, 1, 2])
    found = GradientAscent("gradient_ascent", 0.1, 2).unlearn(state).weights
    for objective_of, steps, equal in (
        (replace(objective, seed=seed_for(state.seed, "method")), (0, 1), True),
        (replace(objective, seed=seed_for(state.seed, "method")), (0, 0), False),
        (objective, (0, 1), False),
    ):
        climbed = w
        for step in steps:
            climbed = climbed.add(objective_of.gradient(climbed, {}, forget, step=step)[1], alpha=0.1)
        assert climbed.equal(found) == equal


@pytest.mark.parametrize("order", ["as_stored", "shuffle_once"])
def test_finetuning_has_an_order_of_its_own(order):
    objective = classifier()
    start = Learner.fresh(objective.network, torch.device("cpu"))
    plans = [recipe(objective, order=each, forget=(0, 1, 2)) for each in (order, "shuffle_each_epoch")]
    states = [trained(plan, start=start) for plan in plans]
    states[0] = replace(states[0], original=states[1].original)
    one, other = (Finetune("finetune", 0.1, 2).unlearn(state).weights for state in states)
    assert one.equal(other)


def test_a_batch_of_one_point_in_a_method_is_one_line():
    objective = classifier(module=nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)))
    state = trained(recipe(objective, forget=(3,)), start=Learner.fresh(objective.network, torch.device("cpu")))
    with pytest.raises(UserError, match=r"^method=gradient_ascent: comes to a batch of one point"):
        applied(GradientAscent("gradient_ascent", 0.1, 2), state)

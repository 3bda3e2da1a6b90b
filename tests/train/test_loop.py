import gc
import math

import pytest
import torch
from torch import nn

from tests.worlds import classifier, learner, quadratic, recipe
from unlearn.train.learner import Learner
from unlearn.train.loop import removal_gradient, train
from unlearn.train.recording import Recording
from unlearn.values.errors import Diverged


def run(plan, *, on_all=(), on_kept=()):
    return list(train(plan, on_all, on_kept))


def test_plain_sgd_on_a_quadratic_is_a_matrix_power():
    world = quadratic(size=3)
    plan = recipe(world, batch_size=3, epochs=7, order="as_stored")  # one batch: gradient descent
    start, m = learner(), learner()
    run(plan, on_all=[m])
    optimum = torch.linalg.solve(world.a, world.b.mean(dim=0))
    shrink = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - 0.05 * world.a, 7)
    assert torch.allclose(m.weights, optimum + shrink @ (start.weights - optimum), atol=1e-14)


def test_a_forgotten_batch_is_a_step_not_taken():
    world = quadratic()
    plan = recipe(world, epochs=1, order="as_stored", forget=(3, 4, 5), unit=1, momentum=0.9)
    m = learner()
    run(plan, on_kept=[m])
    twin = learner()
    velocity = torch.zeros(5, dtype=torch.float64)
    for points in ([0, 1, 2], [6, 7, 8], [9, 10, 11]):
        velocity = 0.9 * velocity + world.a @ twin.weights - world.b[points].mean(dim=0)
        twin.weights -= 0.05 * velocity
    assert torch.allclose(m.weights, twin.weights, atol=1e-15)


def test_the_learning_rate_goes_on_through_a_step_not_taken():
    world = quadratic()
    plan = recipe(world, epochs=1, order="as_stored", forget=(0, 1, 2), unit=0, decay="linear")
    assert [step.lr for step in train(plan, [], [learner()])] == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_nothing_forgotten_m_prime_equals_m_bit_for_bit(momentum):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
    objective = classifier(module=module)
    start = Learner.fresh(objective.network, torch.device("cpu"))
    pair = [Learner.start(start.weights, start.buffers) for _ in range(2)]
    run(recipe(objective, batch_size=5, momentum=momentum), on_all=pair[:1], on_kept=pair[1:])
    assert pair[0].weights.equal(pair[1].weights)
    assert all(pair[0].buffers[name].equal(pair[1].buffers[name]) for name in pair[0].buffers)


def test_m_does_not_reach_m_prime():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3))
    objective = classifier(module=module)
    plan = recipe(objective, batch_size=5, forget=(1, 2))
    alone, beside, m = (Learner.fresh(objective.network, torch.device("cpu")) for _ in range(3))
    run(plan, on_kept=[alone])
    run(plan, on_all=[m], on_kept=[beside])
    assert alone.weights.equal(beside.weights)
    assert not m.weights.equal(beside.weights)


def test_a_loss_that_is_not_finite_stops_at_its_step():
    world = quadratic()
    with pytest.raises(Diverged, match="lr=1e\\+200") as caught:
        run(recipe(world, lr=1e200, epochs=4), on_all=[learner()])
    assert caught.value.step == 2  # weights reach 1e200 in the first step, and their square overflows in the second


def test_a_late_look_still_names_the_right_step():
    with pytest.raises(Diverged) as caught:
        list(train(recipe(quadratic(), lr=1e200, epochs=4), [learner()], [], check_every=(5,)))
    assert caught.value.step == 2


def test_losses_are_looked_at_before_a_step_is_measured():
    steps = train(recipe(quadratic(), lr=1e200, epochs=4), [learner()], [], check_every=(50, 3))
    assert [next(steps).taken, next(steps).taken] == [1, 2]
    with pytest.raises(Diverged) as caught:
        next(steps)
    assert caught.value.step == 2


def held_after(steps):
    """Bytes of all tensors alive in the middle of training."""
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    plan = recipe(classifier(module=module), batch_size=5, epochs=steps // 5, order="as_stored", forget=(1, 2))
    m, m_prime = (Learner.fresh(plan.objective.network, torch.device("cpu")) for _ in range(2))
    constant = frozenset({"initial_gradient", "first_gradient", "updates", "checkpoint_gradients"})
    recording = Recording.start(plan, m, constant, 500)
    gc.collect()
    before = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]  # held, so that no id is used again
    known = set(map(id, before))
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)
        if step.taken == steps:
            gc.collect()
            alive = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor and id(thing) not in known]
            return len(alive), sum(tensor.nbytes for tensor in alive)


def test_memory_does_not_grow_with_the_steps():
    assert held_after(500) == held_after(5000)


def test_removing_a_whole_batch_removes_its_gradient():
    world = quadratic()
    plan = recipe(world, order="as_stored", forget=(3, 4, 5), unit=1)
    batches = [batch for batch in plan.schedule.epoch(0) if batch.is_visit]
    at = learner()
    expected = world.a @ at.weights - world.b[3:6].mean(dim=0)
    assert torch.allclose(removal_gradient(plan, at, batches), expected)


@pytest.mark.parametrize("renormalise", ["remaining", "batch_size"])
def test_removing_a_point_of_a_batch(renormalise):
    world = quadratic(renormalise=renormalise)
    plan = recipe(world, order="as_stored", forget=(4,))
    batches = [batch for batch in plan.schedule.epoch(0) if batch.is_visit]
    at = learner()
    each = [world.a @ at.weights - world.b[i] for i in (3, 4, 5)]
    by_size = each[1] / 3  # the paper's 1/b sum over the forgotten points
    expected = by_size if renormalise == "batch_size" else sum(each) / 3 - (each[0] + each[2]) / 2
    assert torch.allclose(removal_gradient(plan, at, batches), expected)


def test_removal_leaves_buffers_alone():
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    objective = classifier(module=module)
    plan = recipe(objective, forget=(1, 2))
    at = Learner.fresh(objective.network, torch.device("cpu"))
    before = {name: buffer.clone() for name, buffer in at.buffers.items()}
    gradient = removal_gradient(plan, at, [b for b in plan.schedule.epoch(0) if b.is_visit])
    assert math.isfinite(gradient.sum())
    assert all(before[name].equal(at.buffers[name]) for name in before)

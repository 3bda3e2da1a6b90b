from itertools import combinations

import pytest
import torch

from tests.worlds import classifier, learner, quadratic, recipe, trained
from unlearn.train import visits
from unlearn.train.learner import Learner
from unlearn.train.loop import removal_gradient, train
from unlearn.train.recording import RECORDS, Recording, check_records
from unlearn.values.errors import UserError

UNIT = {"order": "as_stored", "forget": (3, 4, 5), "unit": 1}


def record(plan, *names, every=100):
    m = learner()
    recording = Recording.start(plan, m, frozenset(names), every)
    weights = [m.weights.clone()]
    for step in train(plan, [m], []):
        recording.observe(step, m)
        weights.append(m.weights.clone())
    return recording, weights


def test_gradients_at_w_0_and_w_1():
    world = quadratic()
    recording, weights = record(recipe(world, **UNIT), "initial_gradient", "first_gradient")

    def gradient(w):
        return world.a @ w - world.b[3:6].mean(dim=0)

    assert torch.allclose(recording.initial_gradient, gradient(weights[0]))
    assert torch.allclose(recording.first_gradient, gradient(weights[2]))  # just after the visit, the second step


def test_updates_are_those_of_the_visits():
    recording, weights = record(recipe(quadratic(), momentum=0.9, weight_decay=0.1, **UNIT), "updates")
    expected = (weights[2] - weights[1]) + (weights[6] - weights[5])  # 4 steps an epoch
    assert torch.allclose(recording.update_sum, expected, atol=1e-15)
    assert (recording.visit_count, len(recording.first_pass), recording.steps) == (2, 1, 8)


@pytest.mark.parametrize("decay", ["constant", "linear"])
def test_effects_of_the_visits(decay):
    plan = recipe(quadratic(), momentum=0.5, decay=decay, **UNIT)
    recording, _ = record(plan)
    rates = [plan.rate.at(step) for step in range(8)]
    assert recording.plain == pytest.approx(rates[1] + rates[5])
    aware = sum(rates[i] * 0.5 ** (i - s) for s in (1, 5) for i in range(s, 8))
    assert recording.momentum_aware == pytest.approx(aware)


def test_an_epoch_is_one_pass_however_the_points_meet_in_batches():
    plan = recipe(quadratic(), epochs=6, order="shuffle_each_epoch", forget=(0, 4, 7))
    recording, _ = record(plan)
    batches = [sum(batch.is_visit for batch in plan.schedule.epoch(epoch)) for epoch in range(6)]
    assert len(set(batches)) > 1  # else this shows nothing
    assert recording.visit_count == sum(batches)
    assert recording.plain == pytest.approx(6 * 0.05)


def at_start(plan, points):
    """The gradient at w_0 that the removal of points takes out of their batches of three."""
    world = plan.objective
    return sum((world.a @ learner().weights - world.b[point] for point in points), torch.zeros(5)) / 3


def test_points_that_an_epoch_drops_are_added_when_they_first_take_part():
    world, found = quadratic(size=11, renormalise="batch_size"), set()
    for pair in combinations(range(11), 2):
        plan = recipe(world, epochs=4, order="shuffle_each_epoch", forget=pair, drop_last=True)
        seen = [[set(pair) & set(batch.indices.tolist()) for batch in plan.schedule.epoch(epoch)] for epoch in range(4)]
        firsts = frozenset.union(*(frozenset(points) for points in seen[0]))
        found.add(len(firsts))
        recording, _ = record(plan, "initial_gradient")
        assert recording.seen == set(pair)
        assert torch.allclose(recording.initial_gradient, at_start(plan, pair))
        visits = sum(len(points) for epoch in seen for points in epoch)
        assert recording.plain == pytest.approx(visits / 2 * 0.05)
    assert found == {0, 1, 2}  # else this shows nothing


def test_what_was_not_seen_yet_is_in_no_gradient():
    world = quadratic(renormalise="batch_size")
    plan = recipe(world, epochs=1, order="as_stored", forget=(0, 7), max_steps=2)  # of four steps
    recording, weights = record(plan, "initial_gradient", "first_gradient", "checkpoint_gradients")
    assert recording.seen == {0}
    assert recording.plain == pytest.approx(0.05)
    assert torch.allclose(recording.initial_gradient, at_start(plan, [0]))
    first = (world.a @ weights[1] - world.b[0]) / 3
    assert torch.allclose(recording.first_gradient, first)
    assert torch.allclose(recording.checkpointed.plain, 0.05 * at_start(plan, [0]))


def test_scattered_points_at_checkpoints():
    world = quadratic(renormalise="batch_size")
    plan = recipe(world, epochs=2, order="as_stored", forget=(0, 7))  # steps 0 and 2, then 4 and 6
    recording, weights = record(plan, "checkpoint_gradients", every=4)

    def gradient(points, w):
        return sum(world.a @ w - world.b[point] for point in points) / 3

    expected = 0.05 * (gradient((0, 7), weights[0]) + gradient((0, 7), weights[4]))
    assert torch.allclose(recording.checkpointed.plain, expected)


def test_the_momentum_factor_in_closed_form():
    recording, _ = record(recipe(quadratic(), momentum=0.9, epochs=1, order="as_stored", forget=(0, 1, 2), unit=0))
    assert recording.momentum_aware == pytest.approx(0.05 * (1 - 0.9**4) / (1 - 0.9))


def test_checkpoint_gradients_are_taken_at_the_newest_checkpoint():
    world = quadratic()
    recording, weights = record(recipe(world, **UNIT), "checkpoint_gradients", every=3)
    # visits at steps 1 and 5: the newest checkpoints are w_0 and w_3
    expected = sum(0.05 * (world.a @ weights[c] - world.b[3:6].mean(dim=0)) for c in (0, 3))
    assert torch.allclose(recording.checkpointed.plain, expected)


def test_checkpoints_carry_momentum_on():
    world = quadratic()
    plan = recipe(world, momentum=0.5, decay="linear", **UNIT)
    recording, weights = record(plan, "checkpoint_gradients", every=3)
    rates = [plan.rate.at(step) for step in range(8)]
    expected = torch.zeros(5)
    for visit, checkpoint in ((1, 0), (5, 3)):
        effect = sum(rates[i] * 0.5 ** (i - visit) for i in range(visit, 8))
        expected = expected + effect * (world.a @ weights[checkpoint] - world.b[3:6].mean(dim=0))
    assert torch.allclose(recording.checkpointed.momentum_aware, expected, atol=1e-15)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_point_in_a_short_batch_weighs_more(momentum):
    world = quadratic(size=10, renormalise="batch_size")  # batches of 3, 3, 3, 1
    batches = set()
    for point in range(10):
        plan = recipe(world, epochs=5, order="shuffle_each_epoch", forget=(point,), momentum=momentum)
        held = [batch for epoch in range(5) for batch in plan.schedule.epoch(epoch) if point in batch.indices]
        batches.add(len(held[0].indices))
        recording, _ = record(plan, "initial_gradient", "checkpoint_gradients")
        alone = world.a @ learner().weights - world.b[point]  # at w_0, to which no curvature has been added yet
        plain = sum(0.05 / len(batch.indices) for batch in held)
        total = plan.schedule.total_steps
        aware = sum(
            0.05 * momentum ** (i - batch.step) / len(batch.indices) for batch in held for i in range(batch.step, total)
        )
        assert torch.allclose(recording.plain * recording.initial_gradient, plain * alone)
        assert torch.allclose(recording.momentum_aware * recording.initial_gradient, aware * alone)
        assert torch.allclose(recording.checkpointed.plain, plain * alone)
        assert torch.allclose(recording.checkpointed.momentum_aware, aware * alone)
    assert batches == {1, 3}  # else this shows nothing


def test_unknown_records_are_named():
    check_records(frozenset(RECORDS))
    with pytest.raises(UserError, match="upd8s"):
        check_records(frozenset({"upd8s"}))


def test_a_first_step_that_is_forgotten_whole_gives_the_gradient_at_w_0(monkeypatch):
    objective = classifier()
    plan = recipe(objective, order="as_stored", forget=(0, 1, 2), unit=0, momentum=0.5, weight_decay=0.1)
    start = Learner.fresh(objective.network, torch.device("cpu"))
    expected = removal_gradient(plan, start, [next(iter(plan.schedule.epoch(0)))])

    def again(*_):
        raise AssertionError("computed twice")

    monkeypatch.setattr("unlearn.train.recording.removal_gradient", again)
    assert trained(plan, "initial_gradient", start=start).recording.initial_gradient.equal(expected)


def test_a_visit_of_points_costs_one_gradient_whoever_keeps_it(monkeypatch):
    taken, real = [], visits.removal_of
    monkeypatch.setattr(visits, "removal_of", lambda *args: taken.append(1) or real(*args))
    recording, _ = record(recipe(quadratic(), epochs=12, order="as_stored", forget=(4,)), "visits", "carried")
    assert len(taken) == recording.visit_count == 12
    kept, carried = recording.visits, recording.carried.visits
    assert [visit.push.tolist() for visit in kept.all()] == [visit.push.tolist() for visit in carried.all()]
    assert len(kept.groups) < 12  # joined in both, from the same tensors

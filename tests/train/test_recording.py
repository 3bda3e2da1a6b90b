import pytest
import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.train.loop import removal_gradient, train
from unlearn.train.recording import RECORDS, Recording, check_records, vectors_needed
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
    assert (recording.visits, len(recording.first_pass), recording.steps) == (2, 1, 8)


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
    assert recording.visits == sum(batches)
    assert recording.plain == pytest.approx(6 * 0.05)


def test_points_in_the_tail_that_the_first_epoch_drops():
    world = quadratic(size=11)
    for point in range(11):
        plan = recipe(world, epochs=4, order="shuffle_each_epoch", forget=(point,), drop_last=True)
        seen = [sum(batch.is_visit for batch in plan.schedule.epoch(epoch)) for epoch in range(4)]
        recording, _ = record(plan, "initial_gradient", "checkpoint_gradients")
        assert recording.plain == pytest.approx(sum(seen) * 0.05)
        if seen[0] == 0 < sum(seen):
            break
    else:
        pytest.fail("no point is dropped in the first epoch")
    expected = removal_gradient(plan, learner(), recording.first_pass)
    assert bool(expected.any())
    assert torch.equal(recording.initial_gradient, expected)


def test_the_momentum_factor_in_closed_form():
    recording, _ = record(recipe(quadratic(), momentum=0.9, epochs=1, order="as_stored", forget=(0, 1, 2), unit=0))
    assert recording.momentum_aware == pytest.approx(0.05 * (1 - 0.9**4) / (1 - 0.9))


def test_checkpoint_gradients_are_taken_at_the_newest_checkpoint():
    world = quadratic()
    recording, weights = record(recipe(world, **UNIT), "checkpoint_gradients", every=3)
    # visits at steps 1 and 5: the newest checkpoints are w_0 and w_3
    expected = sum(0.05 * (world.a @ weights[c] - world.b[3:6].mean(dim=0)) for c in (0, 3))
    assert torch.allclose(recording.checkpoint_correction, expected)


def test_what_grows_is_counted_before_it_does():
    plan = recipe(quadratic(), **UNIT)
    recording, weights = record(plan, "checkpoints", every=3)
    assert vectors_needed(recording.records, plan.schedule, 3) == len(recording.checkpoints) == 2
    assert recording.checkpoints[1].equal(weights[6])
    assert vectors_needed(frozenset({"initial_gradient", "checkpoint_gradients"}), plan.schedule, 3) == 3


def test_unknown_records_are_named():
    check_records(frozenset(RECORDS))
    with pytest.raises(UserError, match="upd8s"):
        check_records(frozenset({"upd8s"}))

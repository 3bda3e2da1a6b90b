"""States survive being packed, written and unpacked, and share what did not change."""

import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.store.files import from_bytes, to_bytes
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.train.recording import Recording
from unlearn.train.visits import KEPT, Group, Visits
from unlearn.values.state import pack, snapshot, unpack


def test_a_recording_comes_back():
    plan = recipe(quadratic(), epochs=KEPT + 2, forget=(0, 1, 2), unit=0, momentum=0.9)
    records = frozenset({"initial_gradient", "visits", "updates"})
    m = learner()
    recording = Recording.start(plan, m, records, 3)
    for step in train(plan, [m], []):
        recording.observe(step, m)
    state = from_bytes(to_bytes(pack(recording, ("recipe",))), torch.device("cpu"))
    from unlearn.values.schedule import Batch

    back = unpack(state, (Recording, Learner, Visits, Group, Batch), recipe=plan)
    assert back.recipe is plan
    assert back.visits.recipe is plan
    assert back.records == records
    assert back.initial_gradient.equal(recording.initial_gradient)
    assert back.initial.weights.equal(recording.initial.weights)
    assert len(back.first_pass) == len(recording.first_pass) == 1
    assert back.seen == recording.seen == {0, 1, 2}
    assert back.update_sum.equal(recording.update_sum)
    for one, other in zip(back.visits.all(), recording.visits.all(), strict=True):
        assert (one.step, one.whole) == (other.step, other.whole)
        assert one.push.equal(other.push)
        assert one.jump.equal(other.jump)


def test_snapshot_copies_what_changed_and_shares_the_rest():
    state = {"still": torch.zeros(3), "moves": torch.zeros(3), "list": [torch.ones(2)]}
    first = snapshot(state)
    state["moves"] += 1
    state["list"].append(torch.ones(2))
    second = snapshot(state, first)
    assert second["still"] is first["still"]
    assert first["moves"].tolist() == [0, 0, 0]
    assert second["moves"].tolist() == [1, 1, 1]
    assert second["list"][0] is first["list"][0]

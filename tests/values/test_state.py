"""States survive being packed, written and unpacked, and share what did not change."""

import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.store.files import from_bytes, to_bytes
from unlearn.train.learner import Learner
from unlearn.train.recording import Recording
from unlearn.train.visits import Summed, Visits
from unlearn.values.state import frozen, pack, unpack


def test_a_recording_comes_back():
    plan = recipe(quadratic(), forget=(0, 1, 2), unit=0, momentum=0.9)
    records = frozenset({"initial_gradient", "visits", "updates"})
    recording = Recording.start(plan, learner(), records, 3)
    state = from_bytes(to_bytes(pack(recording, ("recipe",))), torch.device("cpu"))
    from unlearn.values.schedule import Batch

    back = unpack(state, (Recording, Learner, Visits, Summed, Batch), recipe=plan)
    assert back.recipe is plan
    assert back.visited.recipe is plan
    assert back.records == records
    assert back.initial_gradient.equal(recording.initial_gradient)
    assert back.initial.weights.equal(recording.initial.weights)
    assert len(back.first_pass) == len(recording.first_pass)


def test_frozen_copies_what_changed_and_shares_the_rest():
    state = {"still": torch.zeros(3), "moves": torch.zeros(3), "list": [torch.ones(2)]}
    first = frozen(state)
    state["moves"] += 1
    state["list"].append(torch.ones(2))
    second = frozen(state, first)
    assert second["still"] is first["still"]
    assert first["moves"].tolist() == [0, 0, 0]
    assert second["moves"].tolist() == [1, 1, 1]
    assert second["list"][0] is first["list"][0]

"""Forecasts of many points at once against each alone, in float64."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from tests.worlds import classifier, recipe
from unlearn.penalties import SDPenalty
from unlearn.train.forecast import forecast
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.train.path import quotient_on
from unlearn.train.recording import Recording, Trained
from unlearn.train.stack_forecast import stacked_forecasts
from unlearn.train.stack_objective import StackedObjective

# forgotten batches at different places: on some paths M' takes fewer steps, on the last it takes one
PLANS = (
    {"forget": (0, 1, 2, 3, 4, 5), "unit": 0, "momentum": 0.9},
    {"forget": (3, 20), "weight_decay": 0.1},
    {"forget": (6, 7, 8, 9, 10, 11), "unit": 1, "momentum": 0.5, "decay": "cosine"},
    {"forget": ()},
    {"forget": (0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23), "lr": 0.2},
)


@pytest.mark.parametrize(
    "module", [None, nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3))], ids=["tanh", "vmap", "dense"]
)
@pytest.mark.parametrize("every", [1, 2, 4, 7])
def test_each_is_that_of_its_own_run(module, every):
    # with two classes a linear layer's spaces end within 5 products, and rounding decides when and where
    base = classifier(module=module, classes=3)
    objectives = [replace(base, penalty=SDPenalty("sd", gamma, "none")) for gamma in range(len(PLANS))]
    plans = [
        recipe(objective, batch_size=6, epochs=2, order="as_stored", **plan)
        for objective, plan in zip(objectives, PLANS, strict=True)
    ]
    starts = [Learner.start(base.network.initial_weights() * (1 + k), {}) for k in range(len(PLANS))]
    records = frozenset({"carried"})
    alone = [Recording.start(plan, start, records, 100) for plan, start in zip(plans, starts, strict=True)]
    stacked = [Recording.start(plan, start, records, 100) for plan, start in zip(plans, starts, strict=True)]
    trained = [
        Trained(plan, start, start, recording, 0) for plan, start, recording in zip(plans, starts, stacked, strict=True)
    ]
    stack = StackedObjective.of(objectives)
    compared = 0
    for steps in zip(*(train(plan, [start], []) for plan, start in zip(plans, starts, strict=True)), strict=True):
        for step, start, one, other in zip(steps, starts, alone, stacked, strict=True):
            one.observe(step, start)
            other.observe(step, start)
        if steps[0].taken % every:
            continue
        found = stacked_forecasts(trained, range(len(PLANS)), stack, 24, 5)
        for k, (recording, start) in enumerate(zip(alone, starts, strict=True)):
            along = partial(quotient_on, recording.carried.segment(recording.steps, start), 24)
            expected = forecast(recording, start, along, 5)
            recording.carried, stacked[k].carried = expected.carried, expected.carried
            assert (found[k].products, found[k].flags) == (expected.products, expected.flags)
            assert (found[k].y is None) == (expected.y is None)
            if expected.y is not None:
                compared += 1
                assert torch.allclose(found[k].y, expected.y, rtol=0, atol=1e-13)
                assert found[k].error == pytest.approx(expected.error, rel=1e-4, abs=1e-9)
                assert found[k].carried.spread == pytest.approx(expected.carried.spread, rel=1e-4, abs=1e-9)
    assert compared

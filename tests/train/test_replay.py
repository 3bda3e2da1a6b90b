"""Steps as CUDA graphs against the same steps one kernel at a time."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.worlds import classifier
from unlearn.models.network import Network
from unlearn.penalties import L2Penalty, SDPenalty
from unlearn.train import replay
from unlearn.train.learner import SGD, Learner
from unlearn.train.loop import Recipe, train
from unlearn.train.replay import MOST, Replays
from unlearn.values.rates import LearningRate
from unlearn.values.schedule import Schedule

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
LAYERS = [nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 6, 2, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()]


def trained(forget, unit, arithmetic, penalty):
    torch.manual_seed(0)
    module = nn.Sequential(*LAYERS, nn.Linear(54, 3))
    objective = classifier(module=module, penalty=penalty, arithmetic=arithmetic)
    network = Network.of(objective.network.module.float().to(CUDA))
    objective = replace(objective, network=network, split=objective.split.to(CUDA))
    objective = replace(objective, split=replace(objective.split, inputs=objective.split.inputs.float()))
    schedule = Schedule(size=24, batch_size=7, epochs=12, seed=0, forget=forget, unit=unit)
    recipe = Recipe(objective, schedule, LearningRate(0.05, "cosine", schedule.total_steps), SGD(0.9, 1e-3))
    learners = [Learner.fresh(network, CUDA) for _ in range(2)]
    losses = [learners[0].loss.item() for _ in train(recipe, learners[:1], learners[1:])]
    return [torch.cat([each.weights, each.buffers["2.running_var"]]) for each in learners], losses


@pytest.mark.parametrize(("forget", "unit"), [(tuple(range(7)), 1), ((0, 5, 11), None), ((), None)])
@pytest.mark.parametrize("arithmetic", ["float32", "bf16"])
@pytest.mark.parametrize("penalty", [SDPenalty("sd", 2.0, "none"), L2Penalty("l2", 0.1, detached=False)])
def test_replayed_steps_are_bit_for_bit_those_that_ran(monkeypatch, caplog, forget, unit, arithmetic, penalty):
    torch.backends.cudnn.deterministic = True
    replayed, losses = trained(forget, unit, arithmetic, penalty)
    assert "run without CUDA graphs" not in caplog.text
    monkeypatch.setattr(replay, "EAGER", 10**9)
    plain, plain_losses = trained(forget, unit, arithmetic, penalty)
    assert losses == plain_losses
    assert all(torch.equal(a, b) for a, b in zip(replayed, plain, strict=True))


def read(replays, loss):
    """Look at a result where it is ready."""
    torch.cuda.current_stream(CUDA).wait_stream(replays.stream)
    return loss.item()


def test_what_cannot_be_captured_runs_as_it_is(caplog):
    replays = Replays(torch.cuda.Stream(CUDA))
    points, inputs = torch.arange(3, device=CUDA), torch.ones(3, device=CUDA)

    def asks_the_host(indices, given):
        return given.sum() * float(indices.sum())

    found = [read(replays, replays(asks_the_host, "step", points + k, inputs)) for k in range(5)]
    assert found == [3.0 * (3 + 3 * k) for k in range(5)]
    assert replays.failed
    assert sum("run without CUDA graphs" in record.message for record in caplog.records) == 1


def test_only_so_many_kinds_of_steps_are_captured():
    replays = Replays(torch.cuda.Stream(CUDA))
    for size in range(1, MOST + 4):
        for k in range(4):
            points, inputs = torch.arange(size, device=CUDA), torch.full((size,), float(k), device=CUDA)
            assert read(replays, replays(lambda indices, given: given.sum(), "step", points, inputs)) == size * k
    assert len(replays.captured) == MOST

"""A step that is not measured against the floor: two plain torch steps, of M and of M', on the same batches."""

import copy
import time
from typing import Any

import torch
import torch.nn.functional as F

from bench.ours import ready
from bench.worlds import World
from unlearn.pipeline.prepare import Prepared
from unlearn.train.arithmetic import passes
from unlearn.train.learner import Learner
from unlearn.train.loop import check_intervals, train

WARM = 4  # steps before the clock starts


def wait(device: torch.device) -> None:
    """Let a GPU end what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Plain:
    """M and M' as two modules with an optimiser each; the inputs are prepared before the clock starts."""

    def __init__(self, prepared: Prepared) -> None:
        self.arithmetic, self.device = prepared.config.arithmetic, prepared.device
        split, settings = prepared.data.train, prepared.config.optimizer
        self.inputs, self.labels = split.batch(torch.arange(len(split), device=self.device)), split.labels
        self.batches = prepared.recorded.schedule.batches()
        # as torch makes them, not as ours may lie in memory
        module = copy.deepcopy(prepared.network.module).train().to(memory_format=torch.contiguous_format)
        self.networks = [copy.deepcopy(module) for _ in range(2)]
        self.optimizers = [
            torch.optim.SGD(
                network.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
            )
            for network in self.networks
        ]

    def step(self) -> None:
        """Take a step of each."""
        batch = next(self.batches)
        for network, optimizer, points in zip(self.networks, self.optimizers, (batch.indices, batch.kept), strict=True):
            if len(points):
                optimizer.zero_grad()
                points = points.to(self.device)
                with passes(self.arithmetic, self.device):
                    loss = F.cross_entropy(network(self.inputs[points]).float(), self.labels[points])
                loss.backward()
                optimizer.step()


def against_floor(world: World, rounds: int, block: int, *more: str) -> dict[str, Any]:
    """Take turns, a block of steps each, and compare seconds and weights."""
    steps = rounds * block
    prepared = ready(world, steps + WARM, *more)
    plain = Plain(prepared)
    learners = [Learner.fresh(prepared.network, prepared.device) for _ in range(2)]
    ours = train(prepared.recorded, learners[:1], learners[1:], check_every=check_intervals(prepared.device))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(WARM):  # allocators and kernels warm up, and CUDA graphs are captured
        plain.step()
        next(ours)
    for _ in range(rounds):
        for name, advance in (("ours", lambda: next(ours)), ("plain", plain.step)):
            wait(prepared.device)
            start = time.perf_counter()
            for _ in range(block):
                advance()
            wait(prepared.device)
            seconds[name].append((time.perf_counter() - start) / block)
    # in the order of ours, which follows the memory format
    layout = prepared.network.layout
    theirs = [layout.flatten(dict(network.named_parameters())) for network in plain.networks]
    return {
        "world": world.name,
        "momentum": prepared.config.optimizer.momentum,
        "batch": prepared.config.training.batch_size,
        "threads": world.threads,
        "steps": steps,
        "seconds": seconds,
        "weights_differ": max(float((a.weights - b).abs().max()) for a, b in zip(learners, theirs, strict=True)),
    }

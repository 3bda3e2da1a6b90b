"""Tiny problems with known answers, shared by the tests."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from unlearn.data.split import Split
from unlearn.models.network import Network
from unlearn.penalties import Penalty
from unlearn.train.learner import SGD, Learner
from unlearn.train.loop import Recipe, train
from unlearn.train.objective import Objective
from unlearn.train.recording import Recording, Trained
from unlearn.values.rates import LearningRate
from unlearn.values.schedule import Schedule


@dataclass(frozen=True)
class Quadratic:
    """Points i with loss w.A.w / 2 - b_i.w: one Hessian A for all, so unrolled SGD has a closed form."""

    a: Tensor
    b: Tensor
    renormalise: str = "remaining"
    seed: int = 0
    arithmetic: str = "float32"
    frozen_draws = None

    @property
    def split(self):
        return SimpleNamespace(labels=self.b)

    def draws(self, epoch):
        return None

    def inputs(self, indices, draws):
        return None

    def bind(self, weights, buffers, **_):
        def gradient(indices, inputs, **options):
            return self.gradient(weights, buffers, indices, **options)

        return SimpleNamespace(weights=weights, gradient=gradient, wait=lambda: None)

    def gradient(self, weights, buffers, indices, *, draws=None, count=None, train=True, step=0, as_trained=False):
        gradient = self.a @ weights - self.b[indices].mean(dim=0)
        if self.renormalise == "batch_size" and count is not None:
            gradient = gradient * (len(indices) / count)
        return weights @ (self.a @ weights) / 2 - weights @ self.b[indices].mean(dim=0), gradient


def quadratic(size=12, dim=5, seed=0, **options) -> Quadratic:
    stream = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, dim, generator=stream, dtype=torch.float64)
    return Quadratic(
        root @ root.T / dim + 0.1 * torch.eye(dim, dtype=torch.float64),
        torch.randn(size, dim, generator=stream, dtype=torch.float64),
        **options,
    )


def learner(dim=5, seed=1) -> Learner:
    stream = torch.Generator().manual_seed(seed)
    return Learner.start(torch.randn(dim, generator=stream, dtype=torch.float64), {})


def recipe(objective, *, lr=0.05, batch_size=3, epochs=2, momentum=0.0, weight_decay=0.0, decay="constant", **schedule):
    planned = Schedule(len(objective.split.labels), batch_size, epochs, 0, **schedule)
    rate = LearningRate(lr, decay, planned.total_steps)
    return Recipe(objective, planned, rate, SGD(momentum, weight_decay))


def classifier(*, size=24, classes=3, features=4, seed=0, module=None, penalty=None, **options) -> Objective:
    """A small classification problem in float64."""
    stream = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, features, generator=stream, dtype=torch.float64)
    labels = torch.randint(classes, (size,), generator=stream)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = module or nn.Sequential(nn.Linear(features, 6), nn.Tanh(), nn.Linear(6, classes))
        module = module.double()
    split = Split(inputs, labels, torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    return Objective(Network.of(module), split, penalty or Penalty("none"), **options)


def trained(plan, *records, start=None) -> Trained:
    """M and M' at the end of a run, and what was recorded, with checkpoints every third step."""
    start = start or learner()
    m, m_prime = (Learner.start(start.weights, start.buffers) for _ in range(2))
    recording = Recording.start(plan, m, frozenset(records), 3)
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)
    return Trained(plan, m, m_prime, recording, 0)


class Functional(nn.Module):
    """Drops values as some transformers do."""

    def __init__(self, rate):
        super().__init__()
        self.attention_dropout, self.width = rate, 2.0

    def forward(self, x):
        return nn.functional.dropout(x, self.attention_dropout, self.training)

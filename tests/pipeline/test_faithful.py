"""`conventions=faithful` against the plainest possible replay of the reference procedure, in modules and torch.optim.

The same was run against the authors' own code with a ResNet-18; docs/parity.md has its numbers.
"""

import copy

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run

OVERRIDES = (
    "conventions=faithful", "model.norm=batch", "forget.position=2", "pretraining.epochs=0", "training.epochs=2",
    "measure.every=1", "optimizer.lr=0.1", "dataset.augmentation=crop_flip",
)  # fmt: skip


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def distance(a, b):
    return (a.double() - b.double()).norm().item()


def replay(prepared):
    """M and M' as two modules with an optimiser each, the forgotten batch first; the gradient at w_0 added back."""
    objective = prepared.recorded.objective
    split, draws = objective.split, objective.draws(0)  # drawn once
    forget = list(prepared.recorded.schedule.forget)
    rest = [i for i in range(len(split)) if i not in forget]
    batches = [torch.tensor(part) for part in (forget, *(rest[i : i + 32] for i in range(0, len(rest), 32)))]
    w_0, m, m_prime = (copy.deepcopy(prepared.network.module) for _ in range(3))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4) for net in (m, m_prime)]
    loss = F.cross_entropy(w_0(split.batch(batches[0], draws)), split.labels[batches[0]])
    g_0 = flat(torch.autograd.grad(loss, list(w_0.parameters())))
    for epoch in range(2):
        for place, points in enumerate(batches):
            for net, optimizer in zip((m, m_prime), optimizers, strict=True):
                if net is m_prime and place == 0:
                    continue
                optimizer.zero_grad()
                F.cross_entropy(net(split.batch(points, draws)), split.labels[points]).backward()
                optimizer.step()
            weights, retrained, initial = (flat(net.parameters()) for net in (m, m_prime, w_0))
            yield distance(weights, initial), distance(weights + (epoch + 1) * 0.1 * g_0, retrained)


def test_distance_and_verification_error_of_every_step(tiny, tmp_path):
    cfg = tiny(*OVERRIDES)
    run(cfg, tmp_path)
    rows = pd.read_csv(tmp_path / "steps.csv")
    expected = list(replay(prepare(cfg)))
    assert len(rows) == len(expected) == 6
    assert rows.distance_from_initial.tolist() == pytest.approx([d for d, _ in expected], rel=1e-6)
    assert rows.verification_error.tolist() == pytest.approx([v for _, v in expected], rel=1e-6)

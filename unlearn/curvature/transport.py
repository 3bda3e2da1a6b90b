"""What becomes of a removal: the difference between M and M', carried through the later steps of SGD.

To first order in the removal, the differences d = w - w' and u = v - v' of weights and velocities obey, at a step that
both models take with Hessian H, learning rate eta, momentum mu and weight decay lambda,

    u <- mu u + (H + lambda) d,        d <- d - eta u,

stay as they are at a step that M' does not take, and gain there what M did alone: d -= eta v+, u += v+ - v. Where
points are taken out of a batch, both take the step and u gains the difference of the two gradients before d follows.

On an eigenvector of H this is a recursion of two numbers. So it is run on the Ritz values of a Krylov space that starts
at the removal: a handful of Hessian-vector products whatever the number of steps. For plain SGD and one visit it is

    w' - w  =  f(H) eta g_0,    f(x) = product over the later steps of (1 - eta_i x)        (paper.md section 2)

The recursion is that of Hara et al. 2019 and of Hessian-free recollection (arXiv 2404.01712): a product a step there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov

GROWTH = 100.0  # the most that a prediction lets negative curvature multiply a removal


@dataclass(frozen=True)
class Visit:
    """A step at which M saw a forgotten point.

    Attributes:
        step: 0 for the first step of the recorded phase.
        whole: whether M' took no step there.
        push: whole: v+, M's velocity after the step; else the difference of the two gradients. Shape (dim,).
        jump: whole: v+ - v, what the step changed in M's velocity; None where there is no momentum. Shape (dim,).
    """

    step: int
    whole: bool
    push: Tensor
    jump: Tensor | None


@dataclass(frozen=True)
class Flow:
    """The SGD that carries differences on.

    Attributes:
        rates: learning rate of each step taken so far.
        momentum: mu.
        weight_decay: lambda.
    """

    rates: Sequence[float]
    momentum: float
    weight_decay: float


def transport(
    space: Krylov, visits: Sequence[Visit], flow: Flow, *, clamp: bool, matrix: Tensor | None = None
) -> Tensor:
    """Carry every visit's removal to the present.

    Args:
        space: a Krylov space of the Hessian, started at (the mean of) the removals. Of a removal outside it, what is
            outside is dropped: exact where the space is the whole space, and for one visit without momentum.
        visits: in order of their steps.
        flow: the steps so far.
        clamp: for an update: eigenvalues are moved into [0, 1/eta], where nothing overshoots or grows. Otherwise, for a
            prediction, they are left as they are within bounds: steps never overshoot by more than they correct, and
            growth by negative curvature stops at `GROWTH`.
        matrix: another operator projected on the space, or a leading block of its own; None takes its own, T.

    Returns:
        Coordinates in the basis of y = w' - w as predicted, float64, shape (m,).
    """
    projected = space.tridiagonal() if matrix is None else matrix
    m = len(projected)
    values, vectors = np.linalg.eigh(projected.numpy())
    curvature = bounded(values, flow, clamp)

    def ritz(vector: Tensor) -> np.ndarray:
        return np.asarray(vectors.T @ space.coordinates(vector).numpy()[:m])

    d, u = np.zeros(m), np.zeros(m)
    place = 0
    for visit in visits:
        d, u = _carry(d, u, curvature, flow, place, visit.step)
        lr = flow.rates[visit.step]
        if visit.whole:
            d = d - lr * ritz(visit.push)
            u = u if visit.jump is None else u + ritz(visit.jump)
        else:
            u = flow.momentum * u + (curvature + flow.weight_decay) * d + ritz(visit.push)
            d = d - lr * u
        place = visit.step + 1
    d, _ = _carry(d, u, curvature, flow, place, len(flow.rates))
    return torch.from_numpy(vectors @ -d)


def bounded(eigenvalues: np.ndarray, flow: Flow, clamp: bool) -> np.ndarray:
    """Keep a few wild eigenvalues from ruling the result.

    Args:
        eigenvalues: Ritz values, shape (m,).
        flow: gives learning rates, momentum and weight decay.
        clamp: see `transport`.

    Returns:
        Shape (m,).
    """
    fastest = max(flow.rates)
    if clamp:
        return np.clip(eigenvalues, 0.0, 1 / fastest)
    reach = sum(flow.rates) / (1 - flow.momentum)
    most = 2 * (1 + flow.momentum) / fastest - flow.weight_decay  # beyond it the recursion is unstable
    return np.clip(eigenvalues, -math.log(GROWTH) / reach, most)


def _carry(
    d: np.ndarray, u: np.ndarray, curvature: np.ndarray, flow: Flow, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    pull, mu = curvature + flow.weight_decay, flow.momentum
    for lr, count in _runs(flow.rates[start:stop]):
        if mu == 0:
            d = d * (1 - lr * pull) ** count
            continue
        step = np.stack(
            [np.stack([1 - lr * pull, np.full_like(pull, -lr * mu)]), np.stack([pull, np.full_like(pull, mu)])]
        )
        powers = np.linalg.matrix_power(step.transpose(2, 0, 1), count)  # (m, 2, 2)
        d, u = np.einsum("mij,jm->im", powers, np.stack([d, u]))
    return d, u


def _runs(rates: Sequence[float]) -> Iterator[tuple[float, int]]:
    """Count equal learning rates that follow each other, so that a constant rate costs one power."""
    run: tuple[float, int] | None = None
    for lr in rates:
        if run is not None and run[0] == lr:
            run = (lr, run[1] + 1)
            continue
        if run is not None:
            yield run
        run = (lr, 1)
    if run is not None:
        yield run

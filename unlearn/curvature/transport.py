"""What becomes of a removal: the difference between M and M', carried through the later steps of SGD.

To first order in the removal, the differences d = w - w' and u = v - v' of weights and velocities obey, at a step that
both models take with Hessian H, learning rate eta, momentum mu and weight decay lambda,

    u <- mu u + (H + lambda) d,        d <- d - eta u,

stay as they are at a step that M' does not take, and gain there what M did alone: d -= eta v+, u += v+ - v. Where
points are taken out of a batch, both take the step and u gains the difference of the two gradients before d follows.

On an eigenvector of H this is a recursion of two numbers. So it is run on the Ritz values of a Krylov space that starts
at the removal: a handful of products whatever the number of steps. What lies outside the space is carried as though the
loss were flat there. For plain SGD and one visit it is

    w' - w  =  f(H) eta g_0,    f(x) = product over the later steps of (1 - eta_i x)

The recursion is that of Hara et al. 2019 and of Hessian-free recollection (arXiv 2404.01712): a product a step there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov

GROWTH = 100.0  # the most that negative curvature multiplies a removal by within one flow, of which a forecast has many


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
        rates: learning rate of each step that is carried through.
        momentum: mu.
        weight_decay: lambda.
        start: the step that `rates` begins with.
    """

    rates: Sequence[float]
    momentum: float
    weight_decay: float
    start: int = 0


@dataclass(frozen=True)
class Difference:
    """What M has and M' has not.

    Attributes:
        d: w - w', shape (dim,).
        u: v - v', shape (dim,); None where there is no momentum.
    """

    d: Tensor
    u: Tensor | None


@dataclass(frozen=True)
class Removal:
    """The vectors that are carried, and the SGD that carries them: linear in the vectors, whatever the curvature.

    Attributes:
        before: the difference at the step `flow.start`; None where there was none.
        visits: since then, in order of their steps.
        flow: the steps since then.
    """

    before: Difference | None
    visits: Sequence[Visit]
    flow: Flow

    @property
    def parts(self) -> list[Tensor]:
        """List the vectors: d and u as they were, then each visit's push and jump; what visits share stands once."""
        listed = [] if self.before is None else [self.before.d, self.before.u]
        listed += [part for visit in self.visits for part in (visit.push, visit.jump)]
        return list({id(part): part for part in listed if part is not None}.values())

    def responses(self, curvature: np.ndarray, *, clamp: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Run the recursion of two numbers, once for each eigenvalue and each vector.

        Args:
            curvature: eigenvalues of H, shape (k,).
            clamp: at each step no eigenvalue counts for more than 1/eta of that step.

        Returns:
            What a unit of each part becomes in d and in u, each of shape (k, parts).
        """
        flow, column = self.flow, {id(part): place for place, part in enumerate(self.parts)}
        d, u = np.zeros((2, len(curvature), len(column)))

        def pull(lr: float) -> np.ndarray:
            effective = np.minimum(curvature, 1 / lr) if clamp and lr else curvature
            return np.asarray((effective + flow.weight_decay)[:, None])

        if self.before is not None:
            d[:, column[id(self.before.d)]] = 1
            if self.before.u is not None:
                u[:, column[id(self.before.u)]] = 1
        place = flow.start
        for visit in self.visits:
            d, u = _carry(d, u, pull, flow, place, visit.step)
            lr = flow.rates[visit.step - flow.start]
            if visit.whole:
                d[:, column[id(visit.push)]] -= lr
                if visit.jump is not None:
                    u[:, column[id(visit.jump)]] += 1
            else:
                u = flow.momentum * u + pull(lr) * d
                u[:, column[id(visit.push)]] += 1
                d = d - lr * u
            place = visit.step + 1
        return _carry(d, u, pull, flow, place, flow.start + len(flow.rates))

    def flat(self) -> Difference:
        """Carry everything as though there were no curvature.

        Returns:
            The difference at the end; its d is where a Krylov space is best started.
        """
        d, u = self.responses(np.zeros(1))
        return Difference(self._sum(d[0]), self._sum(u[0]) if self.flow.momentum else None)

    def _sum(self, coefficients: np.ndarray) -> Tensor:
        parts = self.parts
        total = torch.zeros_like(parts[0])
        for coefficient, part in zip(coefficients, parts, strict=True):
            total.add_(part, alpha=float(coefficient))
        return total


def transport(space: Krylov, removal: Removal, *, clamp: bool) -> Difference:
    """Carry a removal to the present.

    Args:
        space: a Krylov space of the Hessian, started at `removal.flat().d`. Exact where it is the whole space.
        removal: what is carried.
        clamp: see `bounded`.

    Returns:
        The difference after the last step of `removal.flow`. The prediction y = w' - w is its -d.
    """
    flat = removal.flat()
    pair = np.linalg.eigh(space.tridiagonal()[None].numpy())
    ((d, u),) = curved(entries([space.coordinates], [removal]), [removal], [pair], clamp=clamp)
    return Difference(flat.d + space.combine(d[0]), None if flat.u is None else flat.u + space.combine(u[0]))


def entries(coordinates: Sequence[Callable[[Tensor], Tensor]], removals: Sequence[Removal]) -> np.ndarray:
    """Enter bases with every vector of a removal.

    Args:
        coordinates: of each basis, gives the m coordinates of a vector; what it has outside is dropped.
        removals: one a basis.

    Returns:
        float64, shape (K, m, parts); zero where another removal has more parts.
    """
    found = []
    for enter, removal in zip(coordinates, removals, strict=True):
        found.append(np.stack([enter(part).numpy() for part in removal.parts], axis=1))
    return _padded(found)


def curved(
    entered: np.ndarray,
    removals: Sequence[Removal],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    clamp: bool,
) -> list[tuple[Tensor, Tensor]]:
    """Give what curvature adds to differences, for one operator a removal or several guesses at it.

    Args:
        entered: see `entries`, shape (K, m, parts).
        removals: what is carried, K of them.
        pairs: eigenvalues, shape (K, n), and eigenvectors, shape (K, n, n), of the operators projected on the first n
            vectors of the bases; n may be smaller than m.
        clamp: see `bounded`.

    Returns:
        Of each pair, coordinates in the bases of d and of u, less those of `Removal.flat`, float64, each of shape
        (K, n).
    """
    every = np.concatenate([values for values, _ in pairs], axis=1)
    # one recursion for all eigenvalues of a removal
    runs = [
        removal.responses(np.append(bounded(own, removal.flow, clamp), 0.0), clamp=clamp)
        for own, removal in zip(every, removals, strict=True)
    ]
    both = [_padded([run[kind] for run in runs]) for kind in range(2)]
    found, place = [], 0
    for values, vectors in pairs:
        n = values.shape[1]
        ritz = vectors.swapaxes(1, 2) @ entered[:, :n]
        own = slice(place, place + n)
        leave = [((each[:, own] - each[:, -1:]) * ritz).sum(axis=2) for each in both]
        d, u = (torch.from_numpy((vectors @ each[:, :, None])[:, :, 0]) for each in leave)
        found.append((d, u))
        place += n
    return found


def _padded(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Stack tables of different width."""
    out = np.zeros((len(tables), len(tables[0]), max(table.shape[1] for table in tables)))
    for table, into in zip(tables, out, strict=True):
        into[:, : table.shape[1]] = table
    return out


def bounded(eigenvalues: np.ndarray, flow: Flow, clamp: bool) -> np.ndarray:
    """Keep a few wild eigenvalues from ruling the result.

    Args:
        eigenvalues: Ritz values, shape (m,).
        flow: gives learning rates, momentum and weight decay.
        clamp: for an update: negative ones become 0, so that nothing grows; `Removal.responses` holds the others at
            1/eta of each step, where nothing overshoots without momentum. Otherwise, for a prediction, they are left
            as they are within bounds: steps never overshoot by more than they correct, and growth by negative
            curvature stops at `GROWTH`.

    Returns:
        Shape (m,).
    """
    if clamp:
        return eigenvalues.clip(min=0.0)
    fastest = max(flow.rates)
    if fastest == 0:
        return eigenvalues  # nothing moves
    reach = sum(flow.rates) / (1 - flow.momentum)
    most = 2 * (1 + flow.momentum) / fastest - flow.weight_decay  # beyond it the recursion is unstable
    return np.clip(eigenvalues, -math.log(GROWTH) / reach, most)


def _carry(
    d: np.ndarray, u: np.ndarray, pull_at: Callable[[float], np.ndarray], flow: Flow, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    mu = flow.momentum
    for lr, run in groupby(flow.rates[start - flow.start : stop - flow.start]):  # a constant rate costs one power
        count, pull = len(list(run)), pull_at(lr)
        if mu == 0:
            d = d * (1 - lr * pull) ** count
            continue
        rows = [[1 - lr * pull[:, 0], np.full(len(pull), -lr * mu)], [pull[:, 0], np.full(len(pull), mu)]]
        powers = np.linalg.matrix_power(np.array(rows).transpose(2, 0, 1), count)  # (k, 2, 2)
        d, u = np.einsum("kij,jkp->ikp", powers, np.stack([d, u]))
    return d, u

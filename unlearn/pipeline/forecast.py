"""The Krylov unlearning error: v and the no-op distance predicted from M alone, and whether to trust them.

paper.md section 2: y = w' - w_t to first order in the removal, from a handful of Hessian-vector products. What a method
adds to the weights is then off by norm((w'' - w_t) - y), and doing nothing by norm(y).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.curvature.krylov import Krylov, krylov
from unlearn.curvature.operator import Halves, Operator
from unlearn.curvature.transport import Flow, Visit, transport
from unlearn.train.recording import Recording

ERROR = 0.2  # of norm(y): beyond, the last product still mattered
HALVES = 0.5  # of norm(y): beyond, other samples would have said something else
GROWTH = 2.0  # beyond, negative curvature multiplies the removal, and first order does not hold for long


@dataclass(frozen=True)
class Forecast:
    """A prediction of w' - w_t.

    Attributes:
        y: the prediction, shape (dim,).
        error: estimated error of y, in units of weight.
        products: Hessian-vector products spent.
        flags: `unconverged`, the last product still mattered; `growth`, negative curvature; `lr_sigma`, lr times a Ritz
            value above 1; `half_samples`, two halves of the sample disagree; `batchnorm`, whose no-op distance it
            under-predicts.
    """

    y: Tensor
    error: float
    products: int
    flags: tuple[str, ...]


def forecast(recording: Recording, operator: Operator, products: int, has_buffers: bool) -> Forecast | None:
    """Predict w' - w_t.

    Args:
        recording: of M, with its visits.
        operator: the Hessian of the training loss; of two halves of the sample where they are to be compared.
        products: m, at most this many are spent.
        has_buffers: whether the network has BatchNorm.

    Returns:
        The prediction; None before the first visit, and where the removal is zero.
    """
    push = removal(recording)
    if push is None:
        return None
    share = operator.share if isinstance(operator, Halves) else None
    return forecast_in(krylov(operator, push, products), share, recording, has_buffers)


def removal(recording: Recording) -> Tensor | None:
    """Give the vector that the Krylov space of a forecast starts at.

    Args:
        recording: of M.

    Returns:
        The sum of the removals, shape (dim,); None before the first visit, and where it is zero.
    """
    push = None if recording.visited is None else recording.visited.push_sum
    return push if push is not None and bool(push.any()) else None


def forecast_in(space: Krylov, share: float | None, recording: Recording, has_buffers: bool) -> Forecast:
    """Predict w' - w_t from a Krylov space that is there already.

    Args:
        space: of the Hessian, started at the removal.
        share: weight of the first of two halves of the sample; None where the operator had no halves.
        recording: of M, with at least one visit.
        has_buffers: whether the network has BatchNorm.

    Returns:
        The prediction.
    """
    visited = recording.visited
    assert visited is not None  # it has a visit
    flow, visits = recording.flow(), visited.all()
    coordinates = transport(space, visits, flow, clamp=False)
    size = float(torch.linalg.vector_norm(coordinates))
    m = space.products
    error = 0.0
    if not space.exhausted:
        error = math.inf
        if m > 1:
            shorter = transport(space, visits, flow, clamp=False, matrix=space.tridiagonal()[: m - 1, : m - 1])
            error = float(torch.linalg.vector_norm(coordinates - torch.cat([shorter, shorter.new_zeros(1)])))
    flags = [] if error <= ERROR * size else ["unconverged"]
    ritz = torch.linalg.eigvalsh(space.tridiagonal())
    since = (len(flow.rates) - 1 - visited.steps[0]) * flow.rates[-1] / (1 - flow.momentum)
    if math.exp(min(-float(ritz.min()) * since, 700)) > GROWTH:
        flags.append("growth")
    if flow.rates[-1] * float(ritz.abs().max()) > 1:
        flags.append("lr_sigma")
    if share is not None and _disagree(space, share, size, visits, flow):
        flags.append("half_samples")
    if has_buffers:
        flags.append("batchnorm")
    return Forecast(space.combine(coordinates), error, m, tuple(flags))


def _disagree(space: Krylov, share: float, size: float, visits: list[Visit], flow: Flow) -> bool:
    halves = space.halves(share)
    if halves is None:
        return False
    one, other = (transport(space, visits, flow, clamp=False, matrix=half) for half in halves)
    return float(torch.linalg.vector_norm(one - other)) > HALVES * size

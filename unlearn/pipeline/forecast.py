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
    visited = recording.visited
    if visited is None or visited.push_sum is None or not bool(visited.push_sum.any()):
        return None
    flow = recording.flow()
    space, visits = krylov(operator, visited.push_sum, products), visited.all()
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
    if isinstance(operator, Halves) and _disagree(space, operator.share, size, visits, flow):
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

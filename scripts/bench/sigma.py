"""One sigma of one loss: ours cold and warm, and other libraries."""

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from bench.floor import wait
from bench.ours import last_two, ready, tight
from bench.worlds import REFERENCE, World
from unlearn.curvature.estimators import Lanczos, PowerIteration
from unlearn.curvature.operator import Operator
from unlearn.curvature.spectrum import Extreme
from unlearn.curvature.tracker import Tracker, Warmth
from unlearn.models.network import clone
from unlearn.pipeline.prepare import Prepared
from unlearn.train.arithmetic import passes
from unlearn.train.hessian import hessian_at
from unlearn.train.learner import Learner

TOLERANCE = 1e-3
FIXED = 10  # products of hessian-eigenthings, whose Lanczos has no stop rule


@dataclass
class Counted:
    """Counts the products of someone else's loop.

    Attributes:
        apply: one product.
        products: so far.
    """

    apply: Callable[[Any], Any]
    products: int = field(default=0)

    def __call__(self, vector: Any) -> Any:
        """Multiply."""
        self.products += 1
        return self.apply(vector)


def on_chunks(prepared: Prepared, at: Learner) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Give the network in eval mode and the sample in the chunks that ours uses."""
    split = prepared.data.train
    module = prepared.network.bind(at.weights.clone(), clone(at.buffers)).eval()
    parts = prepared.sample.parts(bool(at.buffers))
    return module, [(split.batch(part), split.labels[part]) for part, _ in parts]


def curvlinops(prepared: Prepared, at: Learner) -> tuple[float, int]:
    """Let scipy's eigsh (ARPACK) find it through curvlinops' operator."""
    module, data = on_chunks(prepared, at)
    operator = HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), data, check_deterministic=False
    ).to_scipy()
    product = Counted(operator.matvec)
    counted = LinearOperator(operator.shape, matvec=product, dtype=operator.dtype)
    start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(2)).numpy()
    (value,) = eigsh(counted, k=1, which="LM", tol=TOLERANCE, v0=start, return_eigenvectors=False)
    return abs(float(value)), product.products


def eigenthings(prepared: Prepared, at: Learner) -> tuple[float, int]:
    """Let hessian-eigenthings' Lanczos find it."""
    library = importlib.import_module("hessian_eigenthings")
    module, data = on_chunks(prepared, at)
    operator = library.HessianOperator(module, data, library.supervised_loss(F.cross_entropy))
    product = Counted(operator.matvec)
    counted = library.LambdaOperator(product, size=operator.size, device=operator.device, dtype=operator.dtype)
    found = library.lanczos(counted, k=1, max_iter=FIXED, which="LM", tol=TOLERANCE, seed=2)
    return float(found.eigenvalues.abs().max()), product.products


def one_sigma(world: World, steps: int, samples: int, rounds: int, *more: str) -> dict[str, Any]:
    """Find sigma of one model in every way, in turn."""
    prepared = ready(world, steps, *REFERENCE, f"measure.hessian_samples={samples}", *more)
    before, at = last_two(prepared)
    objective, sample = prepared.recorded.objective, prepared.sample
    lanczos = Lanczos("lanczos", TOLERANCE, 100)

    def probe(seed: int) -> Tensor:
        stream = torch.Generator().manual_seed(seed)
        return torch.randn(len(at.weights), generator=stream, dtype=at.weights.dtype).to(at.weights.device)

    yesterday = Tracker(lanczos, Warmth(enabled=True, mix=0.01, recheck=25))
    yesterday(hessian_at(objective, before, sample), probe(3))

    def ours(estimator: Callable[[Operator, Tensor], Extreme]) -> tuple[float, int]:
        found = estimator(hessian_at(objective, at, sample), probe(2))
        return abs(found.value), found.products

    def warm(tracker: Tracker) -> Tracker:
        assert tracker.known is not None
        return replace(tracker, known=replace(tracker.known, vectors=tracker.known.vectors.clone()))

    # the tracker writes today's pairs over yesterday's: each round has its own, copied before the clock starts
    fresh = [warm(yesterday) for _ in range(rounds)]
    ways: dict[str, Callable[[], tuple[float, int]]] = {
        "ours, from the step before": lambda: ours(fresh.pop()),
        "ours, cold Lanczos": lambda: ours(lanczos),
        "ours, power iteration": lambda: ours(PowerIteration("power", TOLERANCE, 100)),
        "curvlinops with scipy's eigsh": lambda: curvlinops(prepared, at),
    }
    if importlib.util.find_spec("hessian_eigenthings"):
        importlib.import_module("hessian_eigenthings")  # which takes its time
        ways[f"hessian-eigenthings, Lanczos of {FIXED}"] = lambda: eigenthings(prepared, at)
    truth = tight(prepared, at)
    rows: dict[str, Any] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            wait(prepared.device)
            start = time.perf_counter()
            with passes(prepared.config.measure.arithmetic, prepared.device):
                value, products = way()
            wait(prepared.device)
            seconds = time.perf_counter() - start
            row = rows.setdefault(name, {"products": products, "error": abs(value / truth - 1), "seconds": []})
            row["seconds"].append(seconds)
    return {"world": world.name, "samples": len(sample.points), "threads": world.threads, "exact": truth, "ways": rows}

"""Many measured steps in a row: products a step, and whether time and memory grow."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from bench.ours import measured, ready, state, tight
from bench.step import Child, job_of
from bench.worlds import REFERENCE, World
from unlearn.curvature.krylov import Krylov
from unlearn.curvature.operator import Operator
from unlearn.train.hessian import hessian_at
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.values.errors import UserError


def products(world: World, steps: int, folder: Path, checks: int, *more: str) -> dict[str, Any]:
    """Measure consecutive steps with the tracker, and check some of them against a tight Lanczos."""
    overrides = (*REFERENCE, *more)
    prepared = ready(world, steps, *overrides)
    folder.mkdir(parents=True)
    rows, errors = [], []
    try:
        for row in measured(prepared, folder):
            rows.append(row)
            if row["seconds"] > 1:  # else it is soon done
                told = f"{row['products']} products, {row['seconds']:.3g} s"
                print(f"step {row['step']} of {steps}: {told}", file=sys.stderr)
    except KeyboardInterrupt:
        if not rows:
            raise
        print(f"cut after {len(rows)} steps", file=sys.stderr)
    for row in rows[:: -max(1, len(rows) // checks)][:checks]:
        try:
            errors.append(abs(row["sigma"] / tight(prepared, state(folder / f"{row['step']}.pt")) - 1))
        except UserError as error:
            print(f"step {row['step']}: {error}", file=sys.stderr)
    settings = prepared.config.optimizer
    return {
        "world": world.name,
        "lr": settings.lr,
        "momentum": settings.momentum,
        "samples": len(prepared.sample.points),
        "products": [row["products"] for row in rows],
        "errors": errors,
    }


def growth(world: World, steps: int, folder: Path, *more: str) -> dict[str, Any]:
    """Measure every step in a process of its own; compare its first half with its second."""
    job = job_of(world, steps + 1, [*REFERENCE, *more], None)
    with closing(Child("ours", job, folder / "child", world.threads)) as child:
        rows = [child.step() for _ in range(steps + 1)]
    rows = rows[1:]  # the first has no step before it to start from
    half = len(rows) // 2
    return {
        "world": world.name,
        "steps": steps,
        "seconds": [row["seconds"] for row in rows],
        "peak_mb": [row["peak_mb"] for row in rows],
        "second_half_over_first": sum(r["seconds"] for r in rows[half:]) / sum(r["seconds"] for r in rows[:half]),
    }


def needed(world: World, steps: int, *more: str, tolerance: float = 1e-3, depth: int = 40) -> dict[str, Any]:
    """Ask how many products a start at yesterday's converged eigenvector needs, with a stop rule that knows the truth.

    This bounds what a stop rule can reach from that start; another vector may be a better one. The truth is what this
    run ends in (residual 1e-4 or `depth` products): where it misses a new leader, too few products are counted.
    """
    prepared = ready(world, steps + 1, *REFERENCE, *more)
    learner = Learner.fresh(prepared.network, prepared.device)
    start = torch.randn(len(learner.weights), generator=torch.Generator().manual_seed(0))
    start = start.to(learner.weights)
    rows = []
    for _ in train(prepared.recorded, [learner], []):
        operator = hessian_at(prepared.recorded.objective, learner, prepared.sample)
        found, start, residual = _converge(operator, start, depth)
        errors = [abs(theta / found[-1] - 1) for theta in found]
        least = max((m for m, error in enumerate(errors, 1) if error > tolerance), default=0) + 1
        rows.append({"sigma": abs(found[-1]), "errors": errors, "needed": least, "residual": residual})
    return {
        "world": world.name,
        "lr": prepared.config.optimizer.lr,
        "momentum": prepared.config.optimizer.momentum,
        "samples": len(prepared.sample.points),
        "tolerance": tolerance,
        "rows": rows[1:],  # the first has no step before it to start from
    }


def _converge(operator: Operator, start: torch.Tensor, depth: int) -> tuple[list[float], torch.Tensor, float]:
    """Give the leading Ritz value after each product, the last vector, and its residual over the value."""
    space, found = Krylov.start(start), []
    while True:
        space.expand(operator)
        values, vectors = torch.linalg.eigh(space.tridiagonal())
        lead = int(values.abs().argmax())
        found.append(float(values[lead]))
        residual = space.leftover * abs(float(vectors[-1, lead])) / abs(found[-1])
        if residual < 1e-4 or space.exhausted or space.products >= depth:
            return found, space.combine(vectors[:, lead]), residual

"""Our measured steps, one at a time. `python -m bench.ours JOB` is the child process of the comparison."""

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.worlds import World
from unlearn.curvature.estimators import Lanczos
from unlearn.models.network import clone
from unlearn.pipeline.measure import Measurer, judge
from unlearn.pipeline.numerics import settle
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.hessian import hessian_at
from unlearn.train.learner import Learner
from unlearn.train.loop import check_intervals, train
from unlearn.values.errors import UserError
from unlearn.values.measurement import Measurement

MOST = 200  # products of a tight Lanczos
TAG = "bench: "  # of the lines that the parent reads
READY = "{}"  # the first of them


def ready(world: World, steps: int, *more: str) -> Prepared:
    """Prepare a run of so many steps on the world's threads."""
    # an epoch has a step at least
    prepared = prepare(world.config(*more, f"training.epochs={steps}", f"training.max_steps={steps}"))
    settle(prepared)
    return prepared


def measured(prepared: Prepared, states: Path | None = None) -> Iterator[dict[str, Any]]:
    """Train M and M' in step and measure, as `python -m unlearn` does, and say where the seconds went."""
    seconds = Stopwatch(prepared.device)
    original, retrained = (Learner.fresh(prepared.network, prepared.device) for _ in range(2))
    trained = prepared.begin(original, retrained)
    measurer = Measurer(prepared, seconds)
    steps = train(prepared.recorded, [original], [retrained], check_every=check_intervals(prepared.device))
    while True:
        before = dict(seconds.seconds)
        with seconds("train"):
            step = next(steps, None)
        if step is None:
            return
        with seconds("measure"):
            trained.recording.observe(step, original)
            look = measurer.look(step, trained)
            with seconds("unlearn"):
                unlearned = prepared.method.unlearn(trained)
            columns = {**look.columns, **judge(look, original, retrained, unlearned)}
            row = Measurement(**columns)
        spent = {name: value - before.get(name, 0.0) for name, value in seconds.seconds.items()}
        ahead = spent.get("forecast", 0.0) if prepared.config.measure.forecasts else 0.0
        inside = spent.get("sigma", 0.0) + spent.get("unlearn", 0.0) + ahead
        parts = {
            "train M and M'": spent["train"],
            "sigma": spent.get("sigma", 0.0),
            "forecast": ahead,
            "M''": spent.get("unlearn", 0.0),
            "distances and rest": spent["measure"] - inside,
        }
        if states is not None:
            torch.save({"weights": original.weights, "buffers": original.buffers}, states / f"{step.taken}.pt")
        yield {
            "step": step.taken,
            "moved": row.distance_from_initial,
            "v": row.verification_error,
            "sigma": row.sigma,
            "products": row.hvps,
            "parts": parts,
            "seconds": sum(parts.values()),
            "peak_mb": peak_mb(prepared.device),
        }


def peak_mb(device: torch.device) -> float:
    """Give the most memory that was in use so far, of the device that computes, in millions of bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory, which a process has until it becomes a program
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def tight(prepared: Prepared, at: Learner) -> float:
    """Give |eigenvalue| of largest magnitude to 1e-6, a thousandth of what is asked of ours, from a random start."""
    stream = torch.Generator().manual_seed(1)
    start = torch.randn(len(at.weights), generator=stream, dtype=at.weights.dtype).to(at.weights.device)
    found = Lanczos("tight", 1e-6, MOST)(hessian_at(prepared.recorded.objective, at, prepared.sample), start)
    if not found.converged:
        raise UserError(
            f"a tight Lanczos was not done after {MOST} products, so that there is no truth to compare with"
        )
    return abs(found.value)


def state(path: Path) -> Learner:
    """Read what `measured` wrote."""
    found = torch.load(path, weights_only=True)
    return Learner.start(found["weights"], found["buffers"])


def last_two(prepared: Prepared) -> list[Learner]:
    """Train M alone and keep it at the last two steps."""
    learner, kept = Learner.fresh(prepared.network, prepared.device), []
    for step in train(prepared.recorded, [learner], []):
        if step.taken >= prepared.recorded.schedule.total_steps - 1:
            kept.append(Learner(learner.weights.clone(), learner.velocity.clone(), clone(learner.buffers)))
    return kept


def main() -> None:
    """Say that it is ready, then take one measured step for every line on stdin."""
    job = json.loads(sys.argv[1])
    prepared = ready(World(**job["world"]), job["steps"], *job["overrides"])
    rows = measured(prepared, None if job["states"] is None else Path(job["states"]))
    print(TAG + READY, flush=True)
    for _ in sys.stdin:
        print(TAG + json.dumps(next(rows, None)), flush=True)


if __name__ == "__main__":
    main()

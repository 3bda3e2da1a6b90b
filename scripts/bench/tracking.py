"""Many measured steps in a row: products a step, and whether time and memory grow."""

from pathlib import Path
from typing import Any

from bench.ours import measured, ready, state, tight
from bench.step import Child, job_of
from bench.worlds import REFERENCE, World


def products(world: World, steps: int, folder: Path, checks: int, *more: str) -> dict[str, Any]:
    """Measure consecutive steps with the tracker, and check some of them against a tight Lanczos."""
    overrides = (*REFERENCE, *more)
    prepared = ready(world, steps, *overrides)
    folder.mkdir(parents=True)
    rows = list(measured(prepared, folder))
    every = max(1, steps // checks)
    errors = []
    for row in rows[every - 1 :: every]:
        errors.append(abs(row["sigma"] / tight(prepared, state(folder / f"{row['step']}.pt")) - 1))
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
    with Child("ours", job, folder / "child", world.threads) as child:
        rows = [child.step() for _ in range(steps + 1)]
    rows = rows[1:]  # the first has no step before it to start from
    half = len(rows) // 2
    return {
        "world": world.name,
        "steps": steps,
        "seconds": [row["seconds"] for row in rows],
        "rss_mb": [row["rss_mb"] for row in rows],
        "second_half_over_first": sum(r["seconds"] for r in rows[half:]) / sum(r["seconds"] for r in rows[:half]),
    }

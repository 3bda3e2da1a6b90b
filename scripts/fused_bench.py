"""How much a fused sweep saves: the same points as one stack, and as separate runs in the same process, by turns.

    python scripts/fused_bench.py --points 32 --every 5

Composing the configs takes both the same time, and is left out. The separate runs are the median of `--separate` of
them times the number of points. Prints the ratio of each round.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import torch
from omegaconf import DictConfig, OmegaConf

from unlearn.__main__ import EXPECTED, one_line
from unlearn.pipeline.config import composed
from unlearn.pipeline.fused import compute, finish
from unlearn.pipeline.run import run
from unlearn.pipeline.stacking import stacks
from unlearn.values.errors import UserError, at_least


def clock() -> tuple[float, float]:
    spent = os.times()  # children that have ended included
    return time.perf_counter(), spent.user + spent.system + spent.children_user + spent.children_system


def since(start: tuple[float, float]) -> tuple[float, float]:
    now = clock()
    return now[0] - start[0], now[1] - start[1]


def configs(points: int, extra: list[str]) -> list[DictConfig]:
    plain = ["model=mlp", "device=cpu", "figures=false", "logger.mode=disabled", "store.enabled=false"]
    made = [
        composed(*plain, f"seed={point // 4}", f"penalty.gamma={(0, 1, 5, 10)[point % 4]}", *extra)
        for point in range(points)
    ]
    for cfg in made:
        OmegaConf.resolve(cfg)
    return made


def separate(some: list[DictConfig], folder: Path) -> list[tuple[float, float]]:
    seconds = []
    for place, cfg in enumerate(some):
        start = clock()
        run(cfg, folder / f"separate{place}")
        seconds.append(since(start))
    return seconds


def fused(some: list[DictConfig], folder: Path) -> tuple[float, float]:
    start = clock()
    found, reasons = stacks(some, len(some))
    if len(found) != 1 or len(found[0]) != len(some):
        reason = next(iter(reasons.values()), "they are of several stacks")
        raise UserError(f"not all points fuse: {reason}")
    (stack,) = found
    compute(list(stack.values()))
    for place, point in stack.items():
        finish(point, folder / f"fused{place}")
    return since(start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--separate", type=int, default=8, help="separate runs a round")
    parser.add_argument("--every", type=int, default=5, help="measured steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    for name in ("points", "separate", "every", "rounds"):
        at_least(f"--{name}", getattr(asked, name), 1)
    made = configs(asked.points, [f"measure.every={asked.every}", *asked.overrides])
    ratios = []
    for number in range(asked.rounds + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            alone = [
                statistics.median(kind) for kind in zip(*separate(made[: asked.separate], Path(folder)), strict=True)
            ]
            together = fused(made, Path(folder))
        if number == 0:
            continue  # imports and first calls
        wall, cpu = (one * asked.points / all_ for one, all_ in zip(alone, together, strict=True))
        ratios.append((wall, cpu))
        print(
            f"{asked.points} points: alone {alone[0]:.2f} s each ({alone[1]:.2f} of CPU), "
            f"fused {together[0]:.2f} s in all ({together[1]:.2f} of CPU), ratio {wall:.2f} (of CPU {cpu:.2f})",
            flush=True,
        )
    for name, kind in zip(("wall", "CPU"), zip(*ratios, strict=True), strict=True):
        print(f"ratio of {name} time {min(kind):.2f} to {max(kind):.2f}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)

"""Run one small sweep through every launcher and hold each to the sequential one, value for value.

    python scripts/test_launchers.py [--only joblib slurm ...] [--out outputs/test_launchers] [--points N] [--full]

`slurm` needs SLURM_CONF (scripts/local_slurm.sh up), `ray` the extra `ray`. Exit code 1 where a launcher differs.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from unlearn.results.collect import collect

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {
    "sequential": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"],
    "ray": ["hydra/launcher=ray_local"],
}
SMALL = ["pretraining.epochs=1", "training.epochs=2", "measure.every=15", "measure.hessian_samples=128"]


def lacking(launcher: str) -> str | None:
    """Say why a launcher cannot be tried here."""
    if launcher == "slurm" and not (shutil.which("sbatch") and "SLURM_CONF" in os.environ):
        return 'no Slurm: eval "$(scripts/local_slurm.sh up)"'
    if launcher == "ray" and importlib.util.find_spec("ray") is None:
        return "no Ray: make .venv-ray/.installed, and run this with .venv-ray/bin/python"
    return None


def sweep(launcher: str, folder: Path, points: int, full: bool) -> tuple[float, str]:
    """Run the sweep; gives the seconds, and an error's text where it failed."""
    seeds = ",".join(map(str, range(points // 2)))
    grid = ["method=single_gradient,finetune", f"seed={seeds}", "logger.mode=offline"]
    grid += [] if full else SMALL
    grid.append(f"store.root={folder}-store")  # or all but the first would find everything there
    command = [sys.executable, "-m", "unlearn", "--multirun", *LAUNCHERS[launcher], *grid, f"hydra.sweep.dir={folder}"]
    start = time.perf_counter()
    # Ray would write a token into the home folder
    done = subprocess.run(command, env={**os.environ, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True)
    return time.perf_counter() - start, _failure(done)


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def table(folder: Path) -> pd.DataFrame:
    """Give the results without what differs from run to run by right."""
    found = collect(folder).table
    return found[[name for name in found if not name.startswith(("seconds.", "reused.", "store."))]]


def difference(folder: Path, reference: Path) -> str:
    """Say where two sweeps differ; empty where they are equal, value for value."""
    ours, theirs = table(folder), table(reference)
    if not ours.equals(theirs):
        return "the results table differs"
    for name in ours.folder:
        if (folder / name / "steps.csv").read_bytes() != (reference / name / "steps.csv").read_bytes():
            return f"steps.csv of point {name} differs"
    return ""


def main() -> int:
    """Try the launchers, print what came of each, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(LAUNCHERS), default=list(LAUNCHERS))
    parser.add_argument("--points", type=int, default=4, help="an even number")
    parser.add_argument("--full", action="store_true", help="points of the demo's length, to measure throughput")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/test_launchers")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    shown = Table("launcher", "points", "seconds", "times sequential", "against sequential")
    failed, sequential = False, 0.0
    for launcher in dict.fromkeys(("sequential", *arguments.only)):
        reason = lacking(launcher)
        if reason:
            shown.add_row(launcher, "-", "-", "-", f"not run ({reason})")
            continue
        for left in (out / launcher, out / f"{launcher}-store"):
            shutil.rmtree(left, ignore_errors=True)
        seconds, error = sweep(launcher, out / launcher, arguments.points, arguments.full)
        sequential = sequential or seconds
        error = error or difference(out / launcher, out / "sequential")
        found = len(table(out / launcher)) if not error else 0
        failed |= bool(error) or found != arguments.points
        shown.add_row(
            launcher, str(found), f"{seconds:.1f}", f"{sequential / seconds:.2f}", error or "equal, value for value"
        )
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

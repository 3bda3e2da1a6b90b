"""Kill runs with SIGKILL at random moments, start them again, and compare them with a run that was never stopped.

    python scripts/chaos.py [--kills 100] [--seed 0] [--store on|off|both]

A kill falls anywhere between the first file of the run and its end. Every run must end with the same bytes: steps.csv,
summary (but for its seconds), weights. No row that was on disk may be missing, no temporary file may be left.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from unlearn.pipeline.config import composed
from unlearn.pipeline.run import run

LATE = "not: it had ended"
ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "dataset.train_size=480", "model=mlp", "optimizer=momentum", "method=finetune", "method.epochs=8",
    "measure.every=1", "measure.hessian_samples=128", "pretraining.epochs=12", "training.epochs=3",
    "training.save_weights=true", "checkpoint.minutes=0.0005", "threads=1", "device=cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Killed:
    """What one kill found and left.

    Attributes:
        moment: what the run was doing, by what lay on disk.
        faults: what was wrong in the end; empty where nothing was.
    """

    moment: str
    faults: tuple[str, ...]


def start(folder: Path, options: tuple[str, ...]) -> BaseProcess:
    """Start a run in a process of its own. It is forked, so that what is killed is a run and not Python's imports."""
    process = get_context("fork").Process(target=work, args=(folder, options))
    process.start()
    return process


def work(folder: Path, options: tuple[str, ...]) -> None:
    """Do the run; what it prints is of no interest."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    overrides = [*RUN, *options, f"store.root={folder / 'store'}"]
    run(composed(*overrides), folder / "run")


def finish(process: BaseProcess) -> None:
    """Wait for a run that must come to its end."""
    process.join()
    if process.exitcode:
        raise SystemExit(f"a run failed with exit code {process.exitcode}")


def begun(folder: Path, process: BaseProcess) -> float:
    """Wait until a run has written its first file; give the time of that."""
    while not (folder / "run" / "config.yaml").exists() and process.is_alive():
        time.sleep(0.001)
    return time.monotonic()


def outcome(folder: Path) -> dict[str, str]:
    """Digest all that a run computed."""
    run = folder / "run"
    summary = json.loads((run / "summary.json").read_bytes())
    for changing in ("seconds", "reused"):
        summary.pop(changing, None)
    parts = {"steps.csv": (run / "steps.csv").read_bytes(), "summary.json": json.dumps(summary).encode()}
    parts |= {path.name: path.read_bytes() for path in (run / "weights").iterdir()}
    return {name: sha256(content).hexdigest() for name, content in parts.items()}


def moment(folder: Path) -> str:
    """Say what a killed run was doing."""
    run = folder / "run"
    kept = {
        path.name.partition("-")[0] for place in (run, folder / "store" / "partial") for path in place.glob("*-*.pt")
    }
    if (run / "summary.json").exists():
        return "at its end" if json.loads((run / "summary.json").read_bytes())["status"] == "completed" else "drawing"
    if (run / "weights").exists():
        return "writing weights"
    if list(folder.rglob(".*.part")):
        return "writing a state"
    if "pair" in kept or (run / "steps.csv").exists():
        return "training M and M'"
    return "pretraining" if "initial" in kept else "starting"


def kill_once(folder: Path, options: tuple[str, ...], wait: float, whole: dict[str, str]) -> Killed:
    """Kill one run after `wait` seconds, start it again, and compare."""
    process = start(folder, options)
    begun(folder, process)
    time.sleep(wait)
    process.kill()
    process.join()
    doing = moment(folder) if process.exitcode == -signal.SIGKILL else LATE
    steps = folder / "run" / "steps.csv"
    rows = (
        [line for line in steps.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if steps.exists()
        else []
    )
    finish(start(folder, options))
    found = outcome(folder)
    faults = [f"{name} is not as it should be" for name in whole if found.get(name) != whole[name]]
    faults += [f"{name} should not be there" for name in found if name not in whole]
    if steps.read_bytes().splitlines(keepends=True)[: len(rows)] != rows:
        faults.append("a measured row is lost")
    kept = [path for path in folder.rglob("*") if path.name.endswith(".part") or path.parent.name == "partial"]
    kept += list((folder / "run").glob("*.pt"))
    faults += [f"{path.relative_to(folder)} is left" for path in kept]
    return Killed(doing, tuple(faults))


def chaos(kills: int, seed: int, options: tuple[str, ...], workplace: Path) -> list[Killed]:
    """Kill as many runs, one after the other."""
    draw = random.Random(seed)
    lengths = []
    for name in ("first", "second"):
        process = start(workplace / name, options)
        first = begun(workplace / name, process)
        finish(process)
        lengths.append(time.monotonic() - first)
    expected, length = outcome(workplace / "first"), min(lengths)
    found = []
    for number in range(kills):
        with TemporaryDirectory(dir=workplace) as folder:
            killed = kill_once(Path(folder), options, draw.uniform(0, length), expected)
        found.append(killed)
        print(f"{number + 1:4d}  {killed.moment:20s} {'; '.join(killed.faults) or 'bit-identical'}", flush=True)
    return found


def main() -> int:
    """Run from the command line; the exit code is 1 where a run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=("on", "off", "both"), default="both")
    parser.add_argument("--wandb", choices=("disabled", "offline"), default="disabled")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # before the forks: a pool of threads does not survive one
    found: list[Killed] = []
    stores = {"on": ("true",), "off": ("false",), "both": ("true", "false")}[chosen.store]
    for number, enabled in enumerate(stores):
        share = chosen.kills // len(stores) + (number < chosen.kills % len(stores))
        with TemporaryDirectory() as folder:
            print(f"store.enabled={enabled}", flush=True)
            found += chaos(
                share, chosen.seed + number, (f"store.enabled={enabled}", f"logger.mode={chosen.wandb}"), Path(folder)
            )
    good = sum(not killed.faults for killed in found)
    moments = Counter(killed.moment for killed in found)
    print(f"{good} of {len(found)} ended bit-identical; killed {dict(moments)}")
    if moments[LATE] == len(found):
        print("no kill hit a run that was at work: nothing is shown")
        return 1
    return 0 if good == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A measured step, ours beside the reference's: two processes that take turns."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.ours import TAG, ready, state, tight
from bench.worlds import REFERENCE, World
from unlearn.values.errors import UserError

SCRIPTS = Path(__file__).resolve().parents[1]
ALIKE = 1e-4  # up to here both are at the same weights, and our tight Lanczos is the truth of both


@dataclass(frozen=True)
class Checkout:
    """Where the reference code is.

    Attributes:
        reference: a checkout of the authors' repository.
        pyhessian: of PyHessian.
    """

    reference: Path
    pyhessian: Path


class Child:
    """A process that takes one measured step whenever it is asked."""

    def __init__(self, module: str, job: dict[str, Any], folder: Path, threads: int) -> None:
        given = [folder for folder in [os.environ.get("PYTHONPATH")] if folder]
        path = os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS), *given])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        folder.mkdir(parents=True)
        self.name, self.log = module, folder / "stderr.txt"
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"bench.{module}", json.dumps(job)],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._row()  # it is ready: nothing else is timed while a process starts

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def step(self) -> dict[str, Any]:
        """Ask for a step and wait for it.

        Raises:
            UserError: the process died.
        """
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self._row()

    def _row(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(TAG):
                row: dict[str, Any] = json.loads(line.removeprefix(TAG))
                return row
        self.process.wait()
        last = (self.log.read_text().strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the process bench.{self.name} ended early (exit code {self.process.returncode}: {last}); "
            "where memory was short (-9), take fewer --samples"
        )


def job_of(world: World, steps: int, overrides: list[str], states: Path | None) -> dict[str, Any]:
    """Say what `bench.ours` is to do."""
    kept = None if states is None else str(states)
    return {"world": asdict(world), "steps": steps, "overrides": overrides, "states": kept}


def compare(
    world: World, steps: int, samples: int, lr: float, truths: int, checkout: Checkout | None, folder: Path, beside: int
) -> dict[str, Any]:
    """Let both take turns for `beside` steps, and ours go on; compare the numbers of both, and with a tight Lanczos."""
    overrides = [*REFERENCE, f"measure.hessian_samples={samples}", f"optimizer.lr={lr}"]
    prepared = ready(world, steps, *overrides)
    train, network = prepared.data.train, prepared.network
    torch.save({name: value.cpu() for name, value in network.module.state_dict().items()}, folder / "start.pt")
    inputs = train.batch(torch.arange(len(train)))
    torch.save({"inputs": inputs.cpu(), "labels": train.labels.cpu()}, folder / "images.pt")
    states = folder / "states"
    states.mkdir()
    overrides.append(f"model.weights={folder / 'start.pt'}")
    jobs: dict[str, tuple[str, dict[str, Any]]] = {"ours": ("ours", job_of(world, steps, overrides, states))}
    if checkout is not None:
        job: dict[str, Any] = {
            "reference": str(checkout.reference.resolve()),
            "pyhessian": str(checkout.pyhessian.resolve()),
        }
        job |= {"start": str(folder / "start.pt"), "images": str(folder / "images.pt"), "lr": lr, "samples": samples}
        batch = prepared.config.training.batch_size
        jobs["reference"] = (
            "reference",
            {**job, "batch": batch, "steps": steps, "threads": world.threads, "device": world.device},
        )
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    children: dict[str, Child] = {}
    cut = None
    try:
        for name, (module, job) in jobs.items():
            children[name] = Child(module, job, folder / name, world.threads)
        for step in range(1, steps + 1):
            if step == beside + 1 and "reference" in children:
                children.pop("reference").close()
            for name, child in children.items():
                rows[name].append(child.step())
            done = ", ".join(f"{name} {rows[name][-1]['seconds']:.3g} s" for name in children)
            print(f"step {step} of {steps}: {done}", file=sys.stderr)
    except (UserError, KeyboardInterrupt) as error:
        if not all(rows.values()):
            raise
        cut = str(error) or "interrupted"
        print(f"cut: {cut}", file=sys.stderr)
    finally:
        for child in children.values():
            child.close()
    last = min(map(len, rows.values()))
    exact = {}
    for step in checked_steps(last, truths):
        try:
            exact[step] = tight(prepared, state(states / f"{step}.pt"))
        except UserError as error:
            print(f"step {step}: {error}", file=sys.stderr)
    return {
        "world": world.name,
        "batch": prepared.config.training.batch_size,
        "samples": samples,
        "images": len(train),
        "lr": lr,
        "threads": world.threads,
        "device": torch.cuda.get_device_name() if world.device == "cuda" else "cpu",
        "cut": cut,
        "rows": rows,
        "exact_sigma": exact,
        "equal": equalities(rows, exact),
    }


def checked_steps(last: int, truths: int) -> set[int]:
    """Choose steps that are spread evenly up to the last, which is among them."""
    truths = min(truths, last)
    return {last - round(place * last / truths) for place in range(truths)}


def equalities(rows: dict[str, list[dict[str, Any]]], exact: dict[int, float]) -> dict[str, float]:
    """Give the worst relative differences over the steps."""
    found, pairs = {}, []
    if "reference" in rows:
        pairs = list(zip(rows["ours"], rows["reference"], strict=False))  # the reference may stop before
        for key in ("moved", "v", "sigma"):
            found[f"{key}, ours from the reference's"] = max(abs(a[key] / b[key] - 1) for a, b in pairs)
    for name, taken in rows.items():
        if name == "reference" and found["moved, ours from the reference's"] > ALIKE:
            continue
        off = [abs(row["sigma"] / exact[row["step"]] - 1) for row in taken if row["step"] in exact]
        if off:
            found[f"sigma of {name} from a tight Lanczos"] = max(off)
    return found

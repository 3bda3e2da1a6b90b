"""How fast is a measured step, and where does the time go?

    python scripts/benchmark.py [--reference DIR [--pyhessian DIR]] [--config small|full] [--samples N] [--steps N]

Without --reference ours alone. Prints tables; writes OUT/bench.json with every timing, and a figure drawn from it.
docs/benchmark.md says how to read them.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; threads that wait leave the core alone

import torch
from bench import report
from bench.floor import against_floor
from bench.reference import check, pyhessian_in
from bench.sigma import one_sigma
from bench.step import Checkout, compare
from bench.throughput import throughput
from bench.tracking import growth, needed, products
from bench.worlds import REFERENCE, World, digits, images, images_at
from joblib import cpu_count

from unlearn.__main__ import EXPECTED, one_line
from unlearn.pipeline.device import pick_device
from unlearn.records.provenance import code_state
from unlearn.train.arithmetic import ARITHMETICS
from unlearn.values.errors import UserError, at_least, choice
from unlearn.values.whole import whole

PARTS = ("step", "sigma", "floor", "products", "growth")  # those that run unasked
MORE_PARTS = (*PARTS, "needed", "throughput")
IMAGES = 2048  # of real data, or what the steps need if that is more
THEIRS = 512  # Hessian samples of the reference, as one batch
FIXED = {  # by options, or by what the comparison is of
    *(override.partition("=")[0] for override in REFERENCE),
    *("model", "dataset", "device", "threads", "optimizer.lr", "measure.hessian_samples"),
    *("training.batch_size", "training.epochs", "training.max_steps"),
}
LARGE_BATCH = 128  # beside --batch, in the part throughput
OPTIMIZERS = {  # of the parts floor and products
    "sgd": ("optimizer.momentum=0", "optimizer.weight_decay=0"),
    "momentum": ("optimizer.momentum=0.9", "optimizer.weight_decay=5e-4"),
}
# Hessian samples, measured steps, rounds of what is timed in turn, consecutive steps for the products and their samples
CONFIGS = {"tiny": (32, 2, 1, 3, 32), "small": (32, 4, 3, 50, 512), "full": (512, 3, 3, 50, 512)}

ON_CUDA = 20  # measured steps of `full` there: libraries load in the first two, graphs are captured in the third


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--pyhessian", type=Path, help="checkout of PyHessian; default: REFERENCE/PyHessian")
    parser.add_argument("--config", default="small", help=f"one of {', '.join(CONFIGS)}")
    parser.add_argument("--model", default="resnet18", help="resnet18, or a small network on digits: cnn, mlp, linear")
    parser.add_argument("--no-small", action="store_true", help="leave the small networks on digits out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--samples", type=int, help="Hessian samples of the parts step and sigma")
    parser.add_argument("--steps", type=int, help="measured steps of the part step")
    parser.add_argument("--beside", type=int, help="of these, the first that the reference takes too; default: all")
    parser.add_argument(
        "--truths", type=int, default=1, help="of these, spread evenly to the last, checked by a tight Lanczos"
    )
    parser.add_argument("--row", type=int, help="consecutive steps of the part products; twice as many of growth")
    parser.add_argument("--row-samples", type=int, help="Hessian samples of the ResNet-18 in the part products")
    parser.add_argument("--optimizers", nargs="*", default=list(OPTIMIZERS), help=f"of {', '.join(OPTIMIZERS)}")
    parser.add_argument("--checks", type=int, help="of these steps, by a tight Lanczos; default: all, 5 on a ResNet-18")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--data", default="synthetic", help="folder with cifar-10-batches-py, or synthetic")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads of large networks; default: every core")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), help=f"of {', '.join(MORE_PARTS)}")
    parser.add_argument(
        "--overrides",
        nargs="*",
        default=[],
        help="of our config; of them only model.weights=FILE reaches the reference",
    )
    parser.add_argument("--markdown", action="store_true", help="also write the tables to OUT/bench.md")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    asked = parser.parse_args(given)
    choice("--device", asked.device, ("cpu", "cuda"))
    pick_device(asked.device)
    choice("--config", asked.config, tuple(CONFIGS))
    for part in asked.parts:
        choice("--parts", part, MORE_PARTS)
    for name in asked.optimizers:
        choice("--optimizers", name, tuple(OPTIMIZERS))
    choice("--model", asked.model, ("resnet18", "cnn", "mlp", "linear"))
    samples, steps, asked.rounds, row, asked.small_samples = CONFIGS[asked.config]
    if asked.device == "cuda" and asked.config == "full":
        steps = ON_CUDA
    defaults = {"samples": samples, "steps": steps, "row": row, "threads": cpu_count()}
    for name, value in defaults.items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.beside is None:
        asked.beside = asked.steps
    if asked.row_samples is None:
        asked.row_samples = asked.samples if asked.device == "cuda" else 32
    for name in ("batch", "samples", "threads", "truths", "row_samples"):
        at_least(f"--{name.replace('_', '-')}", getattr(asked, name), 1)
    if not 1 <= asked.beside <= asked.steps:
        raise UserError(f"--beside={asked.beside} must lie between 1 and --steps={asked.steps}")
    for name in ("steps", "row"):
        at_least(f"--{name}", getattr(asked, name), 2)
    for place, override in enumerate(asked.overrides):
        name, _, value = override.partition("=")
        if name == "model.weights" and Path(value).exists():  # the processes of a part run in folders of their own
            override = f"{name}={Path(value).resolve()}"
        asked.overrides[place] = override
        key = name.lstrip("+~")
        if key.startswith("pretraining"):
            raise UserError(f"--overrides {override}: the benchmark does not pretrain; start from model.weights=FILE")
        if key in FIXED or (asked.reference is not None and key.partition(".")[0] == "optimizer"):
            raise UserError(f"--overrides {override}: the benchmark sets {key} itself, as the reference code has it")
    if asked.checks is not None:
        at_least("--checks", asked.checks, 1)
    if asked.reference is not None:
        if asked.model != "resnet18":
            raise UserError(f"--model={asked.model}: the reference code is compared on resnet18 alone")
        asked.pyhessian = asked.pyhessian or pyhessian_in(asked.reference)
        check(asked.reference, asked.pyhessian)
        if asked.samples > THEIRS:
            raise UserError(f"--samples={asked.samples}: the reference code takes {THEIRS} at most")
    return asked


def worlds(asked: argparse.Namespace, folder: Path) -> tuple[World, list[World]]:
    """Give the network that is compared, and the small ones beside it."""
    more = tuple(asked.overrides)
    device = asked.device
    # what is said of the ResNet-18 and its images does not fit the digits
    alone = ("model", "dataset") if asked.model == "resnet18" else ()
    rest = [each for each in more if not each.lstrip("+~").startswith(alone)]
    small = [] if asked.no_small else [digits(name, *rest, device=device) for name in ("cnn", "mlp")]
    if asked.model != "resnet18":
        own = digits(asked.model, f"training.batch_size={asked.batch}", *more, device=device)
        return own, [own] if asked.config == "tiny" else [own, *(world for world in small if world.name != own.name)]
    largest = LARGE_BATCH if "throughput" in asked.parts else asked.batch
    size = max(asked.samples, asked.row_samples, asked.batch * (asked.steps + 1), largest)
    if asked.data != "synthetic":  # another number is another draw, scaled otherwise: another path
        size = max(size, IMAGES)
    root = images_at(asked.data, folder / "images", size)
    return images("resnet18", root, size, asked.batch, asked.threads, *more, device=device), small


def measure(asked: argparse.Namespace, folder: Path, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the parts that were asked for; what is found is kept after each."""
    main, small = worlds(asked, folder)
    given, lr = [part for part in MORE_PARTS if part in asked.parts], f"optimizer.lr={asked.lr}"
    optimizers = [OPTIMIZERS[name] for name in asked.optimizers]
    found: dict[str, Any] = {
        "machine": {
            "cores": cpu_count(),
            "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "device": torch.cuda.get_device_name() if asked.device == "cuda" else "cpu",
            "torch": torch.__version__,
            "python": sys.version.split()[0],
            "load": os.getloadavg()[0],
            "git": code_state()["git"],
        },
        "settings": {name: str(value) for name, value in sorted(vars(asked).items()) if name not in ("out", "data")},
    }
    found["settings"]["data"] = asked.data if asked.data == "synthetic" else "given"
    checkout = None if asked.reference is None else Checkout(asked.reference, asked.pyhessian)
    runs = [(world, asked.small_samples, asked.checks or asked.row) for world in small]
    if main not in small and (asked.config == "full" or not small):
        runs.append((main, asked.row_samples, asked.checks or 5))
    work: dict[str, Callable[[], Any]] = {
        "step": lambda: compare(
            main, asked.steps, asked.samples, asked.lr, asked.truths, checkout, folder, asked.beside
        ),
        "sigma": lambda: one_sigma(main, asked.steps, asked.samples, asked.rounds, lr),
        "floor": lambda: [
            against_floor(world, asked.rounds * (10 if world in small else 4), 20 if world in small else 1, lr, *more)
            for world in dict.fromkeys((main, *small))
            for more in optimizers
        ],
        "products": lambda: [
            products(
                world, asked.row, folder / f"{world.name} {more[0]}", checks, lr, f"measure.hessian_samples={n}", *more
            )
            for world, n, checks in runs
            for more in optimizers
        ],
        "growth": lambda: [growth((small or [main])[0], 2 * asked.row, folder / "growth", lr)],
        "throughput": lambda: [
            throughput(main, asked.rounds * 2, arithmetic, f"training.batch_size={batch}", lr)
            for batch in dict.fromkeys((asked.batch, LARGE_BATCH))
            for arithmetic in (ARITHMETICS if asked.device == "cuda" else ARITHMETICS[:1])
        ],
        "needed": lambda: [
            needed(main, asked.steps, lr, f"measure.hessian_samples={asked.samples}", *OPTIMIZERS["sgd"])
        ],
    }
    for part in given:
        found[part] = work[part]()
        keep(found)
    return found


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write; returns what `bench.json` holds."""
    asked = arguments(given)
    asked.out.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=asked.out):
        pass  # a folder that cannot be written shows before the work
    found: dict[str, Any] = {}

    def keep(so_far: dict[str, Any]) -> None:
        found.update(so_far)
        with whole(asked.out / "bench.json") as part:
            part.write_text(json.dumps(found, indent=1))

    try:
        with TemporaryDirectory() as folder:
            measure(asked, Path(folder), keep)
    finally:  # the parts that were done, if a later one failed
        if any(part in found for part in asked.parts):
            report.show(found)
            if asked.markdown:
                (asked.out / "bench.md").write_text(report.markdown(found))
            if "step" in found:
                report.figure(found, asked.out / "bench.png")
    return found


if __name__ == "__main__":
    try:
        main()
    except EXPECTED as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)

"""Does e_krylov predict the size of v? Many requests, several networks and learning rates, on digits.

    python scripts/krylov_study.py [--quick] [--first-seed 100] [--out outputs/krylov_study]

Writes every measured point to OUT/*.csv and prints the tables of docs/krylov.md. Each request is one run. The forecast
was chosen on seeds 0 to 2; other first seeds are held out.
"""

import argparse
import contextlib
import io
import itertools
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from scipy.stats import spearmanr

from unlearn.pipeline.config import composed
from unlearn.pipeline.run import run
from unlearn.values.errors import Diverged, UserError

COMMON = (
    "pretraining.epochs=0",
    "figures=false",
    "logger.mode=disabled",
    "store.enabled=false",
    "schedule.order=shuffle_once",
)
LENGTHS = {
    "one visit, to step 44": ("training.epochs=1", "measure.every=11", "training.max_steps=44"),
    "five visits, to step 200": ("training.epochs=5", "measure.every=10", "training.max_steps=200"),
}


def vary(**keys: tuple[object, ...]) -> list[list[str]]:
    """List the runs of a grid, as overrides; `forget__position` is the key `forget.position`."""
    names = [name.replace("__", ".") for name in keys]
    return [
        [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        for values in itertools.product(*keys.values())
    ]


GAMMAS = vary(seed=(0, 1, 2), penalty__gamma=(0, 1, 5, 20))
REQUESTS = vary(forget__position=tuple(range(20)))
BOTH = vary(seed=(0, 1, 2), forget__position=(0, 1, 2))
SMALL = ["model=mlp", "model.widths=[32]"]
STUDIES = {
    "ReLU MLP 32, seeds and gammas": (SMALL, (0.01, 0.05, 0.1), GAMMAS),
    "ReLU MLP 32, one model, 20 requests": (SMALL, (0.01, 0.05), REQUESTS),
    "ReLU MLP 64-32, seeds and gammas": (["model=mlp"], (0.01, 0.05, 0.1), GAMMAS),
    "ReLU MLP 64-32, one model, 20 requests": (["model=mlp"], (0.01, 0.05), REQUESTS),
    "GELU MLP 64-32, one model, 20 requests": (["model=mlp", "model.activation=gelu"], (0.01, 0.05), REQUESTS),
    "ReLU MLP 32, weight decay": ([*SMALL, "optimizer.weight_decay=5e-4"], (0.01, 0.05), BOTH),
    "ReLU MLP 32, momentum": ([*SMALL, "optimizer=momentum"], (0.005, 0.01, 0.02), BOTH),
    "CNN": (["model=cnn"], (0.01, 0.02), BOTH),
    "CNN, BatchNorm": (["model=cnn", "model.norm=batch"], (0.01, 0.02), BOTH),
    "linear": (["model=linear"], (0.01, 0.05), BOTH),
}


def later(run: list[str], first: int) -> list[str]:
    """Shift the seed of a run, which is 0 where it has none."""
    given = dict(override.split("=") for override in run)
    return [f"{name}={value}" for name, value in (given | {"seed": str(int(given.get("seed", 0)) + first)}).items()]


def points(name: str, length: str, quick: bool, first_seed: int) -> pd.DataFrame:
    """Run one study; the forgotten batches are the first of the epoch."""
    overrides, rates, runs = STUDIES[name]
    if quick:
        rates, runs = rates[:1], runs[:3]
    found = []
    for lr, varied in itertools.product(rates, [later(each, first_seed) for each in runs]):
        chosen = [*COMMON, *LENGTHS[length], *overrides, f"optimizer.lr={lr}", *varied]
        with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            try:
                run(composed(*chosen), Path(folder) / "run")
            except Diverged as error:  # the other runs are worth as much without it
                print(f"{name}, {' '.join(chosen)}: {error}: left out", file=sys.stderr)
                continue
            steps = pd.read_csv(Path(folder) / "run" / "steps.csv")
        steps = steps[steps.unlearning_error_krylov.notna()]  # none before the first visit
        found.append(steps.assign(study=name, length=length, lr=lr, run=" ".join(varied)))
    if not found:
        raise UserError(f"{name}: every run diverged")
    return pd.concat(found)


def within(table: pd.DataFrame, x: str, y: str) -> float:
    """Give the mean Spearman correlation within each (lr, t): there the step count is the same for all."""
    table = table.groupby(["lr", "step"]).filter(lambda part: len(part) > 2)
    return float(table.groupby(["lr", "step"]).apply(lambda part: spearmanr(part[x], part[y]).statistic).mean())


def row(name: str, table: pd.DataFrame) -> dict[str, object]:
    """Give one line of the table."""
    ratio = table.verification_error / table.unlearning_error_krylov
    noop = table.noop_distance / table.predicted_noop_distance
    return {
        "study": name,
        "n": len(table),
        "rho krylov": within(table, "unlearning_error_krylov", "verification_error"),
        "rho e_paper": within(table, "unlearning_error_paper", "verification_error"),
        "rho null": within(table, "correction_size", "verification_error"),
        "v / e_krylov": "{:.2f} [{:.2f}, {:.2f}]".format(*ratio.quantile([0.5, 0.05, 0.95])),
        "no-op / forecast": "{:.2f} [{:.2f}, {:.2f}]".format(*noop.quantile([0.5, 0.05, 0.95])),
        "rho no-op": within(table, "predicted_noop_distance", "noop_distance"),
        "flagged": f"{100 * table.krylov_flags.notna().mean():.0f} %",
    }


def main() -> None:
    """Run all studies and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three requests a study")
    parser.add_argument("--first-seed", type=int, default=0, help="seeds are this one and the next two")
    parser.add_argument("--out", type=Path, default=Path("outputs/krylov_study"))
    parser.add_argument("--lengths", nargs="*", default=list(LENGTHS), choices=list(LENGTHS), metavar="LENGTH")
    parser.add_argument("--only", nargs="*", default=list(STUDIES), choices=list(STUDIES), metavar="STUDY")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for length, name in itertools.product(arguments.lengths, arguments.only):
        table = points(name, length, arguments.quick, arguments.first_seed)
        drawn = f"seeds from {arguments.first_seed}" + (", quick" if arguments.quick else "")
        table.to_csv(arguments.out / f"{length.split(',')[0]}, {name}, {drawn}.csv", index=False)
        found = pd.DataFrame([row(name, table)]).round(2)
        print(f"\n{length}\n{found.to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()

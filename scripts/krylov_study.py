"""Does e_krylov predict the size of v? Many requests, several networks and learning rates, on digits.

    python scripts/krylov_study.py [--quick] [--out outputs/krylov_study]

Writes every measured point to OUT/*.csv and prints the tables of docs/krylov.md. Each request is one run.
"""

import argparse
import contextlib
import io
import itertools
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from hydra import compose, initialize_config_dir
from scipy.stats import spearmanr

from unlearn.pipeline.config import register
from unlearn.pipeline.run import run

CONF = Path(__file__).resolve().parents[1] / "conf"
COMMON = ("pretraining.epochs=0", "figures=false", "logger.mode=disabled", "schedule.order=shuffle_once")
LENGTHS = {
    "one visit, to step 44": ("training.epochs=1", "measure.every=11", "training.max_steps=44"),
    "five visits, to step 200": ("training.epochs=5", "measure.every=50", "training.max_steps=200"),
}
STUDIES = {
    "ReLU MLP": (["model=mlp"], (0.01, 0.05, 0.1), (0, 1, 2), 8),
    "ReLU MLP, weight decay": (["model=mlp", "optimizer.weight_decay=5e-4"], (0.01, 0.05), (0, 1, 2), 4),
    "ReLU MLP, momentum": (["model=mlp", "optimizer=momentum"], (0.005, 0.01, 0.02), (0, 1, 2), 4),
    "ReLU MLP, one model, 20 requests": (["model=mlp"], (0.01, 0.05), (0,), 20),
    "GELU MLP, one model, 20 requests": (["model=mlp", "model.activation=gelu"], (0.01, 0.05), (0,), 20),
    "CNN": (["model=cnn"], (0.01, 0.02), (0, 1, 2), 4),
    "CNN, BatchNorm": (["model=cnn", "model.norm=batch"], (0.01, 0.02), (0, 1, 2), 4),
    "linear": (["model=linear"], (0.01, 0.05), (0, 1, 2), 4),
}


def points(name: str, length: str, quick: bool) -> pd.DataFrame:
    """Run one study; the forgotten batches are the first of the epoch."""
    overrides, rates, seeds, requests = STUDIES[name]
    if quick:
        rates, seeds, requests = rates[:1], seeds[:1], 3
    found = []
    for lr, seed, place in itertools.product(rates, seeds, range(requests)):
        chosen = [
            *COMMON,
            *LENGTHS[length],
            *overrides,
            f"optimizer.lr={lr}",
            f"seed={seed}",
            f"forget.position={place}",
        ]
        with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            run(compose("config", chosen), Path(folder) / "run")
            steps = pd.read_csv(Path(folder) / "run" / "steps.csv")
        found.append(steps.assign(study=name, length=length, lr=lr, seed=seed, request=place))
    return pd.concat(found)


def within(table: pd.DataFrame, x: str, y: str) -> float:
    """Give the mean Spearman correlation within each (lr, t): there the step count is the same for all."""
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
    parser.add_argument("--out", type=Path, default=Path("outputs/krylov_study"))
    parser.add_argument("--only", nargs="*", default=list(STUDIES), choices=list(STUDIES), metavar="STUDY")
    arguments = parser.parse_args()
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"
    arguments.out.mkdir(parents=True, exist_ok=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for length in LENGTHS:
            tables = {name: points(name, length, arguments.quick) for name in arguments.only}
            pd.concat(tables.values()).to_csv(arguments.out / f"{length.split(',')[0]}.csv", index=False)
            found = pd.DataFrame([row(*item) for item in tables.items()]).round(2)
            print(f"\n{length}\n{found.to_string(index=False)}")


if __name__ == "__main__":
    main()

"""scikit-learn's logistic regression and our SGD on the same features and split: Rotten Tomatoes, IMDB reviews.

Run from the root: python scripts/text_baseline.py [FOLDER with IMDB's train.csv and test.csv]
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from unlearn.pipeline.config import register
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run

CONF = Path(__file__).resolve().parents[1] / "conf"


def compare(*overrides: str) -> dict[str, float]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg: Any = compose("config", ["experiment=demo_text", "figures=false", "logger.mode=disabled", *overrides])
    data = prepare(cfg).data
    (train, train_labels), (test, test_labels) = (
        (((part.inputs - part.mean) / part.std).numpy(), part.labels.numpy()) for part in (data.train, data.test)
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = run(cfg, Path(folder, "run"))["accuracy"]["original"]["test"]
    return {
        "training texts": len(train),
        "test texts": len(test),
        "scikit-learn": LogisticRegression(max_iter=5000).fit(train, train_labels).score(test, test_labels),
        "unlearn": ours,
    }


def main() -> None:
    register()
    cases = {"rotten_tomatoes": ["dataset=rotten_tomatoes"]}
    if len(sys.argv) > 1:
        cases["imdb"] = ["dataset=imdb", f"dataset.root={sys.argv[1]}"]
    results = {name: compare(*overrides) for name, overrides in cases.items()}
    for name, result in results.items():
        Console().print(name, result)


if __name__ == "__main__":
    main()

"""scikit-learn's logistic regression and our SGD on the same features and split: Rotten Tomatoes, IMDB reviews.

Run from the root: python scripts/text_baseline.py [FOLDER with IMDB's train.csv and test.csv]
"""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from sklearn.linear_model import LogisticRegression

from unlearn.pipeline.config import composed
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run

QUIET = ("figures=false", "logger.mode=disabled", "device=cpu")  # scikit-learn wants the features on the CPU


def compare(*overrides: str) -> dict[str, float]:
    cfg = composed("experiment=demo_text", *QUIET, *overrides)
    data = prepare(cfg).data
    labels, test_labels = data.train.labels.numpy(), data.test.labels.numpy()
    scores = {}
    for name, mean, std in (("as stored", 0, 1), ("standardised", data.train.mean, data.train.std)):
        train, test = (((part.inputs - mean) / std).numpy() for part in (data.train, data.test))
        scores[name] = LogisticRegression(max_iter=5000).fit(train, labels).score(test, test_labels)
    with tempfile.TemporaryDirectory() as folder:
        ours = run(cfg, Path(folder, "run"))["accuracy"]["original"]["test"]
    return {
        "training texts": len(labels),
        "test texts": len(test_labels),
        **{f"scikit-learn, features {name}": score for name, score in scores.items()},
        "unlearn, features standardised": ours,
    }


def main() -> None:
    cases = {"rotten_tomatoes": ["dataset=rotten_tomatoes"]}
    if len(sys.argv) > 1:
        cases["imdb"] = ["dataset=imdb", f"dataset.root={sys.argv[1]}"]
    results = {name: compare(*overrides) for name, overrides in cases.items()}
    for name, result in results.items():
        Console().print(name, result)


if __name__ == "__main__":
    main()

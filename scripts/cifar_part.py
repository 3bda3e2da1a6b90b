"""`python scripts/cifar_part.py SOURCE TARGET [--images N]`: the first N images of each file of CIFAR-10.

SOURCE and TARGET hold `cifar-10-batches-py`. With the default, 1,000, the part has 5,000 training and 1,000 test
images: those that the figures of the docs were measured on. Its checksums are no longer the published ones, so runs
on it need `dataset.check_integrity=false`.
"""

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from unlearn.data import safe_pickle
from unlearn.values.errors import UserError, at_least

FOLDER = "cifar-10-batches-py"
FILES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def cut(source: Path, target: Path, images: int) -> None:
    """Write the part.

    Raises:
        UserError: a file is missing or is none of CIFAR-10's, or the target is there already.
    """
    at_least("--images", images, 1)
    if (target / FOLDER).exists():
        raise UserError(f"{target / FOLDER}: is there already")
    found = {name: _read(source / FOLDER / name) for name in (*FILES, "batches.meta")}
    for name in FILES:
        if not {"data", "labels"} <= found[name].keys():
            raise UserError(f"{source / FOLDER / name}: is no file of CIFAR-10")
        found[name] = {"data": np.array(found[name]["data"][:images]), "labels": found[name]["labels"][:images]}
    (target / FOLDER).mkdir(parents=True)
    for name, content in found.items():
        (target / FOLDER / name).write_bytes(pickle.dumps(content, protocol=4))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = safe_pickle.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no file of CIFAR-10")
    return content


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    try:
        cut(given.source, given.target, given.images)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

"""The part of CIFAR-10 that the docs' figures were measured on."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from unlearn.data.cifar import Cifar

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cifar_part.py"
FOLDER = "cifar-10-batches-py"


def call(*given):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, given)], capture_output=True, text=True)


def test_the_first_images_of_each_file_in_the_layout_that_is_read(tmp_path):
    whole = tmp_path / "whole" / FOLDER
    whole.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        entry = {"data": generator.integers(0, 256, (7, 3072), dtype=np.uint8), "labels": list(range(7))}
        (whole / name).write_bytes(pickle.dumps(entry))
    (whole / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(k) for k in range(10)]}))
    done = call(tmp_path / "whole", tmp_path / "part", "--images", 3)
    assert done.returncode == 0, done.stderr
    settings = {"check_integrity": False, "train_size": None, "augmentation": "none", "download": False}
    sets = [Cifar("cifar10", str(tmp_path / root), **settings).load(0) for root in ("whole", "part")]
    rows = [7 * file + k for file in range(5) for k in range(3)]
    assert torch.equal(sets[1].train.inputs, sets[0].train.inputs[rows])
    assert torch.equal(sets[1].train.labels, sets[0].train.labels[rows])
    assert torch.equal(sets[1].test.inputs, sets[0].test.inputs[:3])
    again = call(tmp_path / "whole", tmp_path / "part")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


def test_what_is_no_cifar_is_one_line_and_writes_nothing(tmp_path):
    done = call(tmp_path, tmp_path / "part")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "part").exists()

"""Out of memory on a device is one line."""

import pytest
import torch

from unlearn.pipeline import stages
from unlearn.pipeline.memory import explained
from unlearn.pipeline.run import run
from unlearn.values.errors import UserError


def test_it_is_explained_with_the_device_and_what_to_do():
    message = r"^device=cuda:1: out of memory \(Tried to .*\); .*training\.batch_size"
    with pytest.raises(UserError, match=message), explained(torch.device("cuda:1")):
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB\nand more")


def test_a_run_tells_it(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(stages, "pair", full)
    with pytest.raises(UserError, match="device=cpu: out of memory"):
        run(tiny(), tmp_path)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="something else"), explained(torch.device("cpu")):
        raise RuntimeError("something else")


def test_what_is_put_on_a_full_device_before_the_first_step_is_explained(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("unlearn.pipeline.run.prepare", full)
    with pytest.raises(UserError, match="device=cpu: out of memory"):
        run(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()

import json
import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.rows import row
from unlearn.records.folder import RunFolder, taken
from unlearn.values.errors import UserError
from unlearn.values.flat import Layout
from unlearn.values.measurement import COLUMNS, Measurement


def measured(step: int, v: float | None = 0.1, loss: float = 2.3) -> Measurement:
    return row(step=step, loss=loss, sigma=None, verification_error=v)


def test_rows_read_back_as_the_same_numbers(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "run", {})
    awkward = [0.1 + 0.2, 1e-300, 1 / 3, 5.0]
    for place, v in enumerate(awkward):
        folder.put(place, measured(place, v))
    table = pd.read_csv(folder.path / "steps.csv")
    assert list(table.columns) == [column.name for column in COLUMNS]
    assert table["verification_error"].tolist() == awkward
    assert table["sigma"].isna().all()


def test_a_row_is_on_disk_at_once_and_the_text_is_fixed(tmp_path):
    folder = RunFolder.create(tmp_path, {})
    folder.put(0, measured(1))
    folder.put(1, measured(2, v=None))
    header, *rows = (tmp_path / "steps.csv").read_bytes().decode().split("\n")
    assert header.startswith("step,epoch,lr,")
    rest = "0.5,0.6,0.7,0.8,0.12,0.31,0.02,5,growth+batchnorm,0.9,0.01"
    assert rows == [f"1,0,0.1,1,2.3,,0.004,9,0.2,0.3,0.1,{rest}", f"2,0,0.1,1,2.3,,0.004,9,0.2,0.3,,{rest}", ""]


def reopened(path):
    """As the same run, started again, opens it."""
    (path / "config.yaml").write_text("{}\n")
    return RunFolder.create(path, {})


def test_rows_that_stand_there_are_left_and_others_go_with_all_that_follow(tmp_path, caplog):
    path = tmp_path / "steps.csv"
    folder = RunFolder.create(tmp_path, {})
    for place in range(3):
        folder.put(place, measured(place + 1))
    whole = path.read_bytes()
    again = reopened(tmp_path)
    for place, step in enumerate((1, 2)):
        again.put(place, measured(step))
    assert path.read_bytes() == whole
    assert not caplog.messages
    again.put(2, measured(3, v=7.0))  # the code has changed in between
    assert path.read_bytes().splitlines()[:3] == whole.splitlines()[:3]
    assert pd.read_csv(path).verification_error.tolist() == [0.1, 0.1, 7.0]
    assert "from row 3 on" in caplog.text
    again.cut(3)
    assert len(pd.read_csv(path)) == 3
    again.cut(1)
    assert path.read_bytes().splitlines() == whole.splitlines()[:2]


def test_rows_under_another_header_are_none(tmp_path, caplog):
    path = tmp_path / "steps.csv"
    path.write_text("step,epoch\n1,0\n2,0\n")
    reopened(tmp_path).put(0, measured(1))
    assert pd.read_csv(path).step.tolist() == [1]
    assert "from row 1 on" in caplog.text


def test_one_process_at_a_time_is_in_a_run_folder_and_leaves_no_lock(tmp_path):
    path = tmp_path / "run"
    with taken(path):
        with pytest.raises(UserError, match="another process is at this run"), taken(path):
            pass
        with pytest.raises(UserError, match="another process is at this run"), taken(path):
            pass  # who was refused has not freed it
    assert not list(path.iterdir())
    with taken(path):
        pass


def test_a_diverged_loss_reads_back(tmp_path):
    folder = RunFolder.create(tmp_path, {})
    folder.put(0, measured(1, loss=math.inf))
    folder.put(1, measured(2, loss=math.nan))
    assert pd.read_csv(tmp_path / "steps.csv")["loss"].tolist() == pytest.approx([math.inf, math.nan], nan_ok=True)


def test_json_has_no_nan_and_keeps_the_order(tmp_path):
    path = RunFolder.create(tmp_path, {}).write_json(
        "summary", {"z": 1 / 3, "a": {"x": math.nan, "y": [math.inf, 2, "é", None, True]}, "t": (1, -math.inf)}
    )
    assert path == tmp_path / "summary.json"
    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read == {"z": 1 / 3, "a": {"x": None, "y": [None, 2, "é", None, True]}, "t": [1, None]}
    assert list(read) == ["z", "a", "t"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, {})
    folder.write_json("summary", {"a": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match=r"summary\.json: cannot be written \(No space left on device\)"):
        folder.write_json("summary", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1}


def test_config_is_written_as_given(tmp_path):
    assert RunFolder.create(tmp_path, {}).write_config("seed: 0\n").read_text() == "seed: 0\n"
    assert (tmp_path / "config.yaml").exists()


def test_views_of_one_vector_are_saved_apart(tmp_path):
    layout = Layout.of(torch.nn.Linear(3, 2))
    vector = torch.arange(8.0)
    tensors = {**layout.views(vector), "transposed": torch.arange(6).reshape(2, 3).T}
    path = RunFolder.create(tmp_path, {}).save_weights("original", tensors)
    assert path == tmp_path / "weights" / "original.safetensors"
    read = load_file(path)
    assert torch.equal(layout.flatten(read), vector)
    assert torch.equal(read["transposed"], tensors["transposed"])


@pytest.mark.parametrize("mark", ["summary.json", "steps.csv", "provenance.json"])
def test_a_folder_with_a_run_is_refused(tmp_path, mark):
    (tmp_path / mark).write_text("")
    with pytest.raises(UserError, match=r"holds another run already \(its config.yaml cannot be read\)"):
        RunFolder.create(tmp_path, {})


def test_a_folder_with_other_files_is_taken(tmp_path):
    (tmp_path / ".hydra").mkdir()
    assert RunFolder.create(tmp_path, {}).path == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [".hydra"]


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(.*\); choose another folder") as caught:
        RunFolder.create(tmp_path / path, {})
    assert "\n" not in str(caught.value)

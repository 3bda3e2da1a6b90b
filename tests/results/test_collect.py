import json
import os

import numpy as np
import pandas as pd
import pytest

from unlearn.results.__main__ import main
from unlearn.results.collect import collect, read, save
from unlearn.values.errors import UserError


def test_a_row_a_run_with_what_varied_and_every_summary_value(point, tmp_path):
    point("10", v=0.1, seed=1, gamma=0.5)
    point("9", v=0.2, seed=0, gamma=1)
    found = collect(tmp_path)
    assert found.varied == ("penalty.gamma", "seed")
    assert found.shared["model.widths"] == "[8, 4]"
    table = found.table
    assert list(table.columns[:5]) == ["folder", "status", "error", "penalty.gamma", "seed"]
    assert table.folder.tolist() == ["9", "10"]
    assert table.verification_error.tolist() == [0.2, 0.1]
    assert table["accuracy.unlearned.test"].tolist() == [0.7, 0.7]
    assert "accuracy.unlearned.forget" in table
    assert table["penalty.gamma"].dtype == np.float64
    assert table.seed.tolist() == [0, 1]
    assert table.step.dtype == "Int64"


def test_every_state_has_its_row_and_its_reason(point, tmp_path):
    point("a")
    point("b", status="diverged", seed=1)
    point("c", v=None, seed=2)
    point("d", v=None, seed=3, failed="no memory\nleft")
    point("e", status="diverged", seed=4, failed="the engine's words")
    point("f", seed=5, failed="the figures broke")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "failed.json").write_text('{"error": "forget.position=99: no such batch"}')
    (point("h", seed=7) / "summary.json").write_text('{"status": "compl')
    (point("i", seed=8) / "config.yaml").write_text("")
    (point("j", seed=9) / "summary.json").write_text('{"status": "fine"}')
    table = collect(tmp_path).table.set_index("folder")
    assert table.status.to_dict() == {
        "a": "completed", "b": "diverged", "c": "unfinished", "d": "failed", "e": "diverged", "f": "failed",
        "g": "failed", "h": "failed", "i": "failed", "j": "failed",
    }  # fmt: skip
    assert table.error["b"] == table.error["e"] == "the loss is not finite"
    assert table.error["d"] == "no memory left"
    assert table.error["g"] == "forget.position=99: no such batch"
    assert table.error["h"].startswith("summary.json: cannot be read (")
    assert table.error["i"] == "config.yaml: cannot be read (holds no mapping)"
    assert table.error["j"] == "summary.json: status 'fine' is none of completed, diverged, failed, unfinished"
    assert table.error[["a", "c"]].isna().all()


def test_a_run_that_is_drawing_is_unfinished(point, tmp_path):
    folder = point("seed=0")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "status": "drawing"}))
    run = read(folder)
    assert (run.status, run.error, run.summary) == ("unfinished", None, {})


def test_the_files_give_the_table_back(point, tmp_path):
    point("0", seed=0, method="finetune", settings={"epochs": 3, "anneal": True, "layers": "all"})
    point("1", seed=1, method="krylov", settings={"layers": 2})
    point("2", v=None, seed=2)
    table = collect(tmp_path).table
    csv, parquet = (read(path) for read, path in zip((pd.read_csv, pd.read_parquet), save_(tmp_path), strict=True))
    pd.testing.assert_frame_equal(parquet, table)
    assert list(csv.columns) == list(table.columns)
    assert table["method.epochs"].tolist() == [3, pd.NA, pd.NA]
    assert table["method.layers"].tolist()[:2] == ["all", "2"]  # words and numbers mixed are words
    assert csv["verification_error"].tolist()[:2] == [0.25, 0.25]
    assert csv["seed"].dtype == np.int64


def save_(folder):
    return save(collect(folder), folder)


def test_what_lies_inside_a_run_is_no_run(point, tmp_path):
    inner = point("deep/er/0") / "wandb/run-1/files"
    inner.mkdir(parents=True)
    (inner / "config.yaml").write_text("wandb_version: 1")
    assert collect(tmp_path).table.folder.tolist() == ["deep/er/0"]
    assert collect(tmp_path / "deep/er/0").table.folder.tolist() == ["."]


def test_nothing_half_written_stays(point, tmp_path, monkeypatch):
    point("0")
    found = collect(tmp_path)
    save(found, tmp_path)
    before = (tmp_path / "results.parquet").read_bytes()

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(UserError, match=r"results.parquet: cannot be written \(No space left on device\)"):
        save(found, tmp_path)
    assert (tmp_path / "results.parquet").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["0", "results.csv", "results.parquet"]


@pytest.mark.parametrize(("name", "message"), [("missing", "is not a folder"), ("empty", "holds no run")])
def test_bad_input_is_one_line(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {tmp_path / name}: {message}")
    assert err.count("\n") == 1
    assert not list((tmp_path / "empty").iterdir())


def test_the_command_prints_everything_and_saves(point, tmp_path, capsys):
    for seed, v in enumerate((0.1, 0.2, 0.3)):
        point(f"{seed}", v=v, seed=seed)
    point("3", v=9.0, seed=3, status="diverged")
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0.2 ± 0.25" in out  # t(0.975, 2) 0.1 / sqrt(3) = 0.2484
    assert "4 runs: 3 completed, 1 diverged" in out
    assert str(tmp_path / "results.parquet") in out

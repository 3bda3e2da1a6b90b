"""Sweeps, as the command line runs them."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from unlearn.pipeline.config import CONF
from unlearn.pipeline.sweep import Point, SweepEnded, alone, conduct, name_of, points, state_of
from unlearn.pipeline.sweep_start import base_of, covering, note, noted
from unlearn.values.errors import UserError

NOTHING = OmegaConf.create({})
ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "dataset.train_size=96", "pretraining.epochs=1", "training.epochs=1", "measure.hessian_samples=0", "model=linear",
    "logger.mode=disabled", "figures=false", "threads=1", "device=cpu",
)  # fmt: skip


def sweep(cwd, *words):
    command = [sys.executable, "-m", "unlearn", *words, *TINY, "hydra.sweep.dir=out"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**_environment(), "COLUMNS": "200"})


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), "."])}


def folders(cwd):
    return sorted(path.name for path in (cwd / "out").iterdir() if path.is_dir() and not path.name.startswith("."))


def test_points_are_named_done_skipped_and_retried(tmp_path):
    """One sweep from its plan to its end, with a point that fails and one that diverges."""
    words = ("--multirun", "seed=0,1", "forget=points", "forget.count=10,96")
    refused = sweep(tmp_path, "--plan", *words[1:])
    assert (refused.returncode, refused.stderr.count("error: forget.count=96")) == (2, 1)
    planned = sweep(tmp_path, "--plan", "seed=0,1", "forget=points")
    assert planned.returncode == 0
    assert not (tmp_path / "out").exists()
    assert "points" in planned.stdout

    first = sweep(tmp_path, *words)
    assert first.returncode == 1
    assert folders(tmp_path) == [f"forget.count={n},seed={s}" for n in (10, 96) for s in (0, 1)]
    failed = json.loads((tmp_path / "out" / "forget.count=96,seed=0" / "failed.json").read_text())
    assert failed["error"] == "forget.count=96: must lie between 1 and 95, so that some points stay"
    assert f"failed: forget.count=96,seed=1: {failed['error']}" in first.stdout
    assert "completed" in first.stdout

    steps = tmp_path / "out" / "forget.count=10,seed=0" / "steps.csv"
    before = steps.stat().st_mtime_ns
    second = sweep(tmp_path, "--multirun", "seed=0,1", "forget=points", "forget.count=10,11")
    assert second.returncode == 0
    assert "4 points, 2 done already" in second.stderr + second.stdout
    assert steps.stat().st_mtime_ns == before

    other = sweep(tmp_path, *words[:-1], "forget.count=10,11", "optimizer.lr=1e30")
    assert other.returncode == 2
    assert "optimizer.lr is 0.01 there" in other.stderr
    assert other.stderr.count("\n") == 1
    assert steps.stat().st_mtime_ns == before
    assert state_of(steps.parent) == "completed"
    # also where no point of the grid is there yet under these settings: one folder may hold several sweeps
    apart = sweep(tmp_path, "--multirun", "seed=2", "forget=points", "forget.count=10,11", "optimizer.lr=0.02")
    assert apart.returncode == 0
    mixed = sweep(tmp_path, "--multirun", "seed=0,2", "forget=points", "forget.count=10,11", "optimizer.lr=0.02")
    assert (mixed.returncode, mixed.stderr.count("\n")) == (2, 1)
    planned = sweep(tmp_path, "--plan", "seed=0,2", "forget=points", "forget.count=10,11", "optimizer.lr=0.02")
    assert (planned.returncode, planned.stderr) == (2, mixed.stderr)
    again = sweep(tmp_path, "--multirun", "seed=0,1", "forget=points", "forget.count=10,11")
    assert again.returncode == 0
    assert "4 points, 4 done already" in again.stdout + again.stderr
    assert steps.stat().st_mtime_ns == before
    # nor is anything done again by another launcher
    others = sweep(tmp_path, "--multirun", "seed=0,1", "forget=points", "forget.count=10,11", "hydra/launcher=basic")
    assert "4 points, 4 done already" in others.stdout + others.stderr


def test_a_diverged_point_is_told_by_exit_code_3(tmp_path):
    done = sweep(tmp_path, "--multirun", "optimizer.lr=0.01,1e38", "pretraining.epochs=0")
    assert done.returncode == 3
    assert state_of(tmp_path / "out" / "optimizer.lr=1e+38") == "diverged"
    assert state_of(tmp_path / "out" / "optimizer.lr=0.01") == "completed"


def test_a_typo_is_told_before_anything_runs(tmp_path):
    done = sweep(tmp_path, "--multirun", "seed=0,1", "penalty=sd,nosuch")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "out").exists() or folders(tmp_path) == []


def test_a_wrong_value_is_told_before_anything_runs(tmp_path):
    wrong = (
        "hydra.sweeper.max_batch_size=-1",
        "penalty=sd penalty.gamma=1,-1",
        "schedule.order=foo",
        "arithmetic=fp16",
        "measure.warm.mix=1,2",
        "method.name=single_gradient,krylov",
    )
    for words in wrong:
        done = sweep(tmp_path, "--multirun", "seed=0,1", *words.split())
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words.split()[-1].split("=")[0] in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_override_is_among_the_points_that_are_looked_at():
    grid = [[f"seed={seed}", f"penalty.gamma={gamma}", "model=mlp"] for seed in range(3) for gamma in range(4)]
    every = points(grid, {"seed", "penalty.gamma"})
    chosen = covering(every)
    assert {text for point in chosen for text in point.overrides[:-1]} == {text for row in grid for text in row}
    assert len(chosen) == 4 + 2


def test_two_at_once_compute_no_point_twice(tmp_path):
    words = [sys.executable, "-m", "unlearn", "--multirun", "seed=0,1,2,3,4,5", *TINY, "hydra.sweep.dir=out"]
    both = [subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env=_environment()) for _ in range(2)]  # fmt: skip
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for seed in range(6):
        assert sum(text.count(f"seed={seed}: M") for text in told) == 1
        assert len(pd.read_csv(tmp_path / "out" / f"seed={seed}" / "steps.csv").step.unique()) == 1


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=1", "penalty.gamma=5"], "penalty.gamma=5,seed=1"),
        (["sweep=gammas", "hydra.launcher.n_jobs=2", "seed=1"], "seed=1"),
        (["sweep=gammas"], "run"),
    ],
)
def test_names(overrides, name):
    assert name_of(overrides) == name


def test_names_are_safe_and_apart():
    strange = ["dataset.root=/a/b c", "dataset.root=/a/b_c", "forget.indices=[1,2]", "forget.indices=[1_2]"]
    strange.append("x=" + "y" * 400)
    names = [name_of([text]) for text in strange]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 255 for name in names)
    (point,) = points([["seed=1", "model=mlp"]], {"seed"})
    assert point.overrides[-1] == "hydra.sweep.subdir='seed=1'"


def test_many_that_start_the_same_sweep_at_once_agree(tmp_path):
    """A file that all of them write: none may find another's half of it."""
    base = base_of(["model=mlp"], [CONF], NOTHING)

    def start(number):
        note(tmp_path, base, [Point(f"seed={number}", [])])
        return json.loads((tmp_path / "sweep.json").read_bytes())["base"]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == base for found in pool.map(start, range(80)))
    assert noted(tmp_path, base) == {f"seed={number}" for number in range(80)}
    assert noted(tmp_path, base_of(["model=cnn"], [CONF], NOTHING)) == set()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_a_changed_file_of_the_users_own_is_another_sweep(tmp_path):
    preset = tmp_path / "my/experiment/mine.yaml"
    preset.parent.mkdir(parents=True)
    words = ("--config-dir", str(tmp_path / "my"), "--multirun", "experiment=mine", "seed=0,1")
    for lr, code, told in ((0.01, 0, "0 done already"), (0.01, 0, "2 done already"), (0.02, 2, "optimizer.lr is 0.01")):
        preset.write_text(f"# @package _global_\noptimizer: {{lr: {lr}}}\n")
        done = sweep(tmp_path, *words)
        assert done.returncode == code, done.stderr
        assert told in done.stderr + done.stdout


def test_a_point_that_fails_again_has_its_newest_config(tmp_path):
    for lr in (0.1, 0.2):
        done = sweep(tmp_path, "--multirun", "seed=0,1", "forget=points", "forget.count=96", f"optimizer.lr={lr}")
        assert done.returncode == 1
        assert OmegaConf.load(tmp_path / "out/seed=0/config.yaml").optimizer.lr == lr


@pytest.mark.parametrize("where", ["deep", "package", "name"])
def test_what_no_folder_of_configs_shows_is_compared_too(tmp_path, where):
    """A preset three folders deep, one in a package, and a main config of another name."""
    text = "# @package _global_\npretraining: {lr: LR}\n"
    if where == "name":
        preset, text = tmp_path / "my/mine.yaml", (CONF / "config.yaml").read_text().replace("  lr: 0.05", "  lr: LR")
        starts = [("--config-dir", "my", "-m"), ("--config-dir", "my", "--config-name", "mine", "-m")]
    elif where == "deep":
        preset = tmp_path / "my/experiment/a/b/mine.yaml"
        starts = [("--config-dir", "my", "-m", "experiment=a/b/mine")] * 2
    else:
        preset = tmp_path / "own/conf/experiment/mine.yaml"
        starts = [("-m", "hydra.searchpath=[pkg://own.conf]", "experiment=mine")] * 2
    preset.parent.mkdir(parents=True)
    for folder in ("own", "own/conf"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
    for lr, words, code in zip((0.05, 0.06), starts, (0, 2), strict=True):
        if where != "name" or code:
            preset.write_text(text.replace("LR", str(lr)))
        done = sweep(tmp_path, *words, "seed=0,1")
        assert done.returncode == code, done.stderr
    assert "pretraining.lr is 0.05" in done.stderr


def test_a_changed_variable_is_another_sweep(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("seed: ${oc.env:UNLEARN_TEST_SEED}\n")
    found = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("UNLEARN_TEST_SEED", seed)
        found.append(base_of([], [tmp_path], NOTHING))
    assert found[0] == found[1] != found[2]
    (tmp_path / "a.yaml").unlink()
    monkeypatch.setenv("UNLEARN_TEST_SEED", "1")
    before = base_of(["seed=${oc.env:UNLEARN_TEST_SEED}"], [tmp_path], NOTHING)
    monkeypatch.setenv("UNLEARN_TEST_SEED", "2")
    assert base_of(["seed=${oc.env:UNLEARN_TEST_SEED}"], [tmp_path], NOTHING) != before


def test_a_sweep_with_other_settings_does_not_join_one_that_is_at_work(tmp_path):
    every = [Point(name, [name]) for name in "ab"]
    one, other = (base_of([f"method={name}"], [], NOTHING) for name in ("krylov", "amnesiac"))
    note(tmp_path, one, every)
    with alone(tmp_path / "b") as ours:
        assert ours
        note(tmp_path, one, every)  # the same sweep, started twice
        with pytest.raises(UserError, match="another sweep is at work on b"):
            note(tmp_path, other, every)
        assert noted(tmp_path, one) == {"a", "b"}
        note(tmp_path, other, every[:1])
    note(tmp_path, other, every)


def test_a_key_of_the_preset_is_the_users_however_it_is_written(tmp_path):
    done = sweep(tmp_path, "--plan", "sweep=gammas", "++seed=5", "penalty.gamma=0,1")
    assert re.search(r"points +2\b", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("error", [BrokenProcessPool, RuntimeError])
def test_points_that_never_began_are_launched_again_when_a_worker_was_killed(tmp_path, error, capsys):
    """joblib stops all workers with one; which launcher raised what else, nobody knows."""
    every = [Point(name, [name]) for name in "abc"]
    launched = []
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "failed.json").write_text('{"status": "failed", "error": "before"}')

    def launch(overrides, first):
        launched.append([name for (name,) in overrides])
        (tmp_path / overrides[0][0]).mkdir(exist_ok=True)
        if len(launched) == 1:
            raise error
        for (name,) in overrides:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "summary.json").write_text('{"status": "completed"}')
            (tmp_path / name / "failed.json").unlink(missing_ok=True)

    with pytest.raises(SweepEnded):
        conduct(every, every, tmp_path, launch)
    assert launched == [["a", "b", "c"], ["b", "c"]][: 2 if error is BrokenProcessPool else 1]
    assert "unfinished: a" in capsys.readouterr().out


def test_workers_that_are_killed_at_once_are_not_started_for_ever(tmp_path):
    launched = []

    def launch(overrides, first):
        launched.append(overrides)
        raise BrokenProcessPool

    every = [Point(name, [name]) for name in "ab"]
    with pytest.raises(SweepEnded):
        conduct(every, every, tmp_path, launch)
    assert len(launched) == 1

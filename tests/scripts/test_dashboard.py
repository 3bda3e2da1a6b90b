"""Every panel of the dashboard shows what runs log; its spec is built with no server."""

import subprocess
import sys
from pathlib import Path

import pytest

from unlearn.pipeline.run import run

ROOT = Path(__file__).resolve().parents[2]


def dashboard(*arguments, home):
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts/wandb_dashboard.py"), *arguments]
    return subprocess.run(command, cwd=home, env=bare, capture_output=True, text=True)


def test_the_spec_is_whole(tmp_path):
    pytest.importorskip("wandb_workspaces")
    done = dashboard("--check", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "17 panels each" in done.stdout


@pytest.mark.parametrize("place", ["entity", "entity/", "a/b/c"])
def test_a_wrong_place_is_one_line(tmp_path, place):
    done = dashboard("--publish", place, home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: --publish {place}: must be ENTITY/PROJECT\n"


def test_without_an_account_it_says_what_to_do(tmp_path):
    pytest.importorskip("wandb_workspaces")
    done = dashboard("--publish", "a/b", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: nobody is logged in: run `wandb login`, or set WANDB_API_KEY"


def test_the_panels_show_what_a_run_has_in_its_summary(tiny, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from wandb_dashboard import LOGGED, unknown

    assert not unknown()
    summary = run(tiny(), tmp_path / "run")
    for key in LOGGED:
        value = summary
        for part in key.split("/"):
            value = value[part]

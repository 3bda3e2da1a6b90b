import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from unlearn.records.provenance import git_state, provenance

NOTHING = {"commit": None, "dirty": None}


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def no_outer_repository(monkeypatch):
    """Inside a git hook, GIT_DIR and its kind would turn the commands below on this very repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "--no-verify", "-m", "one")
    return package


def test_a_clean_checkout_and_a_changed_one(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "__init__.py").write_text("changed")
    assert git_state(checkout) == {"commit": commit, "dirty": True}


def test_a_package_installed_inside_another_checkout_has_no_commit(checkout):
    (installed := checkout / "site-packages").mkdir()
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == NOTHING


def test_no_checkout_and_no_git(checkout, tmp_path_factory, monkeypatch):
    assert git_state(tmp_path_factory.mktemp("plain")) == NOTHING
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) == NOTHING


def test_the_record_holds_what_it_was_given_and_is_json(monkeypatch, tmp_path):
    home = os.path.expanduser("~")
    monkeypatch.setattr("sys.argv", [f"{home}/bin/unlearn", "seed=3", f"root={home}/data", f"{home}side/x"])
    given = {"device": "cpu", "threads": 2, "seed": 3, "schedule": "ab", "data": "cd", "test": "ef", "weights": None}
    record = provenance(**given, source=tmp_path)
    assert json.loads(json.dumps(record)) == record
    expected = {**given, "git": NOTHING}
    assert {key: record[key] for key in expected} == expected
    assert record["command"] == ["unlearn", "seed=3", "root=~/data", f"{home}side/x"]
    assert record["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert abs(datetime.fromisoformat(record["started"]) - datetime.now(UTC)) < timedelta(minutes=1)

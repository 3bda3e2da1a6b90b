"""W&B may fail in any way: a run loses neither its results nor its exit code, and is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from tests.rows import row
from unlearn.log.wandb_sink import WandbSettings, lost, run_id

ROOT = Path(__file__).resolve().parents[2]
# two points in one process, as in a multirun
SCRIPT = """
import logging, os, pathlib, resource, signal, sys
from tests.rows import row
from unlearn.log.wandb_sink import WandbSettings
logging.basicConfig(level=logging.WARNING, format="%(message)s")
folder, fault = pathlib.Path(sys.argv[1]), sys.argv[2]
if fault == "disk full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name in ("0", "1"):
    (folder / name).mkdir()
    with WandbSettings(mode="online" if fault == "no server" else "offline").open(folder / name, {}) as sink:
        for step in range(100):
            sink.log(row(step=step))
            if fault == "crash" and name == "0" and step == 10:
                for children in pathlib.Path("/proc/self/task").glob("*/children"):
                    for pid in children.read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
        sink.summary({"ratio": 0.5})
print("finished")
"""


def after(fault, folder, **env):
    command = [sys.executable, "-c", SCRIPT, str(folder), fault]
    quiet = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "WANDB_SILENT": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, env={**quiet, **env})


def records(folder):
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(written)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [record["history"]["item"]["step"] for record in map(json.loads, lines) if record["type"] == "history"]


def test_a_crash_inside_wandb_costs_neither_this_run_nor_the_next(tmp_path):
    done = after("crash", tmp_path)
    assert (done.returncode, done.stdout) == (0, "finished\n")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("W&B failed (")
    assert records(tmp_path / "1") == list(range(100))


def test_no_server_costs_a_bounded_wait_and_leaves_offline_runs(tmp_path):
    address = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "2"}
    done = after("no server", tmp_path, **address)
    assert (done.returncode, done.stdout) == (0, "finished\n")
    assert done.stderr.count("the run goes on with W&B offline") == 2
    assert records(tmp_path / "0") == records(tmp_path / "1") == list(range(100))


def test_a_full_disk_costs_only_wandbs_records(tmp_path):
    done = after("disk full", tmp_path)
    assert (done.returncode, done.stdout) == (0, "finished\n")
    assert done.stderr.splitlines()[0] == "W&B lost records (file too large); the run's own files are complete"
    assert len(records(tmp_path / "0")) < 100


def test_what_tells_of_a_loss(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "debug-internal.log"
    log.write_text('{"level":"INFO","msg":"stream: started"}\n')
    assert lost(tmp_path) is None
    log.write_text('{"level":"ERROR","msg":"writer: failed to save record: write x.wandb: no space left on device"}\n')
    assert lost(tmp_path) == "no space left on device"

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert lost(tmp_path) == "No space left on device"


@pytest.fixture
def started(monkeypatch):
    """What each `wandb.init` was asked for."""
    asked = []

    class Settings:
        sync_dir = "."

    class Run:
        settings = Settings()

        def define_metric(self, *args, **kwargs):
            pass

    def init(**kwargs):
        asked.append(kwargs)
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    return asked


def test_every_attempt_at_a_point_has_one_id_and_other_points_have_others(started, tmp_path):
    point, other = tmp_path / "gammas/gamma=1", tmp_path / "gammas/gamma=2"
    WandbSettings().open(point, {})
    WandbSettings().open(point, {})
    WandbSettings().open(other, {})
    WandbSettings(group="mine").open(point, {})
    ids = [asked["id"] for asked in started]
    assert ids[0] == ids[1] == run_id(Path("/elsewhere/gammas/gamma=1"))
    assert len(set(ids)) == 3
    assert {asked["resume"] for asked in started} == {None}


def test_a_server_that_stalls_at_the_end_is_a_failure_that_is_told(started, tmp_path):
    WandbSettings().open(tmp_path, {})
    assert started[0]["settings"].finish_timeout_raises


def test_wandbs_agent_names_its_runs_itself(started, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    WandbSettings().open(tmp_path, {})
    assert started[0]["id"] is None


def test_a_long_name_is_cut_to_what_wandb_takes(started, tmp_path):
    WandbSettings().open(tmp_path, {}, name="x" * 300)
    assert started[0]["name"] == "x" * 128


def test_nobody_is_asked_for_a_key(started, tmp_path, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(wandb, "login", lambda **given: asked.append(given))
    WandbSettings(mode="online").open(tmp_path, {})
    assert [given["prompt"] for given in asked] == [False]
    assert [each["mode"] for each in started] == ["offline"]
    assert "nobody is logged in: run `wandb login`" in caplog.text


def test_a_new_attempt_replaces_what_waits_to_be_synced(tmp_path):
    former = tmp_path / f"wandb/offline-run-20260101_000000-{run_id(tmp_path)}"
    strange = tmp_path / "wandb/offline-run-20260101_000000-other"
    for folder in (former, strange):
        folder.mkdir(parents=True)
    with WandbSettings().open(tmp_path, {}) as sink:
        sink.log(row())
    assert not former.exists()
    assert strange.exists()

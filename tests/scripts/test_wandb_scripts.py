"""What W&B's agent and `make wandb-sync` are told to run does run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tests.offline import of_type, records

ROOT = Path(__file__).resolve().parents[2]
BARE = {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


def test_the_command_of_the_sweeps_agent_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from wandb_dashboard import METHOD  # what the dashboard groups by

    sweep = yaml.safe_load((ROOT / "scripts/wandb_sweep.yaml").read_text())
    chosen = {name: {"value": kind["values"][-1]} for name, kind in sweep["parameters"].items()}
    chosen |= {"debug": {"value": "smoke"}, "dataset.train_size": {"value": 64}, "hydra.run.dir": {"value": "run"}}
    macros = {
        "${env}": ["/usr/bin/env"],
        "${args_no_hyphens}": create_sweep_command_args({"args": chosen})["args_no_hyphens"],
    }
    command = [word for part in create_sweep_command(sweep["command"]) for word in macros.get(part, [part])]
    # as the agent tells W&B what it varies, which takes the place of what the run says of the same key
    (tmp_path / "varied.yaml").write_text(yaml.safe_dump({"wandb_version": 1, **chosen}))
    agent = {"WANDB_SWEEP_ID": "of_test", "WANDB_SWEEP_PARAM_PATH": "varied.yaml"}
    done = subprocess.run(
        [word.replace("logger.mode=online", "logger.mode=offline") for word in command],
        cwd=tmp_path, env={**BARE, **agent, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert sweep["metric"]["name"] in summary
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["method"]["name"], config["penalty"]["gamma"], config["seed"]) == ("krylov", 10, 2)
    (run,) = of_type(records(tmp_path / "run"), "run")
    assert run["run_group"] == "of_test"
    logged = run["config"]["update"]
    assert logged["method"] == "krylov"  # no longer the settings of the method
    group, leaf = METHOD.split(".")
    assert logged[group][leaf] == "krylov"


@pytest.mark.parametrize(
    ("runs", "code", "message"), [(0, 0, "no offline W&B run waits"), (2, 2, "error: 2 offline runs under")]
)
def test_sync_says_what_to_do(tmp_path, runs, code, message):
    for place in range(3):
        folder = tmp_path / f"outputs/sweeps/a/{place}/wandb/offline-run-2026-{place}"
        folder.mkdir(parents=True)
        (folder / "run-x.wandb").touch()
        if place >= runs or place == 0:
            (folder / "run-x.wandb.synced").touch()
        if place < runs:
            os.utime(folder / "run-x.wandb", (4e9, 4e9))  # the first has grown since it was uploaded
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/wandb_sync.py"), "outputs"],
        cwd=tmp_path, env={**BARE, "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code
    assert message in done.stdout + done.stderr

import logging
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import wandb
import yaml
from PIL import Image

from tests.offline import of_type, records
from tests.rows import row
from unlearn.log.sink import Sink
from unlearn.log.wandb_sink import WandbSettings, WandbSink
from unlearn.values.errors import UserError
from unlearn.values.measurement import COLUMNS

FULL = row()


def test_two_offline_jobs_in_one_process_each_keep_all_they_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    image = tmp_path / "errors.png"
    Image.new("RGB", (2, 2)).save(image)
    settings = WandbSettings(tags=("r1", "small"), group="chosen")
    for job, first in ((tmp_path / "0", 3), (tmp_path / "1", 4)):
        job.mkdir()
        config = {"seed": first, "forget": {"index": None}}
        with settings.open(job, config, group="default", job_type="train", name=job.name) as sink:
            assert isinstance(sink, WandbSink)
            sink.log(replace(FULL, step=first))
            sink.log(replace(FULL, step=first + 1, sigma=None))
            sink.figure("errors", image)
            ended = {"ratio": 0.8, "verification_error": None}  # M'' diverged at the last step
            sink.summary({**ended, "accuracy": {"original": {"test": 0.5, "forget": None}}})

    found = records(tmp_path / "1")
    (run,) = of_type(found, "run")
    assert (run["project"], run["run_group"], run["job_type"]) == ("unlearn", "chosen", "train")
    assert (run["display_name"], run["tags"]) == ("1", ["r1", "small"])
    assert run["config"]["update"]["seed"] == 4

    metrics = {metric["name"]: metric.get("step_metric") for metric in of_type(found, "metric")}
    assert metrics == {column.name: None if column.name == "step" else "step" for column in COLUMNS}

    rows = [row["item"] for row in of_type(found, "history")]
    plain = [{key: value for key, value in row.items() if key[0] != "_"} for row in rows]
    assert plain[0] == asdict(replace(FULL, step=4))
    assert plain[1] == {key: value for key, value in asdict(replace(FULL, step=5)).items() if key != "sigma"}
    assert plain[2]["figures/errors._type"] == "image-file"

    summary = {key: value for part in of_type(found, "summary") for key, value in part["update"].items()}
    assert (summary["ratio"], summary["accuracy/original/test"]) == (0.8, 0.5)
    assert "accuracy/original/forget" not in summary
    assert summary["verification_error"] is None  # not that of the row before
    assert of_type(found, "exit")[0].get("exit_code", 0) == 0
    assert of_type(records(tmp_path / "0"), "history")[0]["item"]["step"] == 3


def test_an_exception_finishes_with_exit_code_1(tmp_path):
    def run():
        with WandbSettings().open(tmp_path, {}) as sink:
            sink.log(FULL)
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        run()
    assert of_type(records(tmp_path), "exit")[0]["exit_code"] == 1


def test_disabled_never_imports_wandb(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from unlearn.log.wandb_sink import WandbSettings\n"
        f"with WandbSettings(mode='disabled').open(pathlib.Path({str(tmp_path)!r}), {{}}) as sink:\n"
        "    sink.summary({'a': 1})\n"
        "sys.stdout.write(str('wandb' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False"
    assert list(tmp_path.iterdir()) == []


class NewError(Exception):
    """Stands for the connection errors of W&B that derive from Exception alone."""


NewError.__module__ = "wandb.sdk.mailbox.mailbox"


class BrokenRun:
    def __init__(self, error):
        self.error, self.calls = error, []

    def define_metric(self, *args, **kwargs):
        pass

    def log(self, values):
        self.calls.append("log")
        raise self.error

    def finish(self, exit_code):
        self.calls.append(f"finish {exit_code}")
        raise self.error


@pytest.mark.parametrize(
    "error",
    [wandb.errors.CommError("lost\nthe line"), ConnectionResetError("lost the line"), NewError("lost the line")],
)
def test_a_failure_inside_wandb_is_told_once_and_costs_nothing(caplog, error):
    run = BrokenRun(error)
    with caplog.at_level(logging.WARNING), WandbSink(run) as sink:
        sink.log(FULL)
        sink.log(FULL)
        sink.figure("errors", "missing.png")
    sink.finish()
    assert run.calls == ["log", "finish 0"]
    (record,) = caplog.records
    assert record.getMessage() == f"W&B failed ({type(error).__name__}: lost the line); the run goes on without it"


def test_a_fault_of_our_own_is_not_hidden():
    with pytest.raises(TypeError, match="ours"):
        WandbSink(BrokenRun(TypeError("ours"))).log(FULL)


def test_a_failed_start_costs_nothing(tmp_path, monkeypatch, caplog):
    def no_account(**kwargs):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", no_account)
    sink = WandbSettings(mode="online").open(tmp_path, {})
    assert type(sink) is Sink
    assert "No API key configured." in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "on"}, "logger.mode=on: choose one of online, offline, disabled"),
        ({"project": "a/b"}, "logger.project=a/b: must be"),
        ({"project": None}, "logger.project=None: must be a text"),
        ({"project": ""}, "logger.project=: must be"),
        ({"tags": "word"}, "logger.tags=word: must be a list"),
        ({"tags": ["x" * 65]}, "logger.tags="),
    ],
)
def test_wrong_settings_are_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        WandbSettings(**settings)
    assert str(caught.value).startswith(message)


def test_the_yaml_states_every_setting(pytestconfig):
    stated = yaml.safe_load((pytestconfig.rootpath / "conf" / "logger" / "wandb.yaml").read_text())
    assert stated.pop("_target_") == "unlearn.log.wandb_sink.WandbSettings"
    assert replace(WandbSettings(**stated), tags=()) == WandbSettings()
    assert list(stated) == list(asdict(WandbSettings()))

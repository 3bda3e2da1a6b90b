"""The command line: one line and exit code 2 for bad input, and quick answers."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from unlearn.__main__ import main
from unlearn.pipeline.interrupt import Interrupted
from unlearn.records.folder import taken

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["dataset.train_size=64", "debug=smoke", "device=cpu"]


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Call the entrypoint in this process; gives exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["unlearn", *arguments])
        monkeypatch.chdir(tmp_path)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["foo=1"], "foo: there is no such setting; there are conventions, dataset"),
        (["+foo=1"], "foo: there is no such setting; there are conventions, dataset"),
        (["+training.foo=1"], "training.foo: there is no such setting; there are epochs"),
        (["model=foo"], "Could not find 'model/foo' Available options in 'model': bert_finetune"),
        (["training.epochs=x"], "Value 'x' of type 'str' could not be converted to Integer"),
        (["measure.evry=5"], "measure.evry: there is no such setting; there are every, hessian_samples"),
        (
            ["curvature=dense", "curvature.tolerance=1"],
            "curvature.tolerance: there is no such setting with these choices",
        ),
        (["penalty=sd", "penalty.gamma=inf", *QUICK], "penalty.gamma=inf: must be finite"),
        (["forget=file"], "forget.path"),
        (["forget.position=99", *QUICK], "forget.position=99"),
        (["penalty.gamma=-1", *QUICK], "penalty.gamma=-1"),
        (["dataset=cifar10", "dataset.download=false"], "cifar-10-python.tar.gz"),
        (["seed"], "missing EQUAL"),
        (
            ["method.name=krylov", *QUICK],
            "method.name=krylov: is a label, and changes nothing else; choose with method=",
        ),
        (["optimizer.name='momentum'", *QUICK], "choose with optimizer=momentum"),
        (["~pretraining", *QUICK], "pretraining: must be set"),
        (["~seed", *QUICK], "seed: must be set"),
        (["~measure.every", *QUICK], "~measure.every Measure (DictConfig) does not support deletion"),
        (["-m", "seed=0,1", "--cfg", "job"], "--cfg: shows the config of one run; leave out -m"),
        (["--plan", "--info=defaults"], "--info=defaults: shows the config of one run; leave out --plan"),
        (["--resolve"], "--resolve: goes with --cfg"),
    ],
)
def test_bad_input(command, tmp_path, arguments, message):
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.rglob("*.*"))
    assert not list(tmp_path.glob("outputs/runs/*"))


@pytest.mark.parametrize("text", ["penalty: {gama: 1}", "seeed: 1", "training: {epochs: many}"])
def test_a_typo_in_a_yaml_is_no_better(command, tmp_path, text):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    code, _, err = command("--config-dir", str(tmp_path / "conf"), "experiment=mine", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert any(word in err for word in ("gama", "seeed", "many"))
    assert not (tmp_path / "outputs/runs").exists() or not list((tmp_path / "outputs/runs").iterdir())


@pytest.mark.parametrize("text", ["optimizer: {lr: 0.1", "seed: 1\nseed: 2", "seed: [\t"])
def test_a_file_that_is_no_yaml_is_one_line(command, tmp_path, text):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    code, _, err = command("--config-dir", str(tmp_path / "conf"), "experiment=mine", *QUICK)
    assert (code, err.count("\n")) == (2, 1), err
    assert "mine.yaml" in err


def test_a_folder_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command(f"hydra.run.dir={tmp_path}/file/run", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert "file" in err
    code, _, err = command(f"hydra.run.dir={tmp_path}/file", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert f"File exists: '{tmp_path}/file': choose another hydra.run.dir" in err


def test_a_store_that_cannot_be_written_leaves_no_run(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command(*QUICK, "hydra.run.dir=run", "store.enabled=true", f"store.root={tmp_path}/file")
    assert (code, err.count("\n")) == (2, 1)
    assert "store.root" in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_another_process_is_at_is_left_to_it(command, tmp_path):
    with taken(tmp_path / "run"):
        code, _, err = command("hydra.run.dir=run", *QUICK)
        assert (code, err.count("\n")) == (2, 1)
        assert "another process is at this run" in err
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_point_that_another_process_is_at_is_not_failed(command, tmp_path):
    with taken(tmp_path / "sweep/seed=0"):
        code, *_ = command("-m", "hydra.sweep.dir=sweep", "seed=0,1", *QUICK)
    assert code == 1  # the sweep is not done
    assert not (tmp_path / "sweep/seed=0/failed.json").exists()


@pytest.mark.parametrize(
    "words",
    [["method.name=mine"], ["method=krylov", "method.name='krylov'"], ["model.name=cnn"], ["logger.name=wandb"]],
    ids=" ".join,
)
def test_a_label_that_misleads_nobody_is_free(command, tmp_path, words):
    code, _, err = command("hydra.run.dir=run", *QUICK, *words)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [("CONF", ROOT / "nowhere", "no configs beside the package"), ("sys.platform", "win32", "needs Linux or macOS")],
)
def test_where_it_cannot_run_it_says_so(command, monkeypatch, where, value, told):
    monkeypatch.setattr(f"unlearn.__main__.{where}", value)
    code, _, err = command("seed=0")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_a_stopped_run_says_how_to_go_on_where_it_was(command, tmp_path, monkeypatch):
    def stopped(cfg, folder):
        raise Interrupted(128 + 15)

    monkeypatch.setattr("unlearn.pipeline.run.run", stopped)
    code, out, err = command("hydra.run.dir=run", *QUICK)
    assert code == 143
    assert f"with hydra.run.dir={tmp_path / 'run'}" in out + err


def test_an_interrupt_is_one_line(command, tmp_path, monkeypatch):
    def interrupted(cfg, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearn.pipeline.run.run", interrupted)
    code, _, err = command("hydra.run.dir=run", *QUICK)
    assert (code, err.count("\n")) == (130, 1)
    assert "the same command goes on" in err


def test_a_run_ends_with_a_table(command, tmp_path):
    code, out, err = command("hydra.run.dir=run", *QUICK)
    assert (code, err) == (0, "")  # no progress bar where there is no terminal
    for word in ("verification error", "no-op", "unrolled", "sigma", "M''", "seconds", "saved in"):
        assert word in out
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "provenance.json", "steps.csv", "summary.json",
    }  # fmt: skip
    assert OmegaConf.load(tmp_path / "run/config.yaml").training.max_steps == 2


def test_a_multirun_goes_on_after_a_bad_job(command, tmp_path):
    # the flag may stand anywhere
    code, out, _ = command("hydra.sweep.dir=sweep", "-m", "forget.position=99,first", *QUICK)
    assert code == 1
    assert "failed: forget.position=99: forget.position=99: an epoch has" in out
    assert (tmp_path / "sweep/forget.position=99/failed.json").exists()
    assert OmegaConf.load(tmp_path / "sweep/forget.position=99/config.yaml").forget.position == 99
    assert not (tmp_path / "sweep/forget.position=99/summary.json").exists()
    assert (tmp_path / "sweep/forget.position=first/summary.json").exists()


def test_a_run_that_diverges_is_told_by_exit_code_3(command):
    code, _, err = command("hydra.run.dir=run", *QUICK, "pretraining.epochs=0", "optimizer.lr=1e30")
    assert (code, err.count("\n")) == (3, 1)
    assert "error: step 1 (lr=1e+30): the curvature at these weights is not finite" in err
    code, _, again = command("hydra.run.dir=run", *QUICK, "pretraining.epochs=0", "optimizer.lr=1e30")
    assert code == 3
    assert again.splitlines()[-1] == err.strip()


def test_help_and_cfg_do_not_load_torch():
    code = (
        "import sys; sys.argv = ['unlearn', '--cfg', 'job']\n"
        "from unlearn.__main__ import main\n"
        "main()\n"
        "heavy = {'torch', 'wandb', 'pandas', 'matplotlib', 'transformers', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "single_gradient" in done.stdout


def test_help_lists_the_choices(command):
    code, out, _ = command("--help")
    assert code == 0
    assert "method: amnesiac, finetune, gradient_ascent, krylov, none, retrain, single_gradient" in out


@pytest.mark.parametrize("wrong", ["optimizer.lr='${optimizer.nope}'", "store.root=file/x"])
def test_bad_input_leaves_no_folder(command, tmp_path, wrong):
    (tmp_path / "file").write_text("")
    code, _, err = command("hydra.run.dir=run", wrong, "store.enabled=true", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "run").exists()

"""A fused sweep against separate runs: the same numbers, the same files; and what is not fused, with the reason."""

import json
import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from unlearn.__main__ import main
from unlearn.pipeline import forks, stack_curvature
from unlearn.pipeline import fused as fusing
from unlearn.pipeline.fused import compute, finish
from unlearn.pipeline.run import run
from unlearn.pipeline.stacking import stacks
from unlearn.records.folder import taken
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import Busy, Diverged, UserError

MLP = ("model=mlp", "model.activation=gelu", "model.widths=[12,8]", "measure.every=2")
POINTS = (
    ("seed=0", "penalty.gamma=0", "optimizer.lr=0.05"),
    ("seed=1", "penalty.gamma=5", "optimizer.momentum=0.9"),
    ("seed=2", "penalty.gamma=1", "optimizer.weight_decay=0.01", "method=finetune"),
    ("seed=0", "forget=points", "forget.count=3", "pretraining.lr=0.1"),
)


def fused(configs, folder):
    found, reasons = stacks(configs, 64)
    for stack in found:
        compute(list(stack.values()))
        for place, point in stack.items():
            finish(point, folder / f"fused{place}")
    return found, reasons


def close(separate, together):
    one, other = (pd.read_csv(folder / "steps.csv") for folder in (separate, together))
    assert one.shape == other.shape
    for name in one.columns.drop("krylov_flags"):
        # an error estimate of zero is rounding; so is a distance of 1e-6
        loose = {"rtol": 0.05, "atol": 1e-5} if name == "krylov_error" else {"rtol": 1e-4, "atol": 2e-6}
        np.testing.assert_allclose(one[name].astype(float), other[name].astype(float), **loose, err_msg=name)
    assert one.krylov_flags.astype(str).equals(other.krylov_flags.astype(str))


@pytest.mark.parametrize(
    "extra",
    [
        MLP,
        (*MLP, "conventions=faithful", "curvature=lanczos"),
        (
            *MLP,
            "pretraining.includes_forget=true",
            "retrain.start=initial",
            "measure.krylov=0",
            "retrain.renormalise=batch_size",
        ),
        (*MLP, "pretraining.epochs=0", "schedule.drop_last=true", "penalty=l2", "measure.krylov=0"),
        ("model=linear", "measure.hessian_samples=33", "schedule.order=shuffle_once"),
        ("model=cnn", "model.norm=group", "model.widths=[4,4]", "measure.hessian_samples=16", "training.max_steps=3"),
    ],
    ids=["mlp", "faithful", "initial", "l2", "linear", "cnn"],
)
def test_the_same_numbers_and_files_as_separate_runs(tiny, tmp_path, extra):
    points = [point for point in POINTS if "penalty=l2" not in extra or "forget=points" not in point]
    configs = [tiny(*extra, "training.save_weights=true", *point) for point in points]
    for place, cfg in enumerate(configs):
        run(cfg, tmp_path / f"separate{place}")
    found, reasons = fused(configs, tmp_path)
    assert [list(stack) for stack in found] == [list(range(len(points)))]
    assert reasons == {}
    for place in range(len(points)):
        separate, together = tmp_path / f"separate{place}", tmp_path / f"fused{place}"
        close(separate, together)
        names = [sorted(str(path.relative_to(at)) for path in at.rglob("*")) for at in (separate, together)]
        assert names[0] == names[1]
        assert (separate / "config.yaml").read_bytes() == (together / "config.yaml").read_bytes()
        summaries = [json.loads((at / "summary.json").read_text()) for at in (separate, together)]
        assert summaries[0].keys() == summaries[1].keys()
        assert summaries[0]["seconds"].keys() == summaries[1]["seconds"].keys()
        assert summaries[0]["accuracy"] == summaries[1]["accuracy"]
        for name in ("initial", "original", "retrained", "unlearned"):
            one, other = (load_file(at / "weights" / f"{name}.safetensors") for at in (separate, together))
            assert all(one[key].sub(other[key]).abs().max() < 2e-6 for key in one)


def test_a_large_graph_holds_fewer_runs_at_once(tiny, tmp_path, monkeypatch):
    """Of images of 8 x 8, sixteen at a sigma: two runs have 2,048 numbers in their inputs, all four twice as many."""
    network = ("model=cnn", "model.norm=group", "model.widths=[4,4]")
    configs = [tiny(*network, "measure.hessian_samples=16", "training.max_steps=3", *point) for point in POINTS]
    rows, hessian = [], StackedObjective.hessian

    def counted(self, weights, points, shares):
        rows.append(len(weights))
        return hessian(self, weights, points, shares)

    monkeypatch.setattr(StackedObjective, "hessian", counted)
    fused(configs, tmp_path / "all")
    assert set(rows) == {4}
    rows.clear()
    monkeypatch.setattr(stack_curvature, "GRAPH", 2 * 16 * 64)
    fused(configs, tmp_path / "two")
    assert set(rows) == {2}
    for place in range(len(POINTS)):
        close(tmp_path / "all" / f"fused{place}", tmp_path / "two" / f"fused{place}")


@pytest.mark.skipif(not forks.safe(), reason="forks are for Linux without an accelerator")
def test_processes_share_out_a_stack(tiny, tmp_path, monkeypatch):
    configs = [tiny(*MLP, "training.save_weights=true", "threads=3", *point) for point in POINTS]
    here, _ = fused(configs, tmp_path / "one")
    parts = []
    forked = forks.forked

    def counted(work, given):
        parts.append(len(given))
        return forked(work, given)

    monkeypatch.setattr(fusing, "FEWEST", 1)
    monkeypatch.setattr(fusing, "cpu_count", lambda: 3)
    monkeypatch.setattr(forks, "forked", counted)
    apart, _ = fused(configs, tmp_path / "three")
    assert parts == [3]
    for (place, one), other in zip(here[0].items(), apart[0].values(), strict=True):
        close(tmp_path / "one" / f"fused{place}", tmp_path / "three" / f"fused{place}")
        assert one.outcome.seconds.seconds.keys() == other.outcome.seconds.seconds.keys()
        for name, (weights, buffers) in one.ended.models.items():
            torch.testing.assert_close(other.ended.models[name][0], weights, rtol=0, atol=2e-6)
            assert other.ended.models[name][0].untyped_storage().nbytes() == weights.nbytes
            assert buffers == {}


def test_a_point_that_another_start_has_finished_keeps_its_summary(tiny, tmp_path, monkeypatch):
    configs = [tiny(*MLP, "measure.hessian_samples=0", f"seed={seed}") for seed in range(2)]
    (stack,), _ = fused(configs, tmp_path)
    before = (tmp_path / "fused0" / "summary.json").read_bytes()
    assert finish(stack[0], tmp_path / "fused0") == json.loads(before)
    assert (tmp_path / "fused0" / "summary.json").read_bytes() == before
    monkeypatch.setattr("unlearn.data.split.Split.fingerprint", lambda _: "other")
    with pytest.raises(UserError, match="other training data"):
        finish(stack[0], tmp_path / "fused0")


@pytest.mark.parametrize("widths", ["[5]", "[13]", "[64,32]"])
def test_with_nothing_forgotten_m_prime_is_m_in_a_stack_too(tiny, tmp_path, widths):
    """M and M' are rows of one product, wherever they lie in it."""
    configs = [tiny(*MLP, "forget=none", f"model.widths={widths}", f"seed={seed}") for seed in range(3)]
    computed, _ = fused(configs, tmp_path)
    for place, point in enumerate(computed[0].values()):
        assert point.ended.models["original"][0].equal(point.ended.models["retrained"][0])
        summary = json.loads((tmp_path / f"fused{place}" / "summary.json").read_text())
        assert summary["noop_distance"] == summary["verification_error"] == 0
        assert summary["ratio"] is None


@pytest.mark.parametrize("fewest", [1, 4], ids=["processes", "here"])
@pytest.mark.parametrize("where", ["optimizer", "pretraining"])
def test_a_point_that_diverges_keeps_its_rows_and_leaves_the_others_alone(tiny, tmp_path, monkeypatch, fewest, where):
    monkeypatch.setattr(fusing, "FEWEST", fewest)
    plain = (*MLP, "pretraining.epochs=0", "measure.every=1", "measure.hessian_samples=0", "training.epochs=1")
    if where == "pretraining":
        plain += ("pretraining.epochs=1",)
    configs = [tiny(*plain, f"{where}.lr={lr}") for lr in (0.01, 1e30, 0.02)]
    with pytest.raises(Diverged) as alone:
        run(configs[1], tmp_path / "separate1")
    (stack,), _ = stacks(configs, 64)
    compute(list(stack.values()))
    for place in (0, 2):
        run(configs[place], tmp_path / f"separate{place}")
        finish(stack[place], tmp_path / f"fused{place}")
        close(tmp_path / f"separate{place}", tmp_path / f"fused{place}")
    with pytest.raises(Diverged) as stacked:
        finish(stack[1], tmp_path / "fused1")
    assert str(stacked.value) == str(alone.value)
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("separate1", "fused1"))
    assert one["diverged_at"] == other["diverged_at"]
    assert other["status"] == "diverged"


@pytest.mark.parametrize("fewest", [1, 4], ids=["processes", "here"])
def test_a_method_that_diverges_is_the_fault_of_its_point_alone(tiny, tmp_path, monkeypatch, fewest):
    monkeypatch.setattr(fusing, "FEWEST", fewest)
    plain = (*MLP, "measure.hessian_samples=0", "training.epochs=1", "method=finetune")
    configs = [tiny(*plain, f"method.lr={lr}") for lr in (0.01, 1e30)]
    with pytest.raises(Diverged, match=r"method=finetune: M'' is not finite at step 3: try a smaller method\.lr"):
        run(configs[1], tmp_path / "separate1")
    run(configs[0], tmp_path / "separate0")
    (stack,), _ = stacks(configs, 64)
    compute(list(stack.values()))
    finish(stack[0], tmp_path / "fused0")
    with pytest.raises(Diverged, match="method=finetune: M'' is not finite at step 3"):
        finish(stack[1], tmp_path / "fused1")
    for place in (0, 1):
        close(tmp_path / f"separate{place}", tmp_path / f"fused{place}")
    one, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("separate1", "fused1"))
    assert one["status"] == other["status"] == "diverged"
    assert one["error"] == other["error"]
    assert one["noop_distance"] == pytest.approx(other["noop_distance"], abs=2e-6)  # the pair was measured all the same
    assert one["verification_error"] is None


def test_a_folder_that_another_process_is_at_is_left_to_it(tmp_path):
    with taken(tmp_path), pytest.raises(Busy):
        finish(None, tmp_path)


def test_why_a_point_runs_alone(tiny):
    odd = {
        "model=cnn model.norm=batch": "BatchNorm",
        "model=mlp dataset.augmentation=crop_flip": "augmented",
        "model=mlp dataset.augmentation=crop_flip schedule.augmentation=off": "augmented in pretraining",
        "model=mlp model.widths=[4000]": "weights",
        "model=mlp curvature=power": "not lanczos",
        "model=mlp penalty.gamma=-1": "cannot be prepared",
        "model=linear": "no other point",
        "model=mlp training.batch_size=16": "no other point",
    }
    configs = [tiny("model=mlp"), tiny("model=mlp", "penalty.gamma=2"), *(tiny(*key.split()) for key in odd)]
    found, reasons = stacks(configs, 64)
    assert [list(stack) for stack in found] == [[0, 1]]
    assert sorted(reasons) == list(range(2, len(configs)))
    for place, text in enumerate(odd.values(), start=2):
        assert text in reasons[place]


def test_stacks_are_cut_evenly(tiny):
    configs = [tiny("model=mlp", f"seed={seed}") for seed in range(5)]
    found, _ = stacks(configs, 3)
    assert [len(stack) for stack in found] == [3, 2]
    with pytest.raises(UserError, match=r"hydra\.launcher\.most=1"):
        stacks(configs, 1)


def test_the_launcher(monkeypatch, tmp_path, capsys, caplog):
    words = ["--multirun", "hydra/launcher=fused", "hydra.sweep.dir=sweep", "model=mlp,cnn", "model.widths=[6,6]",
             "seed=0,1", "dataset.train_size=96", "pretraining.epochs=1", "training.max_steps=2", "figures=false",
             "measure.hessian_samples=8", "logger.mode=disabled", "device=cpu", "optimizer.lr=0.01,1e38",
             "measure.every=1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["unlearn", *words])
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 3  # some points diverge, and the others end well
    states = {
        path.parent.name: json.loads(path.read_text())["status"] for path in tmp_path.glob("sweep/*/summary.json")
    }
    assert len(states) == 8
    assert {name: state for name, state in states.items() if "lr=0.01" in name and state != "completed"} == {}
    assert all(state == "diverged" for name, state in states.items() if "lr=1e+38" in name)
    assert "is not finite" in capsys.readouterr().out


def test_of_a_stack_only_the_point_at_fault_fails(monkeypatch, tmp_path, capsys):
    (tmp_path / "faulty_of_fused.py").write_text(
        "from dataclasses import dataclass\nfrom unlearn.methods.noop import Nothing\n\n\n"
        "@dataclass(frozen=True)\nclass Faulty(Nothing):\n"
        "    def unlearn(self, trained):\n        raise ValueError('my own')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--multirun", "hydra/launcher=fused", "hydra.sweep.dir=sweep", "model=mlp", "model.widths=[6]",
             "method=none", "method._target_=unlearn.methods.noop.Nothing,faulty_of_fused.Faulty",
             "dataset.train_size=96", "pretraining.epochs=1", "training.max_steps=2", "figures=false",
             "measure.hessian_samples=8", "logger.mode=disabled", "device=cpu", "store.enabled=false"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["unlearn", *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "they run one by one" in "".join(capsys.readouterr())
    ends = {path.parent.name: path.name for path in tmp_path.glob("sweep/*/*.json") if path.name != "provenance.json"}
    assert sorted(ends.values()) == ["failed.json", "summary.json"]
    assert all(("Faulty" in point) == (name == "failed.json") for point, name in ends.items())

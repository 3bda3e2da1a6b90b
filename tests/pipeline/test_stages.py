"""Shared stages and stopped runs: the same bytes as one run on its own, never stopped."""

import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from shutil import copy

import pytest
import torch
from safetensors.torch import load_file

from unlearn.data.augmentation import Augmentation
from unlearn.data.split import Split
from unlearn.pipeline import conclude, keys, phase, stages
from unlearn.pipeline.interrupt import Interrupted, Watch
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run
from unlearn.store.entries import Store
from unlearn.values.errors import Diverged, UserError

KEEP = ("training.save_weights=true", "measure.every=2", "model=mlp")
METHODS = ("single_gradient", "amnesiac", "finetune", "krylov", "none", "retrain", "gradient_ascent")


def outputs(folder):
    """All that a run computed, without how long it took."""
    summary = json.loads((folder / "summary.json").read_text())
    weights = {path.name: load_file(path) for path in sorted((folder / "weights").glob("*"))}
    numbers = {name: {k: v.tolist() for k, v in tensors.items()} for name, tensors in weights.items()}
    return (folder / "steps.csv").read_bytes(), {**summary, "seconds": 0, "reused": 0}, numbers


def sharing(tmp_path, *more):
    return ("store.enabled=true", f"store.root={tmp_path / 'store'}", *more)


@pytest.mark.parametrize("limit", [64, 0])
def test_methods_share_what_is_trained(tiny, tmp_path, limit, monkeypatch):
    trained = []
    real = stages.train
    for module in (stages, phase):
        monkeypatch.setattr(module, "train", lambda *a, **k: trained.append(1) or real(*a, **k))
    for method in METHODS:
        run(tiny(*KEEP, f"method={method}"), tmp_path / "alone" / method)
    alone = len(trained)
    for method in METHODS:
        options = sharing(tmp_path, f"store.trajectory_mb={limit}")
        run(tiny(*KEEP, *options, f"method={method}"), tmp_path / "shared" / method)
    assert alone == 2 * len(METHODS)
    # w_0 once and the pair once; judged while training goes on, each online method needs its own pair
    assert len(trained) - alone == (2 if limit else 1 + 4 + 1)
    for method in METHODS:
        assert outputs(tmp_path / "shared" / method) == outputs(tmp_path / "alone" / method)


def test_the_second_time_everything_is_there(tiny, tmp_path):
    options = [*KEEP, *sharing(tmp_path)]
    first, second = (run(tiny(*options), tmp_path / name) for name in "ab")
    assert first["reused"] == {"initial": False, "pair": False, "unlearned": False}
    assert second["reused"] == {"pair": True, "unlearned": True}
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


def test_a_damaged_entry_is_computed_again(tiny, tmp_path, caplog):
    options = [*KEEP, *sharing(tmp_path)]
    run(tiny(*options), tmp_path / "a")
    (state,) = (tmp_path / "store" / "pair").glob("*/state.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    assert run(tiny(*options), tmp_path / "b")["reused"]["pair"] is False
    assert "damaged (its checksum is another) and is computed again" in caplog.text
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")
    assert run(tiny(*options), tmp_path / "c")["reused"]["pair"] is True


CHANGES = (
    "seed=1", "penalty.gamma=1", "optimizer.lr=0.02", "optimizer.momentum=0.5", "optimizer.weight_decay=0.1",
    "optimizer.decay=cosine", "training.batch_size=16", "training.epochs=3", "training.max_steps=2", "forget=points",
    "forget.position=1", "dataset.train_size=95", "dataset.augmentation=crop_flip", "model.widths=[8]",
    "model.activation=gelu", "schedule.order=shuffle_once", "schedule.augmentation=off", "measure.every=1",
    "measure.hessian_samples=16", "measure.krylov=2", "measure.sigma=sqrt_signed", "curvature=power",
    "curvature.tolerance=0.1", "retrain.renormalise=batch_size", "pretraining.lr=0.1", "pretraining.momentum=0",
    "conventions.eval_after_measuring=true", "measure.warm.mix=0.1", "method.gradient_at=first", "arithmetic=bf16",
    "penalty.normalisation=none", "pretraining.includes_forget=true", "pretraining.order=as_stored",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_a_number_changes_the_key(tiny, change):
    base, other = (keys.pair(prepare(tiny("model=mlp", *more))) for more in ([], [change]))
    assert base != other


def test_the_number_of_threads_is_in_the_key(tiny):
    before, prepared, found = torch.get_num_threads(), prepare(tiny("model=mlp")), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(keys.pair(prepared))
    finally:
        torch.set_num_threads(before)
    assert found[0] != found[1]


def test_checkpoints_are_in_the_key_where_something_is_taken_at_them(tiny):
    at = ("model=mlp", "method.gradient_at=checkpoint")
    assert keys.pair(prepare(tiny(*at))) != keys.pair(prepare(tiny(*at, "training.checkpoint_every=9")))


def test_draws_of_the_users_own_are_in_the_key(tiny):
    @dataclass(frozen=True)
    class Mine(Augmentation):
        def draw(self, n, generator, device):
            return None

    prepared = prepare(tiny("model=mlp"))
    mine = replace(prepared.recorded.objective, augmentation=Mine())
    assert keys.pair(prepared) != keys.pair(replace(prepared, recorded=replace(prepared.recorded, objective=mine)))


@pytest.mark.parametrize("change", ["method.correction=plain", "method=finetune", "method=finetune method.lr=0.5"])
def test_whatever_changes_m_double_prime_alone_changes_its_key_alone(tiny, change):
    base, other, default = (prepare(tiny("model=mlp", *more)) for more in ([], change.split(), change.split()[:1]))
    assert keys.unlearned(base) != keys.unlearned(other)
    if " " in change:
        assert keys.unlearned(default) != keys.unlearned(other)
        assert keys.pair(default) == keys.pair(other)


def test_a_changed_class_of_the_users_own_is_another_key(tiny, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from dataclasses import dataclass\nfrom unlearn.methods.noop import Nothing\n\n\n"
    found = []
    for comment in ("# one\n", "# other\n"):  # as two processes would find it
        (tmp_path / "mine_of_stages.py").write_text(
            f"{text}@dataclass(frozen=True)\nclass Mine(Nothing):\n    {comment}    pass\n"
        )
        monkeypatch.delitem(sys.modules, "mine_of_stages", raising=False)
        prepared = prepare(tiny("model=mlp", "method=none", "method._target_=mine_of_stages.Mine"))
        found.append(keys.unlearned(prepared))
    assert found[0]["pair"] == found[1]["pair"]
    assert found[0]["method"].pop("source") != found[1]["method"].pop("source")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "change",
    ["figures=true", "logger.project=x", "method=none", "checkpoint.minutes=1", "measure.hessian_kept=64",
     "training.checkpoint_every=9"],
)  # fmt: skip
def test_what_changes_no_number_does_not(tiny, change):
    base, other = (keys.pair(prepare(tiny("model=mlp", "store.enabled=true", *more))) for more in ([], [change]))
    assert base == other


def asked(monkeypatch, module, name):
    """Let a signal come while a function of the pipeline is at work, once."""
    real = getattr(module, name)

    def heard(*given, **named):
        monkeypatch.setattr(module, name, real)
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*given, **named)

    monkeypatch.setattr(module, name, heard)


def test_asked_to_stop_at_the_last_look_a_run_leaves_the_method_for_later(tiny, tmp_path, monkeypatch):
    options = [*KEEP, "method=finetune", "measure.every=100", *sharing(tmp_path)]
    run(tiny(*KEEP, "method=finetune", "measure.every=100"), tmp_path / "whole")
    asked(monkeypatch, phase, "_view")
    with pytest.raises(Interrupted) as stopped:
        run(tiny(*options), tmp_path / "a")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "a" / "summary.json").exists()
    assert run(tiny(*options), tmp_path / "a")["reused"] == {"pair": True, "unlearned": False}
    assert outputs(tmp_path / "a") == outputs(tmp_path / "whole")


def test_asked_to_stop_at_its_end_a_run_is_done_and_the_next_is_not_begun(tiny, tmp_path, monkeypatch):
    asked(monkeypatch, conclude, "evaluate")
    with pytest.raises(Interrupted):
        run(tiny(*KEEP), tmp_path / "a")
    run(tiny(*KEEP), tmp_path / "whole")
    assert outputs(tmp_path / "a") == outputs(tmp_path / "whole")


def test_asked_to_stop_while_another_computes_a_run_does_not_wait(tiny, tmp_path, monkeypatch, caplog):
    cfg = tiny(*KEEP, "pretraining.epochs=0", *sharing(tmp_path))
    asked(monkeypatch, stages, "pair")
    with Store(tmp_path / "store").slot("pair", keys.pair(prepare(cfg))), pytest.raises(Interrupted):
        run(cfg, tmp_path / "a")
    assert "stopped while another run computed" in caplog.text
    assert run(cfg, tmp_path / "a")["status"] == "completed"


class Impatient(Watch):
    """Asks to stop the n-th time that it is looked at."""

    left = 0

    def due(self):
        type(self).left -= 1
        if type(self).left == 0:
            self.asked = signal.SIGTERM
        return self.asked is not None


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    "extra",
    [
        ["model=cnn", "model.norm=batch", "optimizer=momentum"],
        ["model=mlp", "forget=points", "method.gradient_at=checkpoint", "training.checkpoint_every=2"],
        [
            "model=mlp",
            "method=finetune",
            "retrain.start=initial",
            "pretraining.includes_forget=true",
            "measure.krylov=0",
        ],
        pytest.param(["device=cuda", "model=cnn", "model.norm=batch", "optimizer=momentum"], marks=pytest.mark.gpu),
    ],
)  # fmt: skip
def test_a_stopped_run_ends_as_one_never_stopped(tiny, tmp_path, monkeypatch, extra, store):
    options = [*KEEP, *extra, "dataset.augmentation=crop_flip"]
    run(tiny(*options), tmp_path / "whole")
    if store:
        options += sharing(tmp_path)
    monkeypatch.setattr("unlearn.pipeline.run.Watch", Impatient)
    stops = 0
    for stop in (1, 2, 3, 1, 2, 9):
        Impatient.left = stop
        with suppress(Interrupted):
            run(tiny(*options), tmp_path / "stopped")
            continue
        stops += 1
    assert stops >= 4
    Impatient.left = 0
    run(tiny(*options), tmp_path / "stopped")
    assert outputs(tmp_path / "stopped") == outputs(tmp_path / "whole")
    left = [path.name for path in tmp_path.rglob("*.p*t") if path.name not in ("state.pt", "partial")]
    assert left == []


def test_rows_that_are_on_disk_stay(tiny, tmp_path):
    """A run killed with rows behind its last kept state, the last of them cut in the middle."""
    options = [*KEEP, "measure.every=1"]
    run(tiny(*options), tmp_path / "whole")
    run(tiny(*options), tmp_path / "killed")
    lines = (tmp_path / "killed" / "steps.csv").read_bytes().splitlines(keepends=True)
    for name in ("summary.json", "provenance.json"):
        (tmp_path / "killed" / name).unlink()
    (tmp_path / "killed" / "steps.csv").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    (tmp_path / "killed" / ".summary.json.part").write_bytes(b"half")
    run(tiny(*options), tmp_path / "killed")
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*"))


def test_a_finished_run_is_not_done_again(tiny, tmp_path):
    summary = run(tiny(*KEEP), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run(tiny(*KEEP, "figures=true"), tmp_path) == json.loads(json.dumps(summary))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds another run already \(seed is 0 there, 1 here\)"):
        run(tiny(*KEEP, "seed=1"), tmp_path)


def test_a_finished_run_on_another_file_is_not_this_one(tiny, tmp_path):
    """The settings are the same where the file that they name has changed."""
    options = (*KEEP, "forget=file", f"forget.path={tmp_path / 'asked.txt'}")
    for points, refused in (("1 2", False), ("2 1", False), ("1 3", True)):
        (tmp_path / "asked.txt").write_text(points)
        with pytest.raises(UserError, match="another forget set") if refused else nullcontext():
            run(tiny(*options), tmp_path / "run")


@pytest.mark.parametrize(("part", "what"), [("train", "training"), ("test", "test")])
def test_a_finished_run_on_other_data_is_not_this_one(tiny, tmp_path, monkeypatch, part, what):
    run(tiny(*KEEP), tmp_path)
    real, other = Split.fingerprint, len(getattr(prepare(tiny(*KEEP)).data, part))
    monkeypatch.setattr(Split, "fingerprint", lambda split: "other" if len(split) == other else real(split))
    with pytest.raises(UserError, match=f"other {what} data"):
        run(tiny(*KEEP), tmp_path)


def test_a_finished_run_from_a_file_of_weights_that_has_changed_is_not_this_one(tiny, tmp_path):
    options = (*KEEP, f"model.weights={tmp_path / 'w.safetensors'}", "pretraining.epochs=0")
    for seed in (0, 1):
        run(tiny(*KEEP, f"seed={seed}", "training.save_weights=true"), tmp_path / f"{seed}")
    for seed, refused in ((0, False), (0, False), (1, True)):
        copy(tmp_path / f"{seed}" / "weights" / "initial.safetensors", tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=r"other weights in model\.weights") if refused else nullcontext():
            run(tiny(*options), tmp_path / "run")


def test_a_run_stopped_before_its_first_row_keeps_its_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("unlearn.pipeline.run.Watch", Impatient)
    Impatient.left = 1
    with pytest.raises(Interrupted):
        run(tiny(*KEEP), tmp_path)
    assert not (tmp_path / "steps.csv").exists()
    with pytest.raises(UserError, match=r"holds another run already \(seed is 0 there, 1 here\)"):
        run(tiny(*KEEP, "seed=1"), tmp_path)
    Impatient.left = 0
    run(tiny(*KEEP), tmp_path)


def test_a_run_that_failed_before_its_first_row_leaves_its_folder_to_a_mended_one(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patched:
        patched.setattr("unlearn.pipeline.measure.hessian_at", full)
        with pytest.raises(UserError):
            run(tiny(*KEEP, "measure.every=1"), tmp_path)
    run(tiny(*KEEP, "measure.every=2"), tmp_path)


def test_without_a_store_what_is_done_is_not_computed_again(tiny, tmp_path, monkeypatch):
    cfg = tiny(*KEEP, "method=finetune", "checkpoint.minutes=1e-9")

    def killed(*_):
        raise KeyboardInterrupt

    for name, stage in (("phase.Measurer", "initial"), ("stages.applied", "pair")):  # just after the stage
        with monkeypatch.context() as patched:
            patched.setattr(f"unlearn.pipeline.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                run(cfg, tmp_path)
        assert list(tmp_path.glob(f"{stage}-*.whole.pt"))
    assert run(cfg, tmp_path)["reused"] == {"pair": True, "unlearned": False}
    assert not list(tmp_path.glob("*.pt"))


def test_asked_to_stop_a_run_that_fails_stops_what_follows(tiny, tmp_path, monkeypatch, caplog):
    def diverges(job, trained):
        os.kill(os.getpid(), signal.SIGTERM)
        raise Diverged.saying("M'' is not finite", 4)

    monkeypatch.setattr(stages, "unlearned", diverges)
    with pytest.raises(Interrupted):
        run(tiny(*KEEP), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "diverged"
    assert "M'' is not finite" in caplog.text


def test_the_code_that_counts_is_what_the_process_started_with(tiny, monkeypatch):
    before = keys.unlearned(prepare(tiny("model=mlp")))
    monkeypatch.setattr("unlearn.pipeline.keys.code_version", lambda parts: "edited since")
    assert keys.unlearned(prepare(tiny("model=mlp"))) == before
    assert keys.METHODS != keys.CODE


def test_views_share_what_did_not_change(tiny, tmp_path):
    """The size of a kept pair grows by weights, velocities and forecast, not by all that is recorded."""
    scattered = ("forget=points", "forget.count=30", "training.epochs=5")  # a visit at each step
    run(tiny("model=mlp", "measure.every=1", *scattered, *sharing(tmp_path)), tmp_path / "run")
    (state,) = (tmp_path / "store" / "pair").glob("*/state.pt")
    from unlearn.store.entries import read_checked
    from unlearn.store.files import from_bytes

    looks = from_bytes(read_checked(state.parent), "cpu")["looks"]
    for one, two in pairwise(looks[3:]):  # after the first epoch, in which gradients at w_0 are added up
        left, right = one["view"]["recording"], two["view"]["recording"]
        assert left["initial"]["weights"].data_ptr() == right["initial"]["weights"].data_ptr()
        assert left["initial_gradient"].data_ptr() == right["initial_gradient"].data_ptr()
        groups = [{group["push"].data_ptr() for group in each["visits"]["groups"].values()} for each in (left, right)]
        assert len(groups[1] - groups[0]) <= 2  # the newest, and one that took in its neighbour


def test_a_state_that_is_not_finite_is_not_kept(tiny, tmp_path, monkeypatch):
    """A GPU's losses are looked at every 50 steps; what tells the step at which they failed must not be overwritten."""
    for module in (stages, phase):
        monkeypatch.setattr(module, "check_intervals", lambda *_: (50,))
    kept, real = [], phase.Phase.state
    monkeypatch.setattr(phase.Phase, "state", lambda self: kept.append(self.taken) or real(self))
    cfg = tiny(*KEEP, "optimizer.lr=1e38", "checkpoint.minutes=1e-9", "measure.every=50")
    with pytest.raises(Diverged) as told:
        run(cfg, tmp_path)
    assert kept == list(range(1, told.value.step))

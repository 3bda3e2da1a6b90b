"""The whole run: what it promises bit for bit, and what it leaves behind."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from unlearn.curvature.operator import Hessian
from unlearn.methods.method import applied
from unlearn.pipeline import phase, stages
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run
from unlearn.values.errors import Diverged, UserError
from unlearn.values.measurement import COLUMNS

STEPS = 6  # two epochs of 96 points in batches of 32
BATCH_NORM = "model.norm=batch"


def weights(folder, *names):
    return [load_file(folder / "weights" / f"{name}.safetensors") for name in names]


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_outputs(tiny, tmp_path):
    (tmp_path / "failed.json").write_text("{}")  # of an attempt before, in a sweep
    summary = run(tiny("training.save_weights=true", "figures=true", "measure.every=1"), tmp_path)
    steps = pd.read_csv(tmp_path / "steps.csv")
    assert list(steps.columns) == [column.name for column in COLUMNS]
    assert steps.step.tolist() == list(range(1, STEPS + 1))
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved == json.loads(json.dumps(summary))
    assert saved["status"] == "completed"
    assert saved["verification_error"] == steps.verification_error.iloc[-1]
    assert saved["ratio"] == pytest.approx(steps.verification_error.iloc[-1] / steps.noop_distance.iloc[-1])
    assert set(saved["accuracy"]) == {"original", "retrained", "unlearned"}
    assert set(saved["accuracy"]["original"]) == {"retain", "forget", "test"}
    assert not (tmp_path / "failed.json").exists()
    assert {"step", "noop_distance", "correction_size", "unlearning_error_paper"} <= set(saved["correlations"])
    assert {"prepare", "pretrain", "train", "measure", "sigma", "unlearn", "evaluate"} <= set(saved["seconds"])
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["optimizer"]["momentum"] == 0
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert {"git", "libraries", "device", "seed", "schedule", "data", "seconds"} <= set(provenance)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "errors.png", "correlation.png", "accuracy.png",
    }  # fmt: skip
    assert {path.stem for path in (tmp_path / "weights").iterdir()} == {
        "initial", "original", "retrained", "unlearned",
    }  # fmt: skip


def test_rows_agree_with_the_saved_weights(tiny, tmp_path):
    summary = run(tiny("training.save_weights=true"), tmp_path)
    initial, original, retrained, unlearned = weights(tmp_path, "initial", "original", "retrained", "unlearned")

    def distance(a, b):
        return sum(((a[name].double() - b[name].double()) ** 2).sum().item() for name in a) ** 0.5

    assert summary["distance_from_initial"] == pytest.approx(distance(original, initial), rel=1e-6)
    assert summary["noop_distance"] == pytest.approx(distance(original, retrained), rel=1e-6)
    assert summary["verification_error"] == pytest.approx(distance(unlearned, retrained), rel=1e-6)
    assert summary["correction_size"] == pytest.approx(distance(unlearned, original), rel=1e-6)


def test_the_buffer_distance_is_that_of_the_buffers_that_are_saved(tiny, tmp_path):
    summary = run(tiny(BATCH_NORM, "training.save_weights=true"), tmp_path)
    original, retrained = weights(tmp_path, "original", "retrained")
    pairs = [(original[name], retrained[name]) for name in original if "running" in name]
    assert len(pairs) >= 2
    expected = sum(((one.double() - other.double()) ** 2).sum().item() for one, other in pairs) ** 0.5
    assert summary["buffer_distance"] == pytest.approx(expected, rel=1e-6)
    assert expected > 0


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_cuda_device_agrees_with_the_cpu(tiny, tmp_path, model):
    columns = ["noop_distance", "verification_error", "sigma", "predicted_noop_distance"]
    options = ["training.epochs=4", "measure.every=1", "model.activation=gelu"]  # steps replayed, eigenpairs recycled
    rows = []
    for device in ("cpu", "cuda"):
        run(tiny(f"device={device}", f"model={model}", *options), tmp_path / device)
        rows.append(pd.read_csv(tmp_path / device / "steps.csv")[columns].to_numpy().ravel().tolist())
    assert len(rows[0]) == 12 * len(columns)
    assert rows[1] == pytest.approx(rows[0], rel=3e-3, nan_ok=True)  # sigma to 1e-3 on each side


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CONTROLS = [[], [BATCH_NORM], ["penalty.gamma=5", "optimizer=momentum"], ["arithmetic=bf16"]]


@pytest.mark.parametrize("extra", [*CONTROLS, pytest.param(["device=cuda"], marks=pytest.mark.gpu)])
def test_with_nothing_forgotten_m_prime_is_m(tiny, tmp_path, extra):
    summary = run(tiny("forget=none", "training.save_weights=true", *extra), tmp_path)
    original, retrained, unlearned = weights(tmp_path, "original", "retrained", "unlearned")
    assert same(original, retrained)
    assert same(original, unlearned)
    assert summary["verification_error"] == summary["noop_distance"] == summary["buffer_distance"] == 0
    assert summary["accuracy"]["original"]["forget"] is None


def test_a_graph_too_large_for_the_device_is_one_line(tiny, tmp_path, monkeypatch):
    def product(self, vector):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")

    monkeypatch.setattr(Hessian, "matvec", product)
    with pytest.raises(UserError, match=r"^measure.hessian_chunk=32: .* memory of cpu; take fewer, such as 8$"):
        run(tiny(), tmp_path)
    batches = ["measure.hessian_chunk=4", "measure.hessian_mode=train", BATCH_NORM]  # whole batches, whatever the chunk
    with pytest.raises(UserError, match=r"^training.batch_size=\d+: .* memory of cpu; take measure.hessian_mode=eval"):
        run(tiny(*batches), tmp_path / "batches")
    kept = ["measure.hessian_chunk=4", "measure.hessian_kept=20"]
    for place, mode in enumerate((["measure.hessian_mode=eval"], ["training.batch_size=8", BATCH_NORM])):
        with pytest.raises(UserError, match=r"^measure.hessian_kept=20: .* take fewer, such as (10|8), or 0$"):
            run(tiny(*kept, *mode), tmp_path / f"kept{place}")
    with pytest.raises(UserError, match=r"^measure.hessian_chunk=16: "):  # of which no graph is kept
        run(tiny("measure.hessian_chunk=16", "measure.hessian_kept=8"), tmp_path / "none")


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_seed_gives_the_same_bytes(tiny, tmp_path, device):
    options = (f"device={device}", "measure.every=2", "dataset.augmentation=crop_flip")
    for name in "ab":
        run(tiny(*options), tmp_path / name)
    assert (tmp_path / "a" / "steps.csv").read_bytes() == (tmp_path / "b" / "steps.csv").read_bytes()
    run(tiny(*options, "seed=1"), tmp_path / "c")
    assert (tmp_path / "a" / "steps.csv").read_bytes() != (tmp_path / "c" / "steps.csv").read_bytes()


@pytest.mark.parametrize("extra", [[BATCH_NORM], ["method=finetune"], ["conventions=faithful", BATCH_NORM]])
def test_measuring_changes_nothing(tiny, tmp_path, extra):
    for every in (1, 1000):
        run(tiny("training.save_weights=true", f"measure.every={every}", *extra), tmp_path / str(every))
    for name in ("original", "retrained", "unlearned"):
        often, never = (weights(tmp_path / every, name)[0] for every in ("1", "1000"))
        assert same(often, never)


def test_the_mode_quirk_of_the_reference_code_can_be_had(tiny, tmp_path):
    quirk = "conventions.eval_after_measuring=true"
    for name, extra in (("without", []), ("with", [quirk, "measure.krylov=0"])):
        run(tiny("training.save_weights=true", "measure.every=1", BATCH_NORM, *extra), tmp_path / name)
    without, having = (weights(tmp_path / name, "original")[0] for name in ("without", "with"))
    assert not same(without, having)
    # in eval mode the running statistics are no longer moved
    assert having["1.num_batches_tracked"] < without["1.num_batches_tracked"]


@pytest.mark.parametrize("method", ["none", "retrain", "single_gradient", "amnesiac", "gradient_ascent", "finetune"])
@pytest.mark.parametrize("forget", ["batch", "points", "class"])
def test_every_method_on_every_forget_set(tiny, tmp_path, method, forget):
    summary = run(tiny(f"method={method}", f"forget={forget}"), tmp_path)
    v, noop = summary["verification_error"], summary["noop_distance"]
    assert noop > 0
    assert summary["visits"] > 0
    if method == "none":
        assert (v, summary["ratio"], summary["correction_size"]) == (noop, 1, 0)
    elif method == "retrain":
        assert (v, summary["ratio"]) == (0, 0)
        assert summary["accuracy"]["unlearned"] == summary["accuracy"]["retrained"]
    else:
        assert v > 0
        assert summary["correction_size"] > 0


def test_methods_that_run_at_the_end_leave_empty_cells_before_it(tiny, tmp_path):
    run(tiny("method=finetune", "measure.every=1"), tmp_path)
    v = pd.read_csv(tmp_path / "steps.csv").verification_error
    assert v.isna().tolist() == [True] * (STEPS - 1) + [False]


def test_sigma_comes_with_an_estimate_of_its_error_where_there_is_one(tiny, tmp_path):
    known = run(tiny("measure.krylov=0"), tmp_path / "lanczos")
    assert 0 < known["sigma_error"] <= known["sigma"] * 1e-3
    hard = run(tiny("measure.krylov=0", "curvature.max_products=1"), tmp_path / "one")
    assert hard["sigma_error"] > hard["sigma"] * 1e-3  # not reached, and said so
    root = run(tiny("measure.krylov=0", "measure.sigma=sqrt_signed"), tmp_path / "root")
    assert root["sigma_error"] == pytest.approx(known["sigma_error"] / (2 * known["sigma"] ** 0.5), rel=1e-6)
    power = run(tiny("measure.krylov=0", "curvature=power"), tmp_path / "power")
    assert power["sigma_error"] is None


def test_without_hessian_samples_there_is_no_sigma(tiny, tmp_path):
    summary = run(tiny("measure.hessian_samples=0"), tmp_path)
    assert summary["sigma"] is summary["unlearning_error_unrolled"] is None
    assert summary["sigma_error"] is None
    assert summary["hvps"] == 0
    assert summary["verification_error"] > 0


def with_other(data, points):
    """Data in which some training points are others, at the same scale."""
    inputs, labels = data.train.inputs.clone(), data.train.labels.clone()
    inputs[points] = inputs[points].flip(-1)
    labels[points] = (labels[points] + 1) % 10
    return replace(data, train=replace(data.train, inputs=inputs, labels=labels))


def test_neither_w_0_nor_m_prime_depends_on_what_is_forgotten(tiny, tmp_path, monkeypatch):
    points = [3, 40]
    for includes in ("false", "true"):
        cfg = tiny(
            "forget=points", f"forget.indices={points}", f"pretraining.includes_forget={includes}",
            "training.save_weights=true",
        )  # fmt: skip
        run(cfg, tmp_path / f"{includes}here")
        other = with_other(prepare(cfg).data, points)
        with monkeypatch.context() as patched:
            patched.setattr("unlearn.pipeline.run.prepare", lambda cfg, other=other: prepare(cfg, other))
            run(cfg, tmp_path / f"{includes}there")

    def alike(includes, name):
        return same(*(weights(tmp_path / f"{includes}{place}", name)[0] for place in ("here", "there")))

    assert alike("false", "initial")
    assert alike("false", "retrained")
    assert not alike("false", "original")
    assert not alike("true", "initial")


def test_accuracies_are_those_of_plain_modules_in_eval_mode(tiny, tmp_path):
    cfg = tiny(BATCH_NORM, "forget=class", "training.save_weights=true", "method=finetune", "method.epochs=1")
    summary, prepared = run(cfg, tmp_path), prepare(cfg)
    data, forget = prepared.data, list(prepared.recorded.schedule.forget)
    rest = [point for point in range(96) if point not in forget]
    for name in ("original", "retrained", "unlearned"):
        module = prepared.network.module
        module.load_state_dict(weights(tmp_path, name)[0])
        module.eval()
        for part, split, points in (
            ("retain", data.train, rest),
            ("forget", data.train, forget),
            ("test", data.test, None),
        ):
            chosen = torch.arange(len(split)) if points is None else torch.tensor(points)
            with torch.no_grad():
                hits = module(split.batch(chosen)).argmax(1) == split.labels[chosen]
            assert summary["accuracy"][name][part] == pytest.approx(hits.double().mean().item())
    assert summary["gradient_evaluations"] == len(rest)


@pytest.mark.parametrize("curvature", ["lanczos", "dense"])
def test_sigma_is_the_top_of_the_hessian_at_the_saved_weights(tiny, tmp_path, curvature):
    """Softmax regression has its Hessian in closed form: the mean of (diag(p) - p p') x x', bias included."""
    cfg = tiny(
        "model=linear",
        "penalty.gamma=0",
        "measure.hessian_samples=96",
        "training.save_weights=true",
        f"curvature={curvature}",
    )
    summary, split = run(cfg, tmp_path), prepare(cfg).data.train
    saved = weights(tmp_path, "original")[0]
    weight, bias = (next(t.double() for t in saved.values() if t.dim() == dim) for dim in (2, 1))
    x = torch.cat([split.batch(torch.arange(96)).flatten(1), torch.ones(96, 1)], dim=1).double()
    p = (x @ torch.cat([weight, bias[:, None]], dim=1).T).softmax(1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    full = torch.einsum("nab,ni,nj->aibj", middle, x, x).reshape(10 * 65, 10 * 65) / 96
    assert summary["sigma"] == pytest.approx(torch.linalg.eigvalsh(full)[-1].item(), rel=1e-3)


def test_hessian_samples_are_the_first_or_drawn_by_seed(tiny):
    first = prepare(tiny("measure.hessian_samples_from=first")).sample.points
    assert first.tolist() == list(range(32))
    drawn = [prepare(tiny(f"seed={seed}")).sample.points.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(points)) == len(points) == 32 for points in drawn)


def test_retraining_from_the_start_when_pretraining_saw_the_forget_set(tiny, tmp_path):
    options = ["pretraining.includes_forget=true", "forget=class", "training.max_steps=1", "optimizer.lr=1e-9"]
    with pytest.raises(UserError, match=r"retrain\.start=initial: .* set measure\.krylov=0"):
        run(tiny(*options, "retrain.start=initial"), tmp_path / "refused")
    options.append("measure.krylov=0")
    near, far = (run(tiny(*options, f"retrain.start={start}"), tmp_path / start)["noop_distance"]
                 for start in ("pretrained", "initial"))  # fmt: skip
    assert near < 1e-6 < far


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_diverges_keeps_what_was_measured(tiny, tmp_path, device):
    options = (f"device={device}", "pretraining.epochs=0", "measure.every=1", "measure.hessian_samples=0")
    with pytest.raises(Diverged, match=r"not finite at step \d \(lr=1e\+30\): try a smaller lr"):
        run(tiny("optimizer.lr=1e30", *options), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "diverged"
    rows = len(pd.read_csv(tmp_path / "steps.csv"))
    assert summary["diverged_at"] == rows + 1


def test_a_pretraining_that_diverges_is_told_as_one(tiny, tmp_path):
    with pytest.raises(Diverged, match=r"^pretraining: the loss is not finite at step \d \(lr=1e\+30\)"):
        run(tiny("pretraining.lr=1e30"), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert summary["diverged_at"] == 0  # of the recorded steps


@pytest.mark.parametrize("views", ["store.trajectory_mb=64", "store.trajectory_mb=0"])
def test_a_method_that_diverges_on_the_way_keeps_what_was_measured_of_the_pair(tiny, tmp_path, monkeypatch, views):
    def failing(method, trained):
        if trained.recording.steps == 2:
            raise Diverged.saying("M'' is not finite", 2)
        return applied(method, trained)

    for module in (phase, stages):
        monkeypatch.setattr(module, "applied", failing)
    with pytest.raises(Diverged, match="M'' is not finite"):
        run(tiny("measure.every=1", "model=mlp", views), tmp_path)
    rows = pd.read_csv(tmp_path / "steps.csv")
    assert rows.step.tolist() == [1, 2]
    assert rows.noop_distance.notna().all()
    assert rows.verification_error.isna().tolist() == [False, True]


@pytest.mark.parametrize("lr", ["1e10", "1e20", "1e30"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_hessian_that_is_not_finite_is_divergence(tiny, tmp_path, lr, model):
    """The weights may still be finite when the curvature at them no longer is."""
    with pytest.raises(Diverged, match="not finite"):
        run(tiny(f"optimizer.lr={lr}", "pretraining.epochs=0", "measure.every=1", f"model={model}"), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "diverged"


@pytest.mark.parametrize("correction", ["momentum_aware", "plain"])
def test_the_momentum_factor_on_digits(composed, tmp_path, correction):
    """Momentum 0.9, lr 0.01, step 3, MLP: over ten times closer with the finite-time factor, and not without it."""
    summary = run(
        composed("model=mlp", "optimizer=momentum", "optimizer.lr=0.01", "pretraining.epochs=0", "device=cpu",
                 "training.max_steps=3", "measure.hessian_samples=0", "logger.mode=disabled", "figures=false",
                 f"method.correction={correction}"),
        tmp_path,
    )  # fmt: skip
    assert (summary["ratio"] < 0.1) == (correction == "momentum_aware")

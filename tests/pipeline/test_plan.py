"""What a sweep would cost, before it starts."""

import re

import pytest

from unlearn.pipeline import plan
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run
from unlearn.pipeline.sweep import Point

METHODS = ("single_gradient", "amnesiac", "finetune", "krylov")


@pytest.mark.parametrize(("room", "trainings"), [(64, 2), (0, 2 * 3)], ids=["views", "no room for views"])
def test_trainings_are_those_that_runs_do(tiny, tmp_path, capsys, room, trainings):
    """Two seeds; as `test_methods_share_what_is_trained` counts them."""
    options = ("model=mlp", "store.enabled=true", f"store.root={tmp_path / 'store'}", f"store.trajectory_mb={room}")
    configs = [tiny(*options, f"method={method}", f"seed={seed}") for method in METHODS for seed in (0, 1)]
    plan.show(configs, [Point(str(place), []) for place in range(len(configs))], tmp_path / "sweep")
    told = capsys.readouterr().out
    assert re.search(rf"trainings after sharing.*\s{trainings}\s", told), told
    assert not (tmp_path / "sweep").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("options", ["", "optimizer=momentum", "optimizer.weight_decay=0.01", "measure.krylov=0"])
def test_what_the_store_takes_is_about_what_was_told(tiny, tmp_path, options):
    root = tmp_path / "store"
    cfg = tiny("model=mlp", "store.enabled=true", f"store.root={root}", "measure.every=1", *options.split())
    prepared = prepare(cfg)
    run(cfg, tmp_path / "run")
    written = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) / 1e6
    assert plan._megabytes(prepared) == pytest.approx(written, rel=0.25)


@pytest.mark.parametrize(
    ("options", "before", "models"),
    [
        ((), 3, 1),
        (("pretraining.epochs=0",), 0, 1),
        (("pretraining.includes_forget=true", "retrain.start=initial", "measure.krylov=0"), 3, 2),
    ],
    ids=["pretrained", "drawn", "apart"],
)
def test_a_duration_is_the_sum_of_its_parts(tiny, options, before, models):
    """96 points in batches of 32, two epochs, looked at after steps 5 and 6; a pretraining step is half of M and M'."""
    prepared = prepare(tiny("model=mlp", "measure.every=5", *options))
    pace = plan.Pace(step=1, look=100, start=10_000)
    assert plan.duration(prepared, pace) == 10_000 + 6 + 2 * 100 + models * before / 2


@pytest.mark.parametrize(
    "other",
    [
        "threads=2",
        "device=cuda",
        "arithmetic=bf16",
        "curvature=power",
        "measure.hessian_chunk=8",
        "measure.hessian_kept=8",
        "model=cnn",
    ],
)
def test_what_sets_the_pace_is_timed_apart(tiny, other):
    assert plan._kind(tiny("model=mlp")) != plan._kind(tiny("model=mlp", other))
    assert plan._kind(tiny("model=mlp", "seed=1")) == plan._kind(tiny("model=mlp"))


def test_stacks_share_no_training_and_keep_nothing(tiny, tmp_path, capsys):
    options = ("model=mlp", "store.enabled=true", f"store.root={tmp_path / 'store'}")
    configs = [tiny(*options, f"method={method}") for method in METHODS]
    plan.show(configs, [Point(method, []) for method in METHODS], tmp_path / "sweep", fused=True)
    told = capsys.readouterr().out
    assert re.search(rf"trainings after sharing.*\s{len(METHODS)}\s", told), told
    assert re.search(r"store\s+about 0 MB", told)
    assert "what fuses takes less" in told
    assert all(cfg.store.enabled for cfg in configs)  # features of texts are read from there


def test_a_point_that_diverges_ends_no_plan(tiny, tmp_path, capsys):
    configs = [tiny("model=mlp", f"optimizer.lr={lr}") for lr in (0.01, 1e38)]
    plan.show(configs[::-1], [Point(str(place), []) for place in range(2)], tmp_path / "sweep")
    assert re.search(r"trainings after sharing.*\s2\s", capsys.readouterr().out)

"""What is wrong with a run is said before anything is written."""

import pytest
import torch

from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.report import verdict
from unlearn.pipeline.run import run
from unlearn.train.hessian import hessian_at
from unlearn.train.learner import Learner
from unlearn.values.errors import UserError

DROPPED = ("schedule.order=as_stored", "training.batch_size=10", "schedule.drop_last=true")  # the last 6 of 96 points

NORMED = ("model=resnet18",)  # 8 x 8 pixels become one
LATE = ("training.batch_size=3", "forget=points", "forget.indices=[0,1,2,3,4,5,6,7]", "training.epochs=2")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["forget.position=45"], "forget.position=45: an epoch has 3 batches, 0 to 2"),
        (["forget.position=middle"], "choose first, last, random or an index from 0 to 2"),
        (["forget=points", "forget.indices=[]"], "forget.indices: selects no point"),
        (["forget=points", "forget.indices=[1,1]"], "forget.indices: 1 is listed twice"),
        (["forget=points", "forget.indices=[96]"], "96 is out of range; training points are 0 to 95"),
        (["forget=points", "forget.count=96"], "forget.count=96: must lie between 1 and 95"),
        (["forget=points", "forget.count=0"], "forget.count=0"),
        (["forget=class", "forget.label=10"], "no training point has this class"),
        (["forget=class", "forget.share=0"], "forget.share"),
        (["forget=file", "forget.path=nowhere.txt"], "forget.path=nowhere.txt: No such file or directory"),
        (["optimizer.lr=0"], "optimizer.lr=0.0: must be a finite number above 0"),
        (["optimizer.decay=cosin"], "decay=cosin: choose one of constant, cosine"),
        (["optimizer.momentum=1"], "optimizer.momentum=1.0: must be at least 0 and below 1"),
        (["training.batch_size=97"], "training.batch_size=97: must lie between 1 and the 96 training points"),
        (["pretraining.batch_size=97"], "pretraining.batch_size=97"),
        (["training.epochs=0"], "training.epochs=0: must be at least 1"),
        (["training.record=[update]"], "training.record=update: choose from auto, initial_gradient"),
        (["training.record=[updates]"], "training.record: method=single_gradient needs initial_gradient"),
        (["dataset.train_size=2000"], "dataset.train_size"),
        (["schedule.order=random"], "schedule.order=random: choose one of"),
        (["schedule.augmentation=twice"], "schedule.augmentation=twice"),
        (["pretraining.order=random"], "pretraining.order=random: choose one of"),
        (["pretraining.augmentation=twice"], "pretraining.augmentation=twice"),
        (
            ["measure.hessian_augmentation=each_epoch"],
            "measure.hessian_augmentation=each_epoch: choose one of off, once",
        ),
        (["retrain.start=zero"], "retrain.start=zero"),
        (["arithmetic=fp16"], "arithmetic=fp16: choose one of float32, tf32, bf16"),
        (["arithmetic=tf32", "device=cpu"], "arithmetic=tf32: needs a CUDA device"),
        (["threads=0"], "threads=0: must be at least 1"),
        (["measure.every=0"], "measure.every=0: must be at least 1"),
        (["measure.krylov=1"], "measure.krylov=1: one product gives no error"),
        (["model.activation=elu"], "model.activation=elu: choose one of relu, gelu, tanh"),
        (["model.weights=nowhere.pt"], "nowhere.pt"),
        (["model=vgg19"], "needs images of at least"),
        (["device=tpu"], "device=tpu: choose auto, cpu, cuda or cuda:N"),
        (["curvature.tolerance=0"], "curvature.tolerance"),
        (["method=finetune", "method.lr=-1"], "method.lr=-1.0"),
        (
            ["curvature=dense", "model=mlp", "model.widths=[300]"],
            "curvature=dense: writes out a matrix of 22510 x 22510",
        ),
        (["conventions.eval_after_measuring=true", "model.norm=batch"], "M trains on in another mode than M'"),
        ([*NORMED, "training.batch_size=19"], "training.batch_size: leaves a batch of one point, of which BatchNorm"),
        ([*NORMED, "pretraining.batch_size=1"], "pretraining.batch_size: leaves a batch of one"),
        ([*NORMED, "forget=points", "forget.indices=[0]", "training.batch_size=2"], "training.batch_size: leaves a"),
        ([*NORMED, *LATE], "training.batch_size: leaves a batch of one"),  # in the second epoch, not in the first
        ([*NORMED, "measure.hessian_samples=33"], "measure.hessian_samples: leaves a batch of one"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tiny, tmp_path, overrides, message):
    with pytest.raises(UserError) as caught:
        run(tiny(*overrides), tmp_path / "run")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        (*NORMED, "training.batch_size=19", "schedule.drop_last=true"),
        (*NORMED, "training.batch_size=19", "training.max_steps=5"),
        (*NORMED, "measure.hessian_samples=33", "measure.hessian_mode=eval"),
        ("model=cnn", "model.norm=batch", "training.batch_size=19"),  # many pixels of one image
        ("model=mlp", "training.batch_size=1"),
    ],
)
def test_a_batch_of_one_point_is_fine_without_statistics_of_one_value(tiny, tmp_path, words):
    assert run(tiny(*words, "training.epochs=1", "measure.krylov=0"), tmp_path)["status"] == "completed"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["forget.position=last", "training.max_steps=2", "training.epochs=1"], True),
        (["forget=points", "forget.indices=[95]", *DROPPED], True),
        (["forget.position=last"], False),
        (["forget=none"], False),
    ],
)
def test_a_forget_set_that_is_never_seen_is_told(tiny, tmp_path, caplog, capsys, words, told):
    summary = run(tiny(*words), tmp_path)
    assert ("no forgotten point is in the" in caplog.text) == told
    assert (verdict(summary) == "M and M' are the same: no forgotten point was seen in these steps.") == told
    assert (summary["visits"] == 0) == (told or "forget=none" in words)


def test_weights_that_pretraining_changes_are_told(tiny, tmp_path, caplog):
    run(tiny("training.save_weights=true", "training.max_steps=1"), tmp_path)
    weights = f"model.weights={tmp_path / 'weights' / 'initial.safetensors'}"
    prepare(tiny(weights, "pretraining.epochs=0"))
    assert "pretraining goes on" not in caplog.text
    prepare(tiny(weights))
    assert "model.weights: pretraining goes on from there; pretraining.epochs=0" in caplog.text


def test_pretraining_has_an_order_and_an_augmentation_of_its_own(tiny):
    words = ("dataset.augmentation=crop_flip", "schedule.order=as_stored", "schedule.augmentation=once")
    prepared = prepare(tiny(*words))
    schedules = [recipe.schedule.order for recipe in (prepared.pretraining, prepared.recorded)]
    drawn = [recipe.objective.augment for recipe in (prepared.pretraining, prepared.recorded)]
    assert (schedules, drawn) == (["shuffle_each_epoch", "as_stored"], ["each_epoch", "once"])
    other = prepare(tiny(*words, "pretraining.order=shuffle_once", "pretraining.augmentation=off")).pretraining
    assert (other.schedule.order, other.objective.augment) == ("shuffle_once", "off")


@pytest.mark.parametrize(("words", "augmented"), [(["conventions=faithful"], True), ([], False)])
def test_sigma_of_the_faithful_run_is_that_of_its_frozen_crops(tiny, words, augmented):
    prepared = prepare(tiny("dataset.augmentation=crop_flip", "measure.hessian_mode=eval", *words))
    objective, at = prepared.recorded.objective, Learner.fresh(prepared.network, prepared.device)
    point = at.weights.requires_grad_()
    seen = objective.draws(0) if augmented else None
    loss = objective.loss(point, {}, prepared.sample.points, draws=seen, train=False)
    (slope,) = torch.autograd.grad(loss, point, create_graph=True)
    vector = torch.ones_like(point)
    (product,) = torch.autograd.grad(slope, point, vector)
    found = hessian_at(objective, Learner.start(point.detach(), {}), prepared.sample).matvec(vector)
    assert torch.allclose(found, product, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tiny, tmp_path):
    with pytest.raises(UserError, match="device=cuda: torch sees 0 CUDA devices"):
        run(tiny("device=cuda"), tmp_path / "run")


def test_a_folder_that_holds_a_run_is_left_alone(tiny, tmp_path):
    run(tiny("training.max_steps=1"), tmp_path)
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(UserError, match=r"holds another run already .training.max_steps is 1 there, 2 here"):
        run(tiny("training.max_steps=2"), tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == before

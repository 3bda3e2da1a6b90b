"""What is wrong with a run is said before anything is written."""

import pytest
import torch

from unlearn.pipeline.run import run
from unlearn.values.errors import UserError


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
        (["retrain.start=zero"], "retrain.start=zero"),
        (["arithmetic=fp16"], "arithmetic=fp16: choose one of float32, tf32, bf16"),
        (["arithmetic=tf32", "device=cpu"], "arithmetic=tf32: needs a CUDA device"),
        (["threads=0"], "threads=0: must be at least 1"),
        (["measure.every=0"], "measure.every=0: must be at least 1"),
        (["model.activation=elu"], "model.activation=elu: choose one of relu, gelu, tanh"),
        (["model.weights=nowhere.pt"], "nowhere.pt"),
        (["model=vgg19"], "needs images of at least"),
        (["device=tpu"], "device=tpu: choose auto, cpu, cuda or cuda:N"),
        (["curvature.tolerance=0"], "curvature.tolerance"),
        (["method=finetune", "method.lr=-1"], "method.lr=-1.0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tiny, tmp_path, overrides, message):
    with pytest.raises(UserError) as caught:
        run(tiny(*overrides), tmp_path / "run")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


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

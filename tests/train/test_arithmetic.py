from dataclasses import replace

import pytest
import torch

from tests.worlds import classifier
from unlearn.data.split import Split
from unlearn.models.network import Network
from unlearn.train.arithmetic import check_arithmetic, memory_format, passes
from unlearn.values.errors import UserError

CPU = torch.device("cpu")


def gradients(arithmetic):
    made = classifier(arithmetic=arithmetic)
    split = Split(made.split.inputs.float(), made.split.labels, torch.zeros(()), torch.ones(()))
    objective = replace(made, network=Network.of(made.network.module.float()), split=split)
    weights, points = objective.network.initial_weights(), torch.arange(24)
    bound = objective.bind(weights, {})
    _, trained = bound.gradient(points, objective.inputs(points, None), count=24, train=True, step=0)
    return (
        trained.clone(),
        objective.gradient(weights, {}, points)[1],
        objective.gradient(weights, {}, points, as_trained=True)[1],
    )


def test_bf16_is_of_the_passes_that_train_alone():
    exact, same, too = gradients("float32")
    assert torch.equal(exact, same)
    assert torch.equal(exact, too)
    rough, plain, as_trained = gradients("bf16")
    assert rough.dtype == exact.dtype
    assert torch.equal(plain, exact)
    assert torch.equal(as_trained, rough)
    error = float((rough - exact).norm() / exact.norm())
    assert 1e-5 < error < 3e-2  # 8 bits of mantissa


def test_everything_is_as_before_afterwards():
    with passes("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with pytest.raises(ValueError, match="inside"), passes("tf32", CPU):  # noqa: PT012
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        raise ValueError("inside")
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_tensor_cores_get_channels_last():
    cuda = torch.device("cuda")
    found = [memory_format(*given) for given in (("float32", cuda), ("tf32", cuda), ("bf16", cuda), ("bf16", CPU))]
    assert found == [torch.preserve_format, torch.channels_last, torch.channels_last, torch.preserve_format]


def test_what_there_is_not_is_refused():
    check_arithmetic("arithmetic", "bf16", CPU)
    with pytest.raises(UserError, match="arithmetic=fp16: choose one of float32, tf32, bf16"):
        check_arithmetic("arithmetic", "fp16", CPU)
    with pytest.raises(UserError, match=r"^arithmetic=tf32: needs a CUDA device.*; choose float32 or bf16"):
        check_arithmetic("arithmetic", "tf32", CPU)
    with pytest.raises(UserError, match=r"measure.arithmetic=bf16: choose one of float32, tf32"):
        check_arithmetic("measure.arithmetic", "bf16", CPU, ("float32", "tf32"))
    with pytest.raises(UserError, match=r"measure.arithmetic=tf32: needs a CUDA device.*; choose float32$"):
        check_arithmetic("measure.arithmetic", "tf32", CPU, ("float32", "tf32"))


@pytest.mark.gpu
def test_tf32_rounds_and_float32_does_not():
    device = torch.device("cuda")
    a = torch.randn(256, 256, device=device)
    torch.backends.cuda.matmul.allow_tf32 = False
    truth = (a.double() @ a.double()).float()
    with passes("tf32", device):
        rough = a @ a
    assert (a @ a - truth).abs().max() < 1e-4 < (rough - truth).abs().max()

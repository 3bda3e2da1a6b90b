import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worlds import Functional
from unlearn.models.cnn import CNN
from unlearn.models.network import Network, clone, dropout_rates


@pytest.fixture
def module() -> nn.Module:
    return CNN("cnn", None, (4, 6), "relu", "batch").build(torch.Size((1, 8, 8)), 3, seed=0)


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("train", [True, False])
def test_logits_are_those_of_the_module_bit_for_bit(module: nn.Module, inputs: torch.Tensor, train: bool) -> None:
    network = Network.of(module)
    ours = network.logits(network.initial_weights(), network.initial_buffers(), inputs, train=train)
    assert module.training == train
    assert torch.equal(ours, module(inputs))


def test_training_updates_the_passed_buffers_and_not_the_modules(module: nn.Module, inputs: torch.Tensor) -> None:
    network = Network.of(module)
    passed, before = network.initial_buffers(), network.initial_buffers()
    network.logits(network.initial_weights(), passed, inputs, train=True)
    after = network.initial_buffers()
    module(inputs)  # the module's own update is the oracle
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(torch.equal(passed[name], own) for name, own in module.named_buffers())
    assert all(not torch.equal(passed[name], before[name]) for name in before)


def test_evaluating_leaves_the_passed_buffers_alone(module: nn.Module, inputs: torch.Tensor) -> None:
    network = Network.of(module)
    passed, before = network.initial_buffers(), network.initial_buffers()
    network.logits(network.initial_weights(), passed, inputs, train=False)
    assert all(torch.equal(passed[name], before[name]) for name in before)


def test_the_gradient_is_that_of_the_modules_parameters_in_order(module: nn.Module, inputs: torch.Tensor) -> None:
    network, labels = Network.of(module), torch.tensor([0, 1, 2, 0, 1])
    weights = network.initial_weights().requires_grad_()
    loss = F.cross_entropy(network.logits(weights, network.initial_buffers(), inputs, train=True), labels)
    ours = torch.autograd.grad(loss, weights)[0]
    assert all(p.grad is None for p in module.parameters())
    F.cross_entropy(module(inputs), labels).backward()
    assert torch.equal(ours, torch.cat([p.grad.flatten() for p in module.parameters()]))


def test_passed_weights_count_and_the_modules_stay(module: nn.Module, inputs: torch.Tensor) -> None:
    network = Network.of(module)
    zero = torch.zeros(network.layout.dim)
    assert torch.equal(network.logits(zero, network.initial_buffers(), inputs, train=True), torch.zeros(5, 3))
    assert network.initial_weights().norm() > 0


def test_initial_weights_and_buffers_are_copies(module: nn.Module) -> None:
    network = Network.of(module)
    network.initial_weights().zero_()
    for buffer in network.initial_buffers().values():
        buffer.zero_()
    assert network.initial_weights().norm() > 0
    assert network.initial_buffers()["1.running_var"].sum() == 4


def test_a_clone_shares_nothing(module: nn.Module) -> None:
    buffers = Network.of(module).initial_buffers()
    copy = clone(buffers)
    copy["1.running_mean"].add_(1)
    assert list(copy) == list(buffers)
    assert buffers["1.running_mean"].sum() == 0


def test_dropout_is_found_however_it_is_written():
    assert dropout_rates(nn.Dropout2d(0.25)) == {"p": 0.25}
    assert dropout_rates(Functional(0.3)) == {"attention_dropout": 0.3}
    assert dropout_rates(nn.Linear(2, 2)) == {}

import pytest
import torch

from unlearn.train.learner import SGD, Learner


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0, 0), (0.9, 0), (0, 0.1), (0.9, 0.1)])
def test_steps_equal_torch_optim_sgd_bit_for_bit(momentum, weight_decay):
    stream = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=stream)
    ours = Learner.start(start, {})
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for step in range(5):
        gradient = torch.randn(7, generator=stream)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        theirs.grad = gradient.clone()
        optimizer.step()
        SGD(momentum, weight_decay).step_(ours, gradient, 0.1 / (step + 1))
        assert ours.weights.equal(theirs.data)
        assert ours.gradient.equal(gradient)


def test_a_start_is_a_copy():
    weights, buffers = torch.ones(3), {"mean": torch.zeros(2)}
    learner = Learner.start(weights, buffers)
    learner.weights.zero_()
    learner.buffers["mean"].fill_(1)
    assert weights.sum() == 3
    assert buffers["mean"].sum() == 0

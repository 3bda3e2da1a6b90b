import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worlds import Functional, classifier
from unlearn.data.augmentation import Augmentation
from unlearn.penalties import L2Penalty, SDPenalty

POINTS = torch.tensor([0, 5, 7, 11])


def logits_of(objective):
    return objective.network.module(objective.split.inputs[POINTS])


def test_loss_is_cross_entropy_and_penalties():
    plain, sd, l2 = (
        classifier(penalty=p) for p in (None, SDPenalty("sd", 3.0, "none"), L2Penalty("l2", 0.1, detached=False))
    )
    weights = plain.network.initial_weights()
    base = F.cross_entropy(logits_of(plain), plain.split.labels[POINTS])
    assert plain.loss(weights, {}, POINTS).item() == pytest.approx(base.item())
    spread = logits_of(plain).std(dim=1).mean()
    assert sd.loss(weights, {}, POINTS).item() == pytest.approx((base + 3 * spread).item())
    assert l2.loss(weights, {}, POINTS).item() == pytest.approx((base + 0.05 * weights.dot(weights)).item())


def test_gradient_is_that_of_the_loss():
    objective = classifier(penalty=SDPenalty("sd", 1.0, "per_class"))
    weights = objective.network.initial_weights()
    loss, gradient = objective.gradient(weights, {}, POINTS)
    assert not loss.requires_grad
    numeric = torch.stack(
        [
            (objective.loss(weights + 1e-6 * e, {}, POINTS) - objective.loss(weights - 1e-6 * e, {}, POINTS)) / 2e-6
            for e in torch.eye(len(weights), dtype=torch.float64)
        ]
    )
    assert torch.allclose(gradient, numeric, atol=1e-8)


class Sometimes(nn.Module):
    """Uses some of its weights in train mode alone."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.always(inputs) + (self.sometimes(inputs) if self.training else 0)


@pytest.mark.parametrize("penalty", [None, L2Penalty("l2", 0.1, detached=False)])
def test_bound_gradients_are_those_of_the_loss_whichever_weights_a_pass_uses(penalty):
    objective = classifier(module=Sometimes(), penalty=penalty)
    weights = objective.network.initial_weights()
    bound = objective.bind(weights, {})
    inputs = objective.inputs(POINTS, None)
    for train in (True, False, True):
        loss, found = bound.gradient(POINTS, inputs, count=len(POINTS), train=train, step=0)
        truth, gradient = objective.gradient(weights, {}, POINTS, train=train)
        assert torch.equal(loss, truth)
        torch.testing.assert_close(found, gradient, rtol=1e-14, atol=1e-16)
        assert bool(found[15:].any()) == (train or penalty is not None)
        weights.sub_(found, alpha=0.1)


def test_what_taking_points_out_divides_by():
    kept = POINTS[:3]
    remaining, whole = (classifier(renormalise=how) for how in ("remaining", "batch_size"))
    weights = remaining.network.initial_weights()
    mean = remaining.loss(weights, {}, kept)
    assert remaining.loss(weights, {}, kept, count=4).item() == pytest.approx(mean.item())
    assert whole.loss(weights, {}, kept, count=4).item() == pytest.approx(0.75 * mean.item())


@pytest.mark.parametrize("dropout", [nn.Dropout(0.5), Functional(0.5)], ids=["a layer", "a function"])
def test_dropout_masks_depend_on_the_step_alone(dropout):
    module = nn.Sequential(nn.Linear(4, 8), dropout, nn.Linear(8, 3))
    objective = classifier(module=module)
    weights = objective.network.initial_weights()
    first = objective.loss(weights, {}, POINTS, step=3)
    torch.rand(10)
    before = torch.get_rng_state()
    assert objective.loss(weights, {}, POINTS, step=3).equal(first)
    assert not objective.loss(weights, {}, POINTS, step=4).equal(first)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("augment", "same"), [("each_epoch", False), ("once", True)])
def test_augmentation_is_drawn_anew_or_once(augment, same):
    objective, other = (classifier(augmentation=Augmentation("crop_flip"), augment=augment) for _ in range(2))
    first = objective.draws(0)
    assert objective.draws(0) is first  # what a step asks for is not drawn at each step
    assert first.top.equal(objective.draws(1).top) == same
    assert objective.draws(0).top.equal(first.top)
    assert other.draws(0).top.equal(first.top)


def test_augmentation_off_draws_nothing():
    assert classifier(augmentation=Augmentation("crop_flip"), augment="off").draws(0) is None

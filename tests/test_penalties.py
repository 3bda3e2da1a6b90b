import pytest
import torch

from unlearn.penalties import L2Penalty, Penalty, SDPenalty
from unlearn.values.errors import UserError

LOGITS = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]], dtype=torch.float64)  # std 1 and sqrt(12)
MEAN_STD = (1 + 12**0.5) / 2


def test_sd_is_the_mean_standard_deviation_of_the_logits():
    assert SDPenalty("sd", 2.0, "none").of_logits(LOGITS).item() == pytest.approx(2 * MEAN_STD)
    assert SDPenalty("sd", 2.0, "per_class").of_logits(LOGITS).item() == pytest.approx(2 * MEAN_STD / 3)


def test_sd_of_equal_logits_is_zero_and_has_a_finite_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    penalty = SDPenalty("sd", 1.0, "none").of_logits(logits)
    (gradient,) = torch.autograd.grad(penalty, logits)
    assert penalty.item() == 0
    assert gradient.abs().sum() == 0


def test_sd_derivatives():
    logits = LOGITS.clone().requires_grad_()
    penalty = SDPenalty("sd", 1.5, "per_class")
    assert torch.autograd.gradcheck(penalty.of_logits, logits)
    assert torch.autograd.gradgradcheck(penalty.of_logits, logits)


@pytest.mark.parametrize("normalisation", ["none", "per_class"])
def test_closed_forms_of_columns_are_the_derivatives(normalisation):
    penalty = SDPenalty("sd", 1.5, normalisation)
    columns, along = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns[1, :, 2] = 1.0  # all equal
    found, known = penalty.slope_of_columns(columns), Penalty.slope_of_columns(penalty, columns)  # by autograd
    assert torch.allclose(found[0], penalty.each_of_logits(columns.mT.flatten(0, 1)).unflatten(0, (3, 5)))
    assert torch.allclose(found[0], known[0], rtol=0, atol=1e-12)
    assert torch.allclose(found[1], known[1], rtol=0, atol=1e-12)
    bends = [kind.bend_of_columns(penalty, columns, along) for kind in (SDPenalty, Penalty)]
    assert torch.allclose(*bends, rtol=0, atol=1e-12)


@pytest.mark.parametrize("detached", [True, False])
def test_l2_of_rows_is_that_of_each(detached):
    weights = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    penalty = L2Penalty("l2", 0.1, detached)
    each = torch.stack([penalty.unit_of_weights(row) for row in weights])
    assert torch.allclose(penalty.unit_of_rows(weights), each)
    assert torch.allclose(Penalty.unit_of_rows(penalty, weights), each)  # a penalty that brings no formula for rows


def test_l2_is_weight_decay():
    weights = torch.tensor([3.0, -4.0], dtype=torch.float64, requires_grad=True)
    penalty = L2Penalty("l2", 0.1, detached=False).of_weights(weights)
    (gradient,) = torch.autograd.grad(penalty, weights)
    assert penalty.item() == pytest.approx(0.05 * 25)
    assert gradient.tolist() == pytest.approx([0.3, -0.4])


def test_the_detached_l2_of_the_reference_code_has_no_gradient():
    weights = torch.tensor([3.0, -4.0], requires_grad=True)
    penalty = L2Penalty("l2", 0.1, detached=True).of_weights(weights)
    assert penalty.item() == pytest.approx(0.5)
    assert not penalty.requires_grad


def test_no_penalty_is_zero():
    assert Penalty("none").of_logits(LOGITS) == Penalty("none").of_weights(LOGITS[0]) == 0


@pytest.mark.parametrize("gamma", [-0.1, float("nan")])
def test_gamma_must_not_be_negative(gamma):
    with pytest.raises(UserError, match="gamma"):
        SDPenalty("sd", gamma, "none")
    with pytest.raises(UserError, match="gamma"):
        L2Penalty("l2", gamma, detached=False)

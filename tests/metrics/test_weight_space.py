import math

import pytest

from unlearn.metrics.weight_space import (
    sigma_of,
    unlearning_error_code,
    unlearning_error_paper,
    unlearning_error_unrolled,
)
from unlearn.values.errors import UserError


def test_the_three_forms_by_hand():
    lr, steps, distance, sigma = 0.1, 5, 2.0, 3.0
    assert unlearning_error_unrolled(lr, steps, distance, sigma) == pytest.approx(0.1 * (2 / 5) * 10 * 3)
    assert unlearning_error_paper(lr, steps, distance, sigma) == pytest.approx(0.01 * (2 / 5) * 10 * 3)
    assert unlearning_error_code(lr, steps, distance, sigma) == pytest.approx(0.01 * 2 * 2.5 * 3)


def test_after_one_step_there_is_no_second_order():
    assert unlearning_error_unrolled(0.1, 1, 2.0, 3.0) == unlearning_error_paper(0.1, 1, 2.0, 3.0) == 0


def test_unrolled_has_the_size_of_the_leftover_for_a_constant_gradient():
    """With gradient g at w_0 and curvature s, unrolling t steps leaves eta^2 s g t(t-1)/2 to second order."""
    lr, steps, gradient, curvature = 1e-4, 20, 2.0, 3.0
    w = 0.0
    for _ in range(steps):
        w -= lr * (gradient + curvature * w)
    first_order = -lr * steps * gradient
    assert w - first_order == pytest.approx(unlearning_error_unrolled(lr, steps, abs(first_order), curvature), rel=1e-2)


def test_sigma_kinds():
    assert sigma_of(-4.0, "largest_magnitude") == 4
    assert sigma_of(4.0, "sqrt_signed") == 2
    assert math.isnan(sigma_of(-4.0, "sqrt_signed"))
    with pytest.raises(UserError, match="sigma"):
        sigma_of(1.0, "sqrt")

import math

import pytest
import torch

from unlearn.curvature.outside import felt


@pytest.mark.parametrize("sign", [1, -1])
def test_curvature_outside_is_felt_within_the_bounds(sign):
    """Against the integral over spectra that are known: 1 / (theta - felt) = mean of 1 / (theta - lambda)."""
    theta, most = 10.0, 7.0
    for seed in range(200):
        stream = torch.Generator().manual_seed(seed)
        places = (2 * torch.rand(6, generator=stream, dtype=torch.float64) - 1) * most
        weights = torch.rand(6, generator=stream, dtype=torch.float64) ** 4
        weights /= weights.sum()
        mean = float(weights @ places)
        spread = float(weights @ (places - mean) ** 2) ** 0.5
        truth = theta - 1 / float(weights @ (1 / (theta - places)))
        guess, unsure = felt((sign * mean, spread), most, sign * theta)
        assert abs(sign * truth - guess) <= unsure + 1e-12
        assert abs(guess) + unsure <= most + 1e-12


@pytest.mark.parametrize("outer", [(7.5, 2.0), (-7.0, 0.0), (0.0, math.inf)])
def test_what_was_not_seen_or_has_no_room_may_be_anything_within_the_bounds(outer):
    assert felt(outer, 7.0, 10.0) == (0.0, 7.0)


@pytest.mark.parametrize("end", [-7.0, 7.0])
def test_the_bounds_of_what_is_felt_are_reached(end, monkeypatch):
    monkeypatch.setattr("unlearn.curvature.outside.SPREAD", 1.0)
    theta, most, other, weight = 10.0, 7.0, 4.0 if end < 0 else 5.0, 0.1  # a spectrum of two points, one at the end
    mean = weight * end + (1 - weight) * other
    spread = (weight * (1 - weight)) ** 0.5 * abs(end - other)
    truth = theta - 1 / (weight / (theta - end) + (1 - weight) / (theta - other))
    guess, _ = felt((mean, spread), most, theta)
    # the mean of both bounds: as far from this one as from the other end's
    mirrored = other_bound(theta, most, mean, spread, -math.copysign(most, end))
    assert guess == pytest.approx((truth + mirrored) / 2)


def other_bound(theta, most, mean, spread, end):
    """What the two-point spectrum with a point at `end` and these moments is felt as."""
    distance = mean - end
    point = mean + spread**2 / distance
    weight = spread**2 / (spread**2 + distance**2)
    return theta - 1 / (weight / (theta - end) + (1 - weight) / (theta - point))

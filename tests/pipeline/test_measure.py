"""The columns of a measured step, from built weights."""

import math
from types import SimpleNamespace

import pytest
import torch

from unlearn.methods.method import Unlearned
from unlearn.pipeline.measure import Look, Measurer, Sigma, judge
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.train.learner import Learner
from unlearn.values.errors import Diverged


def at(*weights):
    return Learner.start(torch.tensor(weights, dtype=torch.float64), {})


def test_a_method_is_judged_by_distances():
    """e_krylov compares what M'' changed with what the forecast says that M' is away."""
    look = Look({}, torch.tensor([3.0, 1.0], dtype=torch.float64))
    found = judge(look, at(0.0, 0.0), at(3.0, 0.0), Unlearned(at(3.0, 5.0).weights, {}))
    assert found["verification_error"] == pytest.approx(5)
    assert found["unlearning_error_krylov"] == pytest.approx(4)
    assert found["correction_size"] == pytest.approx(34**0.5)


def test_without_m_double_prime_nothing_is_judged():
    assert set(judge(Look({}, None), at(0.0), at(1.0), None).values()) == {None}


class Stubbed(Measurer):
    """Sigmas that are given, and no forecast."""

    def _sigma(self, original, step):
        value = self.given.pop(0)
        return Sigma(value, 0.1, 3)

    def _forecast(self, trained):
        return None


def looks(*sigmas, rates=(0.1, 0.05, 0.05)):
    measurer = Stubbed(None, Stopwatch())
    measurer.given = list(sigmas)
    original, retrained = at(1.0, 0.0), at(1.0, 2.0)
    original.loss = torch.tensor(0.7)
    found = []
    for taken in range(1, len(sigmas) + 1):
        recording = SimpleNamespace(initial=at(0.0, 0.0), rate_sum=sum(rates[:taken]), visit_count=1)
        step = SimpleNamespace(taken=taken, lr=rates[taken - 1], batch=SimpleNamespace(epoch=0))
        trained = SimpleNamespace(original=original, retrained=retrained, recording=recording)
        found.append(measurer.look(step, trained).columns)
    return found


def test_every_unlearning_error_by_hand():
    """Mean rate .075, t = 2, sigma 4 with mean 3, norm(w_t - w_0) = 1."""
    row = looks(2.0, 4.0)[1]
    assert row["unlearning_error_paper"] == pytest.approx(0.075**2 * (1 / 2) * 3)
    assert row["unlearning_error_code"] == pytest.approx(0.075**2 * (2 / 2) * 4)
    assert row["unlearning_error_code_mean"] == pytest.approx(0.075**2 * (2 / 2) * 3)
    assert row["unlearning_error_unrolled"] == pytest.approx(0.075 * (1 / 2) * 3)
    assert (row["lr"], row["sigma"], row["hvps"], row["noop_distance"]) == (0.05, 4.0, 3, 2.0)
    assert (row["distance_from_initial"], row["loss"]) == (1.0, pytest.approx(0.7))
    assert row["predicted_noop_distance"] is row["krylov_flags"] is None


def test_a_sigma_without_a_root_ends_the_mean_and_not_the_newest():
    row = looks(2.0, math.nan, 3.0)[2]
    assert math.isfinite(row["unlearning_error_code"])
    for name in ("paper", "code_mean", "unrolled"):
        assert math.isnan(row[f"unlearning_error_{name}"])


@pytest.mark.parametrize(("original", "retrained"), [(math.nan, 0.0), (0.0, math.inf)])
def test_weights_that_are_not_finite_are_divergence(original, retrained):
    learner = at(original)
    learner.loss = torch.tensor(0.7)
    trained = SimpleNamespace(
        original=learner,
        retrained=at(retrained),
        recording=SimpleNamespace(initial=at(0.0), rate_sum=0.1, visit_count=1),
    )
    step = SimpleNamespace(taken=7, lr=0.1, batch=SimpleNamespace(epoch=0))
    with pytest.raises(Diverged, match="step 7"):
        Stubbed(None, Stopwatch()).look(step, trained)

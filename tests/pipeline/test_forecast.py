"""e_krylov on whole runs, and the reasons it gives for not being trusted."""

import pandas as pd
import pytest
import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.curvature.operator import Halves, Matrix
from unlearn.pipeline.forecast import forecast
from unlearn.pipeline.run import run
from unlearn.train.loop import train
from unlearn.train.recording import Recording

UNIT = {"order": "as_stored", "forget": (0, 1, 2), "unit": 0}


def recorded(plan):
    m, m_prime = learner(), learner()
    recording = Recording.start(plan, m, frozenset({"visits", "initial_gradient"}), 100)
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)
    return recording, m_prime.weights - m.weights


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "weight_decay": 0.01, "decay": "cosine"}])
def test_exact_on_a_quadratic(options):
    plan = recipe(quadratic(), epochs=3, **UNIT, **options)
    recording, actual = recorded(plan)
    found = forecast(recording, Matrix(plan.objective.a), 5, has_buffers=False)
    assert torch.allclose(found.y, actual, rtol=0, atol=1e-10 * float(actual.norm()))
    assert (found.error, found.products, found.flags) == (0, 5, ())


def test_without_a_visit_there_is_nothing_to_predict():
    recording, _ = recorded(recipe(quadratic(), epochs=1))
    assert forecast(recording, Matrix(torch.eye(5, dtype=torch.float64)), 5, has_buffers=False) is None


def flags(operator, products=5, has_buffers=False, lr=0.05):
    recording, _ = recorded(recipe(quadratic(), lr=lr, epochs=5, **UNIT))
    return forecast(recording, operator, products, has_buffers).flags


def test_reasons_not_to_trust_it():
    eye = torch.eye(5, dtype=torch.float64)
    spread = torch.diag(torch.tensor([20.0, 15, 10, 5, 1], dtype=torch.float64))
    assert flags(Matrix(eye)) == ()
    assert flags(Matrix(eye), has_buffers=True) == ("batchnorm",)
    assert flags(Matrix(-eye)) == ("growth",)
    assert "lr_sigma" in flags(Matrix(25 * eye))
    assert "unconverged" in flags(Matrix(spread), products=2)
    assert "half_samples" in flags(Halves(Matrix(0 * eye), Matrix(6 * eye), 0.5))
    assert "half_samples" not in flags(Halves(Matrix(eye), Matrix(eye), 0.5))


def test_halves_are_projected_from_the_products_of_the_whole():
    world = quadratic()
    other = Matrix(torch.diag(torch.arange(5.0, dtype=torch.float64)))
    both = Halves(Matrix(world.a), other, 0.25)
    recording, _ = recorded(recipe(world, epochs=3, **UNIT))
    whole = forecast(recording, Matrix(0.25 * world.a + 0.75 * other.entries), 5, has_buffers=False)
    split = forecast(recording, both, 5, has_buffers=False)
    assert torch.allclose(whole.y, split.y)


def test_a_run_logs_the_forecast_and_zero_turns_it_off(tiny, tmp_path):
    options = ["measure.every=1", "model=mlp", "model.activation=tanh", "optimizer.lr=0.01", "optimizer=momentum"]
    run(tiny(*options, "measure.krylov=5", "measure.hessian_samples=96"), tmp_path / "on")
    rows = pd.read_csv(tmp_path / "on/steps.csv")
    # smooth, a small rate and few steps: first order is nearly all there is
    assert (rows.predicted_noop_distance / rows.noop_distance).tolist() == pytest.approx([1.0] * len(rows), rel=0.05)
    assert (rows.krylov_hvps <= 6).all()
    run(tiny(*options, "measure.krylov=0"), tmp_path / "off")
    off = pd.read_csv(tmp_path / "off/steps.csv")
    assert off[["unlearning_error_krylov", "predicted_noop_distance", "krylov_error"]].isna().all().all()
    assert (off.krylov_hvps == 0).all()


def test_krylov_unlearning_beats_the_single_gradient_on_a_smooth_network(tiny, tmp_path):
    options = ["model=mlp", "model.activation=gelu", "training.epochs=10", "optimizer.lr=0.02"]
    ratios = {
        method: run(tiny(*options, f"method={method}"), tmp_path / method)["ratio"]
        for method in ("single_gradient", "krylov")
    }
    assert ratios["krylov"] < ratios["single_gradient"] / 2

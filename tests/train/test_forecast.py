"""e_krylov on whole runs, and the reasons it gives for not being trusted."""

import pandas as pd
import pytest
import torch

from tests.curvature.matrix import Matrix
from tests.worlds import learner, quadratic, recipe
from unlearn.curvature.operator import Halves
from unlearn.pipeline.run import run
from unlearn.train.forecast import forecast
from unlearn.train.loop import train
from unlearn.train.path import Segment, quotient_on
from unlearn.train.recording import Recording

UNIT = {"order": "as_stored", "forget": (0, 1, 2), "unit": 0}


def recorded(plan, operator, every=100, products=5, buffers=()):
    """The forecast at the end of a run that is measured every so many steps, and w' - w as it is."""
    m, m_prime = learner(), learner()
    recording = Recording.start(plan, m, frozenset({"carried"}), 100)
    m.buffers = dict.fromkeys(buffers, torch.ones(1))
    found = None
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)
        if step.taken % every == 0 or step.taken == plan.schedule.total_steps:
            found = forecast(recording, m, lambda _: operator, products)
            recording.carried = found.carried
    return found, m_prime.weights - m.weights


@pytest.mark.parametrize("forget", [UNIT, {"order": "as_stored", "forget": (4, 10)}], ids=["batch", "points"])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.5, "weight_decay": 0.01, "decay": "cosine"}])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_exact_on_a_quadratic_however_often_it_is_measured(forget, options, every):
    plan = recipe(quadratic(), epochs=3, **forget, **options)
    found, actual = recorded(plan, Matrix(plan.objective.a), every)
    assert torch.linalg.vector_norm(found.y - actual) < 1e-10 * torch.linalg.vector_norm(actual)
    assert (found.products, found.flags) == (5, ())
    assert found.error < 1e-10


def test_exact_with_the_curvature_of_the_path_itself():
    plan = recipe(quadratic(), epochs=3, momentum=0.5, **UNIT)
    m, m_prime = learner(), learner()
    recording = Recording.start(plan, m, frozenset({"carried"}), 100)
    for step in train(plan, [m], [m_prime]):
        recording.observe(step, m)

    def along(push):
        return quotient_on(Segment(plan, recording.initial.weights, m, range(12), 0), 6, push)

    found, actual = forecast(recording, m, along, 5), m_prime.weights - m.weights
    assert torch.linalg.vector_norm(found.y - actual) < 1e-10 * torch.linalg.vector_norm(actual)


def test_without_a_visit_there_is_nothing_to_predict():
    found, _ = recorded(recipe(quadratic(), epochs=1), Matrix(torch.eye(5, dtype=torch.float64)))
    assert (found.y, found.products) == (None, 0)


def flags(operator, products=5, lr=0.05, buffers=()):
    plan = recipe(quadratic(), lr=lr, epochs=5, **UNIT)
    return recorded(plan, operator, products=products, buffers=buffers)[0].flags


def test_reasons_not_to_trust_it():
    eye = torch.eye(5, dtype=torch.float64)
    spread = torch.diag(torch.tensor([20.0, 15, 10, 5, 1], dtype=torch.float64))
    assert flags(Matrix(eye)) == ()
    assert flags(Matrix(eye), buffers=["running_mean"]) == ("batchnorm",)
    assert flags(Matrix(-2 * eye)) == ("growth",)
    assert "lr_sigma" in flags(Matrix(25 * eye))
    assert "unconverged" in flags(Matrix(spread), products=2)
    assert "half_samples" in flags(Halves(Matrix(0 * eye), Matrix(6 * eye), 0.5))
    assert "half_samples" not in flags(Halves(Matrix(eye), Matrix(eye), 0.5))


def test_reasons_outlive_the_segment_they_arose_in():
    """Each segment of two steps grows by no more than 1.1^2."""
    plan = recipe(quadratic(), lr=0.05, epochs=5, **UNIT)
    found, _ = recorded(plan, Matrix(-2 * torch.eye(5, dtype=torch.float64)), every=2)
    assert found.flags == ("growth",)


def test_halves_are_projected_from_the_products_of_the_whole():
    world = quadratic()
    other = Matrix(torch.diag(torch.arange(5.0, dtype=torch.float64)))
    both = Halves(Matrix(world.a), other, 0.25)
    plan = recipe(world, epochs=3, **UNIT)
    whole, _ = recorded(plan, Matrix(0.25 * world.a + 0.75 * other.entries))
    split, _ = recorded(plan, both)
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

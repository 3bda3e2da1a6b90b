"""Stacked SGD against the one SGD loop, in float64."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.worlds import classifier, recipe
from unlearn.curvature.stacked import StackedHessian
from unlearn.penalties import L2Penalty, Penalty, SDPenalty
from unlearn.train.learner import Learner
from unlearn.train.loop import train
from unlearn.train.objective import Objective
from unlearn.train.recording import Recording
from unlearn.train.stack import Row, losses_of, train_stacked
from unlearn.train.stack_objective import StackedObjective
from unlearn.values.errors import Diverged

UNIT = {"forget": (0, 1, 2, 3, 4), "unit": 2}  # one whole batch of 5
SCATTERED = {"forget": (0, 7, 9)}
PENALTIES = {
    "none": lambda gamma: Penalty("none"),
    "sd": lambda gamma: SDPenalty("sd", gamma, "per_class"),
    "l2": lambda gamma: L2Penalty("l2", gamma, detached=False),
    "l2 detached": lambda gamma: L2Penalty("l2", gamma, detached=True),
}


def rows(objective, penalties, forget, **options):
    """Rows that differ in seed, strength, lr, momentum and weight decay; every second never sees the forget set."""
    made = []
    for place, penalty in enumerate(penalties):
        plan = recipe(
            replace(objective, penalty=penalty), batch_size=5, lr=0.05 * (place + 1), momentum=0.3 * place,
            weight_decay=0.01 * place, decay="cosine", **forget, **options,
        )  # fmt: skip
        plan = replace(plan, schedule=replace(plan.schedule, seed=place))
        stream = torch.Generator().manual_seed(place)
        start = torch.randn(objective.network.layout.dim, generator=stream, dtype=torch.float64)
        made += [Row(plan, Learner.start(start, {}), kept) for kept in (False, True)]
    return made


def alone(row):
    learner = Learner.start(row.learner.weights, {})
    groups = ([], [learner]) if row.on_kept else ([learner], [])
    recording = Recording.start(row.recipe, learner, frozenset({"visits", "updates"}), 100)
    for step in train(row.recipe, *groups):
        recording.observe(step, learner)
    return learner, recording


@pytest.mark.parametrize("forget", [UNIT, SCATTERED, {}], ids=["batch", "points", "none"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_equal_to_the_loop(penalty, forget):
    objective = classifier(size=23)  # the last batch is short
    made = rows(objective, [PENALTIES[penalty](gamma) for gamma in (0.0, 0.5, 2.0)], forget)
    expected = [alone(row) for row in made]
    recordings = [Recording.start(row.recipe, row.learner, frozenset({"visits", "updates"}), 100) for row in made]
    for step in train_stacked(made, losses_of(made)):
        assert not step.failed
        for row, own, recording in zip(made, step.steps, recordings, strict=True):
            recording.observe(own, row.learner)
    for row, recording, (learner, known) in zip(made, recordings, expected, strict=True):
        assert torch.allclose(row.learner.weights, learner.weights, rtol=0, atol=1e-10)
        assert torch.allclose(row.learner.velocity, learner.velocity, rtol=0, atol=1e-10)
        assert (recording.visit_count, recording.steps) == (known.visit_count, known.steps)
        assert torch.allclose(recording.update_sum, known.update_sum, rtol=0, atol=1e-10)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("function", [nn.ReLU, nn.GELU, nn.Tanh, None])
def test_closed_forms_are_the_derivatives_of_the_losses(function, penalty):
    wide = [] if function is None else [nn.Linear(4, 6), function(), nn.Linear(6, 5), function()]
    module = nn.Sequential(nn.Flatten(), *wide, nn.Linear(5 if wide else 4, 3))
    objective = classifier(module=module)
    stack = StackedObjective.of([replace(objective, penalty=PENALTIES[penalty](g)) for g in (0.0, 0.5, 0.0, 2, 1, 3)])
    assert stack.network.chain is not None
    stream = torch.Generator().manual_seed(1)
    weights, vectors = torch.randn(2, 6, objective.network.layout.dim, generator=stream, dtype=torch.float64)
    points, shares = (
        torch.randint(24, (6, 9), generator=stream),
        torch.rand(6, 9, generator=stream, dtype=torch.float64),
    )
    weights[1, -18:] = 0  # all logits equal, where the SD penalty has a kink
    whole = weights.clone().requires_grad_()
    expected = stack.losses(whole, points, shares)
    (slopes,) = torch.autograd.grad(expected.sum(), whole)
    losses, gradients = stack.gradients(weights, points, shares)
    assert torch.allclose(losses, expected, rtol=0, atol=1e-12)
    assert torch.allclose(gradients, slopes, rtol=0, atol=1e-12)
    hessian, by_autograd = (
        stack.hessian(weights, points, shares),
        StackedHessian(weights, lambda some: stack.losses(some, points, shares)),
    )
    for going in ([True] * 6, [True, False, True, True, False, True], [False, True, False, False, False, False]):
        rows = torch.tensor(going)
        found, known = hessian.matvec(vectors, rows), by_autograd.matvec(vectors, rows)
        assert torch.allclose(found[rows], known[rows], rtol=0, atol=1e-11)


def test_a_batch_with_points_taken_out_can_keep_its_size():
    made = rows(classifier(size=23, renormalise="batch_size"), [Penalty("none")], SCATTERED)
    expected = [alone(row)[0] for row in made]
    other = rows(classifier(size=23), [Penalty("none")], SCATTERED)
    for stack in (made, other):
        list(train_stacked(stack, losses_of(stack)))
    assert torch.allclose(made[1].learner.weights, expected[1].weights, rtol=0, atol=1e-10)
    assert not torch.allclose(made[1].learner.weights, other[1].learner.weights, rtol=0, atol=1e-6)


def test_a_convolution_stacks_too():
    module = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 3, padding=1), nn.GELU(), nn.Flatten(),
                           nn.Linear(12, 3))  # fmt: skip
    made = rows(classifier(size=20, module=module), [Penalty("none")] * 2, UNIT)
    expected = [alone(row)[0] for row in made]
    list(train_stacked(made, losses_of(made)))
    for row, learner in zip(made, expected, strict=True):
        assert torch.allclose(row.learner.weights, learner.weights, rtol=0, atol=1e-10)


def test_a_row_that_diverges_stays_behind_and_leaves_the_others_alone():
    made = rows(classifier(size=20), [L2Penalty("l2", gamma, detached=False) for gamma in (0.1, 1e300)], UNIT)
    healthy = [alone(row)[0] for row in made[:2]]
    with pytest.raises(Diverged) as error:
        alone(made[2])
    failed = {}
    for step in train_stacked(made, losses_of(made)):
        failed |= step.failed
    assert failed.keys() == {2, 3}
    assert failed[2].step == error.value.step
    for row, learner in zip(made[:2], healthy, strict=True):
        assert torch.allclose(row.learner.weights, learner.weights, rtol=0, atol=1e-10)


def test_rows_with_training_sets_of_their_own():
    one, other = classifier(seed=0), classifier(seed=1)
    other = Objective(one.network, other.split, other.penalty)
    stack = StackedObjective.of([one, other, one])
    assert len(stack.labels) == 48  # the equal one is held once
    weights = torch.randn(3, one.network.layout.dim, dtype=torch.float64)
    points = torch.tensor([[0, 5], [3, 4], [7, 7]])
    found = stack.losses(weights, points, torch.full((3, 2), 0.5, dtype=torch.float64))
    for k, objective in enumerate((one, other, one)):
        assert found[k].item() == pytest.approx(objective.loss(weights[k], {}, points[k]).item(), abs=1e-12)


def test_a_row_without_a_penalty_is_not_hurt_by_what_the_penalty_of_large_logits_would_be():
    objective = classifier(module=nn.Linear(4, 3))
    penalties = [SDPenalty("sd", strength, "none") for strength in (0.0, 2.0)]
    stack = StackedObjective.of([replace(objective, penalty=penalty) for penalty in penalties])
    weights = torch.full((2, objective.network.layout.dim), 0.1, dtype=torch.float64)
    weights[0, :4] = 1e200  # finite, and its square is not
    points = torch.tensor([[0, 5], [3, 4]])
    shares = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert bool(stack.losses(weights, points, shares).isfinite().all())
    losses, gradients = stack.gradients(weights, points, shares)
    assert bool(losses.isfinite().all())
    assert bool(gradients.isfinite().all())


def test_epochs_are_counted_as_the_schedule_does():
    objective = classifier(size=20)
    made = rows(objective, [Penalty("none")], {}, max_steps=6)
    taken = [step.steps[0].taken for step in train_stacked(made, losses_of(made))]
    assert taken == list(range(1, 7))
    assert len(taken) == made[0].recipe.schedule.total_steps

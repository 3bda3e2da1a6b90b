import pytest
import torch

from tests.curvature.matrix import Matrix, symmetric
from unlearn.curvature.estimators import Lanczos, PowerIteration
from unlearn.curvature.known import KEPT
from unlearn.curvature.tracker import PATIENCE, Tracker, Warmth
from unlearn.values.errors import UserError

DIM = 60


def probe(step):
    return torch.randn(DIM, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def turning(step, angle=0.01):
    """A spectrum whose leading eigenvector turns a little every step."""
    values = torch.linspace(-1, 2, DIM, dtype=torch.float64)
    values[-1] = 10
    first, second = torch.eye(DIM, dtype=torch.float64)[-1], torch.eye(DIM, dtype=torch.float64)[0]
    turn = torch.as_tensor(angle * step, dtype=torch.float64)
    q = torch.eye(DIM, dtype=torch.float64)
    q[-1], q[0] = turn.cos() * first + turn.sin() * second, turn.cos() * second - turn.sin() * first
    return Matrix(q.T @ values.diag() @ q)


def follow(warmth, operators, estimator=None):
    tracker = Tracker(estimator or Lanczos("lanczos", 1e-3, 30), warmth)
    return [tracker(operator, probe(step)) for step, operator in enumerate(operators)]


def test_a_slow_turn_costs_about_one_product_and_stays_within_the_tolerance():
    found = follow(Warmth(True, 0.01, 25), [turning(step) for step in range(50)])
    assert max(abs(each.value / 10 - 1) for each in found) < 1e-3
    assert sum(each.products for each in found) / 50 < 2


def test_every_product_is_counted():
    """Through a start, steps of one product, a re-check, and a leader that changes by half, after which all is new."""
    operators = [turning(step) for step in range(8)]
    dense = symmetric(torch.linspace(-1, 1, DIM).pow(3).tolist())[0]  # many near the top, none of them known
    operators += [dense, *(turning(step) for step in range(9, 12))]
    tracker, kinds = Tracker(Lanczos("lanczos", 1e-3, 30), Warmth(True, 0.01, 4)), set()
    for step, operator in enumerate(operators):
        calls = []

        class Counting(Matrix):
            def matvec(self, vector, calls=calls):
                calls.append(1)
                return super().matvec(vector)

        found = tracker(Counting(operator.entries), probe(step))
        assert found.products == len(calls)
        kinds.add(len(calls))
    assert 1 in kinds
    assert max(kinds) > PATIENCE  # else nothing began anew


def test_cold_starts_cost_more():
    cold = follow(Warmth(False, 0.01, 25), [turning(step) for step in range(10)])
    assert min(each.products for each in cold) > 2


def crossing(step):
    values = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
    values[0], values[1] = 5 - 0.1 * step, 3 + 0.1 * step  # cross at step 10
    return Matrix(values.diag())


def test_a_crossing_is_not_missed_for_longer_than_the_recheck():
    found = follow(Warmth(True, 0.02, 5), [crossing(step) for step in range(30)])
    for step, each in enumerate(found):
        truth = max(5 - 0.1 * step, 3 + 0.1 * step)
        assert each.value <= truth * (1 + 1e-3)
        if not 10 <= step < 16:
            assert each.value == pytest.approx(truth, rel=1e-3)


def test_a_leader_of_the_other_sign_is_no_reason_to_drop_the_pairs():
    values = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
    ends = [(5 - 0.01 * step, -4.9 - 0.01 * step) for step in range(12)]
    operators = []
    for plus, minus in ends:
        values[0], values[1] = plus, minus  # cross in magnitude at step 5
        operators.append(Matrix(values.diag()))
    found = follow(Warmth(True, 0.01, 25), operators)
    for step, ((plus, minus), each) in enumerate(zip(ends, found, strict=True)):
        if not 6 <= step < 9:  # the other end has moved unseen until the next audit
            assert each.value == pytest.approx(max(plus, minus, key=abs), rel=1e-3)
    assert sum(each.products for each in found[10:]) <= 3  # as before the crossing


def test_a_leader_that_falls_by_a_fifth_a_step_does_not_make_the_others_forgotten():
    values = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
    operators, tops = [], [10 * 0.8**step for step in range(8)]
    for top in tops:
        values[0], values[1] = top, 5.0  # crossed at step 4
        operators.append(Matrix(values.diag()))
    found = follow(Warmth(True, 0.01, 25), operators)
    assert [each.value for each in found] == pytest.approx([max(top, 5.0) for top in tops], rel=1e-3)


def rising(step):
    """A leader that was in the middle of the spectrum, where no pairs are kept, grows past the other."""
    values = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
    values[:12] = torch.linspace(5, 3, 12)
    values[30] = 0.5 * step  # passes at step 10
    return Matrix(values.diag())


def test_a_leader_out_of_nowhere_is_not_missed_for_longer_than_the_recheck():
    found = follow(Warmth(True, 0.02, 5), [rising(step) for step in range(30)])
    for step, each in enumerate(found):
        if not 10 <= step < 16:
            assert each.value == pytest.approx(max(5.0, 0.5 * step), rel=1e-3)


def test_a_negative_leader_is_followed():
    found = follow(Warmth(True, 0.01, 10), [Matrix(-turning(step).entries) for step in range(20)])
    assert all(each.value == pytest.approx(-10, rel=1e-3) for each in found)


def test_other_estimators_start_cold_every_time():
    found = follow(Warmth(True, 0.01, 10), [turning(0)] * 3, PowerIteration("power", 1e-3, 100))
    assert min(each.products for each in found) > 2


def test_settings_are_checked():
    with pytest.raises(UserError, match="recheck"):
        Warmth(True, 0.01, 0)
    with pytest.raises(UserError, match="mix"):
        Warmth(True, 1.0, 5)


def test_pairs_that_mislead_are_given_up():
    """Nothing is left of yesterday's operator: the search ends all the same, as from a random direction."""

    def anew(step):
        values = torch.linspace(1, 10, DIM, dtype=torch.float64).roll(7 * step)
        stream = torch.Generator().manual_seed(step)
        q, _ = torch.linalg.qr(torch.randn(DIM, DIM, generator=stream, dtype=torch.float64))
        return Matrix(q @ values.diag() @ q.T)

    found = follow(Warmth(True, 0.01, 1000), [anew(step) for step in range(6)], Lanczos("lanczos", 1e-6, 60))
    assert all(each.converged for each in found)
    assert all(each.value == pytest.approx(10, rel=1e-5) for each in found)
    assert max(each.products for each in found[1:]) > 12  # the pairs were given up


@pytest.mark.parametrize("bulk", [0.0, 1e-3])
def test_few_eigenvalues_leave_no_phantoms(bulk):
    """The Krylov space of the cold start ends, or nearly so: its last vector says nothing about curvature outside."""
    stream = torch.Generator().manual_seed(0)
    values = bulk * torch.randn(DIM, generator=stream, dtype=torch.float64)
    values[:3] = torch.tensor([5.0, 4.0, 1.0], dtype=torch.float64)
    for shift in range(5):
        tracker = Tracker(Lanczos("lanczos", 1e-3, 30), Warmth(True, 0.01, 25))
        found = [tracker(Matrix(values.diag()), probe(100 * shift + step)) for step in range(25)]
        assert max(abs(each.value / 5 - 1) for each in found) < 1e-3


def test_a_recheck_counts_as_an_audit():
    tracker = Tracker(Lanczos("lanczos", 1e-3, 30), Warmth(True, 0.01, 1))
    for step in range(20):
        assert tracker(turning(step), probe(step)).value == pytest.approx(10, rel=1e-3)
    assert tracker.known.unaudited == 0


def test_pairs_are_not_given_up_for_a_search_with_fewer_products():
    tracker = Tracker(Lanczos("lanczos", 1e-12, 16), Warmth(True, 0.01, 25))
    for step in range(4):
        stream = torch.Generator().manual_seed(step)
        entries = torch.randn(DIM, DIM, generator=stream, dtype=torch.float64)  # nothing of yesterday's holds
        values = 5 + torch.linspace(0, 1, DIM, dtype=torch.float64)
        turn, _ = torch.linalg.qr(0.05 * entries + torch.eye(DIM, dtype=torch.float64))
        found = tracker(Matrix(turn @ values.diag() @ turn.T), probe(step))
        assert not found.converged
        assert step == 0 or (found.products == PATIENCE and len(tracker.known.values) == KEPT)


@pytest.mark.parametrize("most", [1, 2, 3, 14])
def test_the_most_products_hold_for_all_of_a_search(most):
    found = follow(Warmth(True, 0.01, 4), [turning(step, 0.5) for step in range(8)], Lanczos("lanczos", 1e-9, most))
    assert max(each.products for each in found) <= most


def test_pairs_that_are_given_up_are_all_looked_along():
    """The leader falls by more than half, below the second pair or not: a restart from one of them would not do."""
    for first, second in ((4.4, 4.8), (4.4, 4.0)):
        values = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
        operators = []
        for values[0], values[1] in ((10.0, 4.3), (first, second)):
            operators.append(Matrix(values.diag()))
        found = follow(Warmth(True, 0.01, 25), operators)
        assert found[1].value == pytest.approx(max(first, second), rel=1e-3)


def test_a_jump_is_doubted_for_a_few_estimates_alone():
    values = torch.linspace(-0.005, 0.005, DIM, dtype=torch.float64)
    operators = []
    for step in range(16):
        values[:4] = torch.tensor([0.1, 0.08, 0.05, 0.03], dtype=torch.float64) * (1000 if step else 1)
        operators.append(Matrix(values.diag()))
    found = follow(Warmth(True, 0.01, 25), operators)
    assert all(each.value == pytest.approx(0.1 * (1000 if step else 1), rel=1e-3) for step, each in enumerate(found))
    assert sum(each.products for each in found[8:]) <= 16


def test_without_warm_starts_nothing_is_kept():
    tracker = Tracker(Lanczos("lanczos", 1e-3, 30), Warmth(False, 0.01, 25))
    tracker(turning(0), probe(0))
    assert tracker.known is None

import math
from dataclasses import replace

import pytest
import torch

from tests.curvature.matrix import Matrix, start, symmetric
from unlearn.curvature.known import KEPT, Known
from unlearn.curvature.krylov import krylov
from unlearn.curvature.recycled import AUDIT, recycled
from unlearn.curvature.spectrum import driven
from unlearn.values.errors import NotFinite

EYE = torch.eye(40, dtype=torch.float64)
VALUES = [10.0, 8.0, 5.0, 3.0, 1.0, *torch.linspace(-0.5, 0.5, 35, dtype=torch.float64).tolist()]


def find(operator, known, begin=None, tolerance=1e-3, most=30, probe=None):
    return driven(
        recycled(known.vectors[0] if begin is None else begin, known, tolerance, most, probe), operator.matvec
    )


def exact(values, q, count=KEPT):
    """The leading pairs of q diag(values) q', known exactly."""
    chosen = torch.tensor(values, dtype=torch.float64).abs().argsort(descending=True)[:count]
    return Known(q[:, chosen].T.clone(), [values[place] for place in chosen], [0.0] * len(chosen))


def test_the_same_operator_again_costs_one_product():
    operator, q = symmetric(VALUES)
    found, known = find(operator, exact(VALUES, q))
    assert found.products == 1
    assert found.converged
    assert found.value == pytest.approx(10, rel=1e-12)
    assert known.drift == pytest.approx(0, abs=1e-12)
    assert known.values[:5] == pytest.approx(VALUES[:5], rel=1e-9)


def rotation(angle, i, j):
    turn = EYE.clone()
    turn[i, i] = turn[j, j] = math.cos(angle)
    turn[i, j], turn[j, i] = math.sin(angle), -math.sin(angle)
    return turn


@pytest.mark.parametrize("growth", [1.0, 1.1])
@pytest.mark.parametrize("into", [1, 4], ids=["the second", "the fifth"])
def test_a_turn_among_known_pairs_is_right_to_second_order_after_one_product(into, growth):
    """The Rayleigh quotient is off by the angle squared; the model by its cube or less, also where all has grown."""
    _, q = symmetric(VALUES)
    errors, quotients = [], []
    for angle in (0.1, 0.05):
        turned = Matrix(
            growth
            * q
            @ rotation(angle, 0, into)
            @ torch.tensor(VALUES).double().diag()
            @ rotation(-angle, 0, into)
            @ q.T
        )
        lead = q[:, 0]
        found, _ = find(turned, exact(VALUES, q), most=1)
        errors.append(abs(found.value - 10 * growth))
        quotients.append(10 * growth - float(lead @ turned.matvec(lead)))
    assert quotients[0] / quotients[1] == pytest.approx(4, rel=0.05)
    assert errors[0] / errors[1] > 12  # fourth order
    assert errors[0] < quotients[0] / 10


def test_what_it_keeps_are_unit_vectors_at_right_angles():
    operator, q = symmetric(VALUES)
    shaken = Matrix(operator.entries + 0.1 * symmetric(VALUES, seed=3)[0].entries)
    _, known = find(shaken, exact(VALUES, q), tolerance=1e-8)
    assert len(known.values) == KEPT
    torch.testing.assert_close(known.vectors @ known.vectors.T, torch.eye(KEPT, dtype=torch.float64))
    lead = torch.linalg.eigvalsh(shaken.entries)[-1].item()
    assert known.values[0] == pytest.approx(lead, rel=1e-7)
    assert known.doubts[0] < 1e-3 < known.doubts[-1]


def test_it_ends_where_power_from_yesterday_alone_would_not():
    """Yesterday's pairs as preconditioner: fewer products than a Krylov space from the same vector."""
    operator, q = symmetric(VALUES)
    shaken = Matrix(operator.entries + 0.3 * symmetric(VALUES, seed=3)[0].entries)
    truth = torch.linalg.eigvalsh(shaken.entries)[-1].item()
    found, _ = find(shaken, exact(VALUES, q), tolerance=1e-6)
    assert found.value == pytest.approx(truth, rel=1e-6)
    space = krylov(shaken, q[:, 0], found.products)
    assert abs(torch.linalg.eigvalsh(space.tridiagonal())[-1].item() / truth - 1) > 1e-6


def test_a_kept_rival_is_multiplied_before_it_can_have_overtaken():
    """Leader and rival sway together, then cross: the leader's drift tells how far the rival may have moved unseen."""
    values = [5.0, 4.8, *[0.1] * 38]
    known = Known(EYE[:2].clone(), values[:2], [0.0, 0.0])
    for step in range(20):
        sway = 1 + 0.05 * (-1) ** step
        values[1] = 4.8 + 0.05 * step
        found, known = find(Matrix(sway * torch.tensor(values, dtype=torch.float64).diag()), known)
        assert found.value == pytest.approx(sway * max(values), rel=1e-3)


def test_a_small_residual_is_no_reason_to_stop():
    """An eigenvector that no longer leads: its residual is zero."""
    known = Known(EYE[:2].clone(), [5.0, 4.0], [0.0, 0.5])
    found, _ = find(Matrix(torch.tensor([5.0, 5.5, *[0.0] * 38], dtype=torch.float64).diag()), known)
    assert found.value == pytest.approx(5.5)


def test_a_leader_that_no_pair_knows_is_found_by_a_recheck():
    """Nothing couples it to what is known, so only a direction from elsewhere can meet it."""
    values = torch.zeros(40, dtype=torch.float64)
    values[[0, 1, 30]] = torch.tensor([5.0, 4.0, 6.0], dtype=torch.float64)
    known = Known(EYE[:2].clone(), [5.0, 4.0], [0.0, 0.0], outer=(0.0, 0.1))
    copy = replace(known, vectors=known.vectors.clone())  # a search uses up what it is given
    assert find(Matrix(values.diag()), copy)[0].value == pytest.approx(5)
    found, after = find(Matrix(values.diag()), known, probe=start(40))
    assert found.value == pytest.approx(6, rel=1e-3)
    assert abs(float(after.vectors[0][30])) == pytest.approx(1, abs=1e-3)


def test_a_known_spectrum_of_one_eigenvalue_leaves_doubt_in_what_is_outside():
    entries = torch.zeros(40, 40, dtype=torch.float64)
    entries[0, 0], entries[2, 2], entries[0, 2], entries[2, 0] = 5.0, 3.0, 1.0, 1.0
    found, _ = find(Matrix(entries), Known(EYE[:2].clone(), [5.0, 0.0], [0.0, 0.0]))
    assert found.value == pytest.approx(4 + 2**0.5, rel=1e-3)


def test_an_audit_with_nothing_outside_is_none():
    """The leader turned into a kept pair: what that pair's curvature is says nothing about curvature outside."""
    turn = rotation(0.2, 0, 1)
    values = torch.tensor([5.0, 4.0, *[0.0] * 38], dtype=torch.float64)
    known = Known(EYE[:2].clone(), [5.0, 4.0], [0.0, 0.5], unaudited=AUDIT, outer=(0.1, 0.2))
    found, after = find(Matrix(turn @ values.diag() @ turn.T), known)
    assert found.products == 2
    assert after.unaudited == AUDIT + 1
    assert after.outer == pytest.approx((0.1, 0.2), rel=0.2)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_does_not_matter(sign):
    operator, q = symmetric([sign * value for value in VALUES])
    shaken = Matrix(operator.entries + 0.1 * sign * symmetric(VALUES, seed=3)[0].entries)
    found, _ = find(shaken, exact([sign * value for value in VALUES], q), tolerance=1e-7)
    truth = torch.linalg.eigvalsh(shaken.entries)
    assert found.value == pytest.approx(truth[truth.abs().argmax()].item(), rel=1e-6)


def test_a_whole_space_is_exact():
    operator, _ = symmetric([3.0, 2.0, -1.0])
    found, _ = find(operator, Known(start(3)[None] / start(3).norm(), [2.9], [0.0]), tolerance=1e-12)
    assert found.value == pytest.approx(3, rel=1e-12)
    assert found.products <= 3


def test_an_operator_of_which_little_is_left_is_said_after_one_product():
    for entries in (torch.zeros_like(EYE), 2 * EYE, EYE.diag().roll(1).diag() * 20):
        found, _ = find(Matrix(entries), Known(EYE[:1].clone(), [5.0], [0.0]))
        assert (found.products, found.converged) == (1, False)


def test_the_budget_is_kept_and_said():
    operator, q = symmetric(VALUES)
    shaken = Matrix(operator.entries + 0.3 * symmetric(VALUES, seed=3)[0].entries)
    found, _ = find(shaken, exact(VALUES, q), tolerance=1e-10, most=2)
    assert (found.products, found.converged) == (2, False)


def test_an_operator_that_is_not_finite_is_refused():
    known = Known(EYE[:1].clone(), [5.0], [0.0])
    with pytest.raises(NotFinite):
        find(Matrix(torch.full_like(EYE, torch.nan)), known)


def test_pairs_of_a_krylov_space():
    operator, _ = symmetric(VALUES)
    known = Known.of(krylov(operator, start(40), 40))
    assert known.values[:5] == pytest.approx(VALUES[:5], abs=1e-8)
    assert len(known.values) == KEPT
    torch.testing.assert_close(operator.matvec(known.vectors[0]), known.values[0] * known.vectors[0])


@pytest.mark.parametrize(("partner", "unaudited"), [(2, 0), (1, 4)], ids=["outside", "known"])
def test_a_second_product_outside_of_all_that_is_known_is_an_audit(partner, unaudited):
    """The leader is coupled to one more direction: to one that no pair knows, or to the second pair."""
    entries = torch.tensor([5.0, 3.0, 2.0, *[0.0] * 37], dtype=torch.float64).diag()
    entries[0, partner] = entries[partner, 0] = 0.5
    known = Known(EYE[:2].clone(), [5.0, 3.0], [0.0, 0.5], unaudited=3, outer=(0.0, 1.0))
    found, after = find(Matrix(entries), known, tolerance=1e-6)
    assert found.products > 1
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(entries)[-1]), rel=1e-6)
    assert after.unaudited == unaudited


@pytest.mark.parametrize("size", [1.0, 1e-8])
def test_a_recheck_looks_as_far_whatever_the_scale(size):
    """In float32, where a random direction's product is as small as the operator."""
    values = torch.zeros(40)
    values[[0, 1, 30]] = size * torch.tensor([5.0, 4.0, 6.0])
    pairs = Known(EYE[:2].float(), [5.0 * size, 4.0 * size], [0.0, 0.0], outer=(0.0, 0.1 * size))
    found, _ = find(Matrix(values.diag()), pairs, probe=start(40).float())
    assert found.value == pytest.approx(6 * size, rel=1e-3)


def test_what_is_lost_and_may_not_be_looked_for_has_no_error_estimate():
    entries = torch.zeros(40, dtype=torch.float64)
    entries[7] = 20.0
    found, _ = find(Matrix(entries.diag()), Known(EYE[:1].clone(), [5.0], [0.0]), most=1)
    assert not found.converged
    assert found.error == math.inf

import pytest
import torch

from unlearn.values.errors import UserError
from unlearn.values.schedule import ORDERS, Schedule


def flat(schedule, epoch=0):
    return torch.cat([batch.indices for batch in schedule.epoch(epoch)]).tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_each_epoch_visits_each_point_once(order):
    schedule = Schedule(10, 3, 2, seed=0, order=order)
    for epoch in range(2):
        assert sorted(flat(schedule, epoch)) == list(range(10))
    assert [len(batch.indices) for batch in schedule.epoch(0)] == [3, 3, 3, 1]


def test_orders():
    assert flat(Schedule(10, 3, 1, seed=0, order="as_stored")) == list(range(10))
    once = Schedule(50, 5, 2, seed=0, order="shuffle_once")
    assert flat(once, 0) == flat(once, 1) != list(range(50))
    each = Schedule(50, 5, 2, seed=0)
    assert flat(each, 0) != flat(each, 1)
    assert flat(each, 0) != flat(Schedule(50, 5, 2, seed=1), 0)


def test_equal_schedules_have_equal_fingerprints_and_others_do_not():
    base = Schedule(20, 4, 2, seed=0, forget=(3,))
    assert base.fingerprint() == Schedule(20, 4, 2, seed=0, forget=(3,)).fingerprint()
    others = [Schedule(20, 4, 2, seed=1, forget=(3,)), Schedule(20, 4, 2, seed=0), Schedule(20, 4, 1, 0, forget=(3,))]
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 4


@pytest.mark.parametrize("placement", ["in_place", "first"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("position", [0, 2, 3])  # 3: the short one
def test_a_forgotten_batch_stays_together_at_its_place(order, placement, position):
    forget = tuple(sorted(Schedule(11, 3, 1, 0, order).epoch(0)[position].indices.tolist()))
    schedule = Schedule(11, 3, 3, 0, order, placement, forget=forget, unit=position)
    for epoch in range(3):
        batches = list(schedule.epoch(epoch))
        place = 0 if placement == "first" else position
        assert tuple(batches[place].indices.tolist()) == forget
        assert not len(batches[place].kept)
        assert [i for i, batch in enumerate(batches) if batch.is_visit] == [place]
        assert sorted(flat(schedule, epoch)) == list(range(11))
    assert len(list(schedule.batches())) == schedule.total_steps == 12


def test_the_retained_points_keep_their_order_when_the_forgotten_batch_comes_first():
    schedule = Schedule(12, 3, 1, 0, "as_stored", "first", forget=(6, 7, 8), unit=2)
    assert flat(schedule) == [6, 7, 8, *range(6), 9, 10, 11]


def test_scattered_points_are_taken_out_of_their_batches():
    schedule = Schedule(9, 3, 1, 0, "as_stored", forget=(1, 8))
    assert [batch.kept.tolist() for batch in schedule.epoch(0)] == [[0, 2], [3, 4, 5], [6, 7]]
    first = Schedule(9, 3, 1, 0, "as_stored", "first", forget=(1, 8))
    assert [batch.indices.tolist() for batch in first.epoch(0)] == [[1, 8, 0], [2, 3, 4], [5, 6, 7]]


def test_short_batches_can_be_dropped_and_steps_capped():
    schedule = Schedule(10, 3, 2, 0, drop_last=True)
    assert schedule.total_steps == 6 == len(list(schedule.batches()))
    capped = Schedule(10, 3, 2, 0, max_steps=5)
    assert [batch.step for batch in capped.batches()] == list(range(5))


def test_starting_late_gives_the_same_batches():
    schedule = Schedule(10, 3, 3, 0)
    late = list(schedule.batches(start=6))
    for a, b in zip(list(schedule.batches())[6:], late, strict=True):
        assert a.step == b.step
        assert a.indices.equal(b.indices)


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(UserError, match="batch_size"):
        Schedule(10, batch_size, 1, 0)

"""What visits are kept as: each as it was, and then means of neighbours."""

import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.train.loop import removal_of, train
from unlearn.train.visits import KEPT, Group, Visits

UNIT = {"order": "as_stored", "forget": (3, 4, 5), "unit": 1}


def visited(plan):
    """The visits of a run, and what M's velocity was, or the removal, at each."""
    m, visits = learner(), Visits(plan)
    seen = {True: [], False: []}
    for step in train(plan, [m], []):
        if step.batch.is_visit:
            whole = not len(step.batch.kept)
            seen[whole].append(m.velocity.clone() if whole else removal_of(plan, step, m))
            visits.add(Group.of(plan, step, m))
    return visits, seen


def test_of_many_visits_neighbours_share_their_mean():
    visits, seen = visited(recipe(quadratic(), epochs=KEPT + 2, **UNIT))
    pushes, folded = seen[True], visits.all()
    assert [len(group.steps) for group in visits.groups.values()] == [2, 2] + [1] * (KEPT - 2)
    for pair in (0, 2):
        assert folded[pair].push is folded[pair + 1].push
        assert torch.allclose(folded[pair].push, (pushes[pair] + pushes[pair + 1]) / 2)
    assert all(visit.push.equal(push) for visit, push in zip(folded[4:], pushes[4:], strict=True))


def test_visits_take_no_more_memory_than_a_few():
    plan = recipe(quadratic(), epochs=100, **UNIT)
    visits, seen = visited(plan)
    steps = [step for group in visits.groups.values() for step in group.steps]
    assert steps == sorted(steps) == [visit.step for visit in visits.all()]
    assert len(steps) == 100
    assert len(visits.groups) == KEPT
    assert max(len(group.steps) for group in visits.groups.values()) < 40  # neighbours in time, not all of them
    assert visits.first == 1
    total = sum(visit.push for visit in visits.all())
    assert torch.allclose(total, sum(seen[True]))


def test_whole_batches_and_points_of_a_batch_are_folded_apart():
    # twenty points of which four are forgotten, three to a batch: a whole one and one of a batch, each epoch
    plan = recipe(quadratic(size=20), epochs=KEPT + 2, momentum=0.9, forget=(0, 5, 9, 14), placement="first")
    visits, seen = visited(plan)
    assert len(seen[True]) == len(seen[False]) == KEPT + 2
    folded = visits.all()
    assert [visit.whole for visit in folded] == [True, False] * (KEPT + 2)
    for whole in (True, False):
        of_kind = [visit for visit in folded if visit.whole == whole]
        assert torch.allclose(sum(visit.push for visit in of_kind), sum(seen[whole]))
        count = next(len(group.steps) for group in visits.groups.values() if group.whole == whole)
        assert count > 1
        assert torch.allclose(of_kind[0].push, sum(seen[whole][:count]) / count)
        assert (of_kind[0].jump is not None) == whole

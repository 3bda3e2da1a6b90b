"""Where the transport of removals stands."""

from dataclasses import replace

import torch

from tests.worlds import learner, quadratic, recipe
from unlearn.curvature.transport import Difference
from unlearn.train.carried import Carried
from unlearn.train.loop import train
from unlearn.train.visits import Group


def test_curvature_counts_from_the_step_after_the_first_visit():
    plan = recipe(quadratic(), epochs=1, order="as_stored", forget=(4, 10))  # of batches 1 and 3
    m, found = learner(), []
    carried = Carried.start(plan, m)
    for step in train(plan, [m], []):
        if step.batch.is_visit:
            carried.visits.add(Group.of(plan, step, m))
        found.append(carried.since)
    assert found == [0, 2, 2, 2]
    segment = carried.segment(4, m)
    assert [batch.step for batch in segment.batches(100)] == [2, 3]
    later = replace(carried.at(4, m), difference=Difference(torch.ones(5), None))
    assert later.since == 4  # what was there before has met every step

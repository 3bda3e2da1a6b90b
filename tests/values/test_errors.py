"""Errors cross from one process to another as they are: launchers and fused sweeps send them home."""

import pickle

import pytest

from unlearn.values.errors import Diverged, NotFinite


@pytest.mark.parametrize("error", [Diverged(7, 0.25), NotFinite()], ids=["diverged", "not_finite"])
def test_an_error_survives_the_way_between_processes(error):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))

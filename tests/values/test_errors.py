"""Errors cross from one process to another as they are: launchers and fused sweeps send them home."""

import pickle

import pytest

from unlearn.values.errors import Diverged, NotFinite, first_line, in_one_line


@pytest.mark.parametrize("error", [Diverged(7, 0.25), NotFinite()], ids=["diverged", "not_finite"])
def test_an_error_survives_the_way_between_processes(error):
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("text", "one", "first"),
    [("a\n  b\n", "a b", "a"), ("", "OSError", "OSError"), ("\n", "OSError", "OSError"), ("\n a\nb", "a b", "a")],
)
def test_an_error_is_said_in_one_line_and_by_its_type_where_it_says_nothing(text, one, first):
    assert (in_one_line(OSError(text)), first_line(OSError(text))) == (one, first)

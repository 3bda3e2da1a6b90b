"""Nested values by one name each."""

from unlearn.values.nested import flatten


def test_keys_are_joined_and_values_kept():
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}], "g": {}}
    assert flatten(nested, "/") == {"a/b": 1, "a/c/d": None, "e": [1, {"f": 2}]}

"""Nested settings and results as one level of names."""

from collections.abc import Collection, Mapping
from typing import Any


def without(values: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Leave keys out.

    Args:
        values: may be nested.
        names: keys, nested ones joined by dots; with a mapping goes all that it holds.
        prefix: put before every key.

    Returns:
        The rest, nested as it was.

    >>> without({"seed": 0, "penalty": {"name": "sd", "gamma": 5}}, ["seed", "penalty.gamma"])
    {'penalty': {'name': 'sd'}}
    """
    return {
        key: without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }


def flatten(values: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    """Join nested keys; empty mappings are left out.

    Args:
        values: may be nested.
        separator: between keys.
        prefix: put before every key.

    Returns:
        One level of keys.

    >>> flatten({"accuracy": {"original": {"test": 0.5, "forget": None}}, "points": [3, 4]}, ".")
    {'accuracy.original.test': 0.5, 'accuracy.original.forget': None, 'points': [3, 4]}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

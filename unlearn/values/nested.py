"""Nested settings and results as one level of names."""

from collections.abc import Mapping
from typing import Any


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

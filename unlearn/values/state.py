"""Mutable things as plain values, so that they can be written, and gone on with, bit for bit."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

_KIND = "__kind__"


def pack(value: Any, leave_out: tuple[str, ...] = ()) -> Any:
    """Turn dataclasses into dicts that name their class; tensors stay as they are, not copied.

    Args:
        value: dataclasses, dicts, lists, tuples, frozensets of strings, tensors and plain values, nested.
        leave_out: names of fields of dataclasses that are given again at `unpack`.

    Returns:
        The same in dicts, lists, tuples, tensors and plain values.
    """
    if is_dataclass(value) and not isinstance(value, type):
        inside = {f.name: pack(getattr(value, f.name), leave_out) for f in fields(value) if f.name not in leave_out}
        return {_KIND: type(value).__name__, **inside}
    if isinstance(value, frozenset):
        return {_KIND: "frozenset", "items": sorted(value)}
    if isinstance(value, Mapping):
        return {key: pack(item, leave_out) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(pack(item, leave_out) for item in value)
    return value


def unpack(state: Any, kinds: tuple[type, ...], **given: Any) -> Any:
    """Undo `pack`.

    Args:
        state: what it gave.
        kinds: the dataclasses that may stand in it.
        given: values of the fields that were left out, for every class that has them.

    Returns:
        The value.

    Raises:
        KeyError: the state names another class.
    """
    if isinstance(state, dict):
        inside = {key: unpack(item, kinds, **given) for key, item in state.items() if key != _KIND}
        if _KIND not in state:
            return inside
        if state[_KIND] == "frozenset":
            return frozenset(inside["items"])
        kind = {kind.__name__: kind for kind in kinds}[state[_KIND]]
        names = {f.name for f in fields(kind)}
        return kind(**inside, **{name: value for name, value in given.items() if name in names})
    if isinstance(state, list | tuple):
        return type(state)(unpack(item, kinds, **given) for item in state)
    return state


def snapshot(state: Any, before: Any = None) -> Any:
    """Copy a packed state, so that it stays while the things themselves go on.

    Args:
        state: of `pack`.
        before: an earlier copy; tensors that are still equal to those in it are shared with it, not copied.

    Returns:
        The copy.
    """
    if isinstance(state, Tensor):
        same = isinstance(before, Tensor) and before.dtype == state.dtype and torch.equal(before, state)
        return before if same else state.detach().clone()
    if isinstance(state, dict):
        earlier = before if isinstance(before, dict) else {}
        return {key: snapshot(item, earlier.get(key)) for key, item in state.items()}
    if isinstance(state, list | tuple):
        others = before if isinstance(before, list | tuple) else []
        return type(state)(snapshot(item, other) for item, other in zip_longest(state, others[: len(state)]))
    return state

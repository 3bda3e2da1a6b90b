"""Unpickle a file that nobody vouches for: arrays of numbers, lists, dicts and plain values, and nothing that runs.

A pickle names functions to call. Here every name but a few of numpy's is refused, and those few lead to small
functions of this file that check what they are given, never to numpy's own: its dtype, for one, believes the flags
that a pickle sets on it, and would take bytes for pointers to objects.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from unlearn.values.errors import UserError, in_one_line

# what unpickling raises on a truncated, foreign or wrongly assembled file
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _ElementType:
    """In place of `numpy.dtype`: integers and floats alone."""

    def __init__(self, code: str, *_align_and_copy: object) -> None:
        if not re.fullmatch("[iuf][1248]", code):
            raise UserError(f"holds an array of type {code!r}; only arrays of integers and floats are read")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.plain = self.plain.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is rebuilt from raw bytes, checked for length, before numpy sees it."""

    def __setstate__(self, state: tuple[Any, ...], /) -> None:
        _version, shape, element, is_fortran, raw = state
        rebuilt: Any = _from_bytes(raw, element, shape, "F" if is_fortran else "C").__reduce__()
        super().__setstate__(rebuilt[2])


def _from_bytes(raw: bytes | str, element: _ElementType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if not isinstance(element, _ElementType):
        raise pickle.UnpicklingError(f"an array of {element!r}, which is no type of numbers")
    # the byte strings of Python 2 arrive as text
    octets = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(octets, element.plain).reshape(shape, order=order)


def _empty(*_class_shape_and_code: object) -> np.ndarray:
    return np.empty(0, np.uint8).view(_Array)


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {codec!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy.core.numeric", "_frombuffer"): _from_bytes,  # how protocol 5 writes arrays
    ("numpy._core.numeric", "_frombuffer"): _from_bytes,
    ("numpy", "ndarray"): _empty,
    ("numpy", "dtype"): _ElementType,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes in protocol 2
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise UserError(f"asks for {f'{module}.{name}'!r}; only arrays, lists, dicts and plain values are read")
        # a pickle can set attributes on what it is given: give it something that is thrown away
        return lambda *args: admitted(*args)

    def persistent_load(self, pid: object) -> object:
        raise UserError("asks for an object outside the file; only arrays, lists, dicts and plain values are read")


def loads(data: bytes) -> object:
    """Read a pickle without running anything that it names; a hostile one can still ask for much memory.

    Byte strings that Python 2 wrote come back as text, each byte one character (latin1), as torchvision reads them.

    Args:
        data: the whole pickle.

    Returns:
        Numbers, strings, bytes, None, arrays of integers or floats, and lists, tuples, sets and dicts of these.

    Raises:
        UserError: the pickle names anything else, or is truncated, or is no pickle.

    >>> loads(pickle.dumps({"data": [1, 2]}))
    {'data': [1, 2]}
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _BROKEN as error:
        reason = in_one_line(error)
        raise UserError(f"is not a complete pickle of arrays, lists, dicts and plain values ({reason})") from error

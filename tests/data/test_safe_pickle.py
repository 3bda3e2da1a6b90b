import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from unlearn.data import safe_pickle
from unlearn.values.errors import UserError

ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
    np.arange(6, dtype=">i4").reshape(1, 2, 3),
    np.array([0.5, -1.25]),
    np.array(7, dtype=np.int64),
    np.zeros((1, 256), np.uint8),
]


class Reduced:
    """Pickled as the call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def call(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def array_with_dtype(dtype: bytes, raw: bytes) -> bytes:
    """The opcodes of a (1,) array, with the opcodes of its element type and of its content given."""
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
    return head + dtype + b"\x89" + raw + b"tb."


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_come_back_as_they_were(array, protocol):
    entry = {"data": array, "labels": [1, 2], "batch_label": "training", b"raw": b"\x00\xff", "none": None}
    packed = pickle.dumps(entry, protocol)
    back = safe_pickle.loads(packed)
    assert isinstance(back["data"], np.ndarray)
    assert back["data"].dtype == pickle.loads(packed)["data"].dtype  # numpy turns some to the machine's byte order
    assert np.array_equal(back["data"], array)
    assert {k: v for k, v in back.items() if k != "data"} == {k: v for k, v in entry.items() if k != "data"}


def test_reads_what_python_2_wrote():
    # as in the published files: byte strings throughout, numpy's old module name, integers for align and copy
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = safe_pickle.loads(array_with_dtype(dtype, b"U\x01\xfe"))
    assert array.dtype == np.uint8
    assert array.tolist() == [254]
    assert safe_pickle.loads(b"\x80\x02}U\x06labels]K\x03as.") == {"labels": [3]}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.lib.npyio", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("_codecs", "decode"),
        ("torch", "load"),
    ],
)
def test_refuses_every_other_name_and_says_which(module, name, tmp_path):
    for data in (call(module, name, str(tmp_path)), f"\x80\x02c{module}\n{name}\n.".encode("latin1")):
        with pytest.raises(UserError, match=f"{module}.{name}"):
            safe_pickle.loads(data)


@pytest.mark.parametrize("protocol", range(6))
def test_runs_nothing(protocol, tmp_path):
    mark = tmp_path / "mark"
    for function, *args in (
        (os.system, f"touch {mark}"),
        (eval, f"open({str(mark)!r}, 'w')"),
        (os.mkdir, str(mark)),
        (np.save, str(mark), 0),
    ):
        payload = pickle.dumps([1, {"data": Reduced(function, *args)}], protocol)
        with pytest.raises(UserError, match="asks for"):
            safe_pickle.loads(payload)
        assert list(tmp_path.iterdir()) == []
        pickle.loads(payload)  # the payload is a live one
        assert len(list(tmp_path.iterdir())) == 1
        for made in tmp_path.iterdir():
            made.rmdir() if made.is_dir() else made.unlink()


@pytest.mark.parametrize("value", [OrderedDict(a=1), 1j, np.float64(1.0), range(3)], ids=lambda v: type(v).__name__)
def test_refuses_other_types(value):
    with pytest.raises(UserError, match="asks for"):
        safe_pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [np.array([None, 1]), np.array(["a"]), np.zeros(1, [("a", "u1")]), np.zeros(1, "M8[s]")],
    ids=lambda a: a.dtype.str,
)
def test_refuses_arrays_of_anything_but_numbers(array, protocol):
    with pytest.raises(UserError, match="holds an array of type"):
        safe_pickle.loads(pickle.dumps(array, protocol))


def test_an_array_of_objects_cannot_be_passed_off_as_bytes():
    # object elements whose flags say "plain bytes": numpy's own dtype would believe them and follow the pointer
    flagged = b"cnumpy\ndtype\nU\x02%sK\x00K\x01\x87R(K\x03U\x01|NNNJ\x08\x00\x00\x00J\x08\x00\x00\x00K\x00tb"
    pointer = b"U\x08" + struct.pack("<q", id(object))
    for code in (b"O8", b"V8"):
        with pytest.raises(UserError, match="holds an array of type"):
            safe_pickle.loads(array_with_dtype(flagged % code, pointer))


def test_content_that_does_not_fill_the_array_is_refused():
    dtype = b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    with pytest.raises(UserError, match="not a complete pickle"):
        safe_pickle.loads(array_with_dtype(dtype, b"U\x01\xfe"))


@pytest.mark.parametrize("name", ["numpy\ndtype", "numpy\nndarray", "_codecs\nencode"])
def test_what_a_pickle_sets_on_a_function_is_thrown_away(name):
    def attributes():
        return [(dict(vars(f)), getattr(f, "__defaults__", None)) for f in safe_pickle._ADMITTED.values()]

    before = attributes()
    state = {"__setstate__": 1, "__call__": 2, "__defaults__": (3,), "plain": 4}
    for poison in (state, (None, state)):
        data = b"c" + name.encode() + b"\n" + pickle.dumps(poison, 2)[2:-1] + b"b."
        try:
            safe_pickle.loads(data)
        except UserError as error:
            assert "not a complete pickle" in str(error)  # noqa: PT017 - refusing is as good as forgetting
        assert attributes() == before
        assert safe_pickle.loads(pickle.dumps(np.arange(3), 2)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("data", [b"P1\n.", b"\x80\x02K\x01Q."], ids=["text", "binary"])
def test_refuses_persistent_ids(data):
    with pytest.raises(UserError, match="outside the file"):
        safe_pickle.loads(data)


def test_a_foreign_or_empty_file_is_refused():
    packed = io.BytesIO()
    np.save(packed, np.arange(3))
    for data in (b"", b"\n", b"hello\nworld", packed.getvalue(), b"\x1f\x8b\x08\x00", b"\x80\x09.", b"\x80\x02q\x00."):
        with pytest.raises(UserError, match="not a complete pickle") as caught:
            safe_pickle.loads(data)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_damaged_file_gives_a_value_or_a_user_error(protocol):
    whole = pickle.dumps({"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [0, 300]}, protocol)
    for length in range(len(whole)):
        with pytest.raises(UserError):
            safe_pickle.loads(whole[:length])
    refused = 0
    for place in range(len(whole)):
        for byte in (0x00, 0x28, 0xFF):
            try:
                safe_pickle.loads(whole[:place] + bytes([byte]) + whole[place + 1 :])
            except UserError:
                refused += 1
    assert refused > len(whole)

import numpy as np
import pytest
import torch

from unlearn.data.forget import BatchForget, ClassForget, Context, FileForget, ForgetSet, NoForget, PointsForget
from unlearn.values.errors import UserError
from unlearn.values.schedule import Schedule

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])


def context(order="as_stored", drop_last=False, seed=0):
    return Context(LABELS, 3, order, drop_last, seed)


def test_the_control_forgets_nothing():
    assert NoForget("none").select(context()) == ForgetSet()


@pytest.mark.parametrize(
    ("position", "indices", "unit"),
    [("first", (0, 1, 2), 0), ("1", (3, 4, 5), 1), ("last", (9,), 3)],
)
def test_batches(position, indices, unit):
    assert BatchForget("batch", position).select(context()) == ForgetSet(indices, unit)


def test_the_last_batch_is_a_whole_one_where_short_ones_are_dropped():
    assert BatchForget("batch", "last").select(context(drop_last=True)) == ForgetSet((6, 7, 8), 2)


def test_a_random_batch_is_seeded_and_is_a_batch_of_the_schedule():
    found = {BatchForget("batch", "random").select(context("shuffle_once", seed=seed)) for seed in range(20)}
    assert len({forget.unit for forget in found}) == 4
    forget = BatchForget("batch", "random").select(context("shuffle_once"))
    assert forget == BatchForget("batch", "random").select(context("shuffle_once"))
    batches = list(Schedule(10, 3, 1, 0, "shuffle_once").epoch(0))
    assert tuple(sorted(batches[forget.unit].indices.tolist())) == forget.indices


@pytest.mark.parametrize("position", ["4", "-1", "third", "1.5"])
def test_a_batch_that_is_not_there(position):
    with pytest.raises(UserError, match=r"forget.position=.*0 to 3"):
        BatchForget("batch", position).select(context())


def test_a_batch_of_all_points_leaves_nothing_to_retrain_on():
    with pytest.raises(UserError, match="forget=batch: selects all 10 training points"):
        BatchForget("batch", "first").select(Context(LABELS, 10, "as_stored", False, 0))


def test_points():
    assert PointsForget("points", 0, (7, 2)).select(context()) == ForgetSet((2, 7))
    drawn = [PointsForget("points", 4, None).select(context(seed=seed)).indices for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


def test_classes():
    assert ClassForget("class", 1, 1.0).select(context()) == ForgetSet((1, 4, 7))
    part = ClassForget("class", 2, 0.5).select(context()).indices
    assert len(part) == 2
    assert set(part) < {2, 5, 8, 9}
    assert len(ClassForget("class", 2, 1e-9).select(context()).indices) == 1


def test_a_share_takes_no_point_too_many():
    labels = torch.zeros(200, dtype=torch.int64)
    labels[100:] = 1
    for percent in range(1, 100):
        part = ClassForget("class", 0, percent / 100).select(Context(labels, 10, "as_stored", False, 0)).indices
        assert len(part) == percent


def test_the_only_class_cannot_be_forgotten():
    with pytest.raises(UserError, match="selects all 4"):
        ClassForget("class", 0, 1.0).select(Context(torch.zeros(4, dtype=torch.int64), 2, "as_stored", False, 0))


def test_files(tmp_path):
    (tmp_path / "points.txt").write_text("7 2\n4\n")
    np.save(tmp_path / "points.npy", np.array([7, 2, 4]))
    for name in ("points.txt", "points.npy"):
        assert FileForget("file", str(tmp_path / name)).select(context()) == ForgetSet((2, 4, 7))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"1 two 3", "not a list of integers"),
        ("a.txt", b"", "selects no point"),
        ("a.txt", b"1 1", "1 is listed twice"),
        ("a.txt", b"-1", "-1 is out of range"),
        ("a.txt", b"\xff\xfe", "not a list of integers"),
        ("a.txt", b"99999999999999999999", "not a list of integers"),
        ("a.npy", b"not numpy", "not a list of integers"),
        ("a.npy", b"", "not a list of integers"),
        ("a.npy", b"PK\x03\x04 cut short", "not a list of integers"),
    ],
)
def test_files_that_make_no_sense(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        FileForget("file", str(tmp_path / name)).select(context())
    assert "\n" not in str(caught.value)


def test_an_archive_of_arrays_is_no_list(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.array([1]))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"a\.npy: an archive of arrays"):
        FileForget("file", str(tmp_path / "a.npy")).select(context())


@pytest.mark.parametrize("array", [np.array([0.5]), np.array([{"a": 1}], dtype=object)])
def test_arrays_that_hold_no_integers(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        FileForget("file", str(tmp_path / "a.npy")).select(context())


def test_a_file_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "points.txt").write_text("3")
    assert FileForget("file", "~/points.txt").select(context()) == ForgetSet((3,))

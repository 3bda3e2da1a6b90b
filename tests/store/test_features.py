import json
import logging

import numpy as np
import pytest

from unlearn.store import features as store
from unlearn.store.features import Work, features
from unlearn.values.errors import UserError

ROWS, WIDTH = 103, 4
ORDER = np.random.default_rng(0).permutation(ROWS)
TRUTH = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
KEY = {"encoder": "e", "texts": "t"}


class Counter:
    """Computes, counts, and is killed at a given text."""

    def __init__(self, die_at=None):
        self.computed, self.opened, self.die_at, self.reported = [], 0, die_at, []

    def work(self):
        self.opened += 1
        return Work(WIDTH, ORDER, 2, self.compute)

    def compute(self, rows):
        if self.die_at is not None and len(self.computed) >= self.die_at:
            raise KeyboardInterrupt
        self.computed += rows.tolist()
        return TRUTH[rows]

    def get(self, folder, key=KEY):
        return features(folder, key, self.work, self.reported.append)


@pytest.mark.parametrize("kept", [True, False])
def test_every_text_is_computed_once_and_stands_in_its_row(tmp_path, kept):
    counter = Counter()
    found = counter.get(tmp_path / "f" if kept else None)
    np.testing.assert_array_equal(found, TRUTH)
    assert sorted(counter.computed) == list(range(ROWS))
    assert counter.reported[-1] == ROWS
    assert isinstance(found, np.memmap) == kept
    assert any(tmp_path.iterdir()) == kept


def test_the_second_time_nothing_is_opened(tmp_path):
    Counter().get(tmp_path)
    second = Counter()
    np.testing.assert_array_equal(second.get(tmp_path), TRUTH)
    assert second.opened == 0


def test_other_ingredients_make_another_entry(tmp_path):
    Counter().get(tmp_path)
    other = Counter()
    other.get(tmp_path, {**KEY, "texts": "u"})
    assert len(other.computed) == ROWS


def test_a_killed_run_goes_on_where_it_was_saved(tmp_path):
    first = Counter(die_at=70)
    with pytest.raises(KeyboardInterrupt):
        first.get(tmp_path)
    second = Counter()
    np.testing.assert_array_equal(second.get(tmp_path), TRUTH)
    saved = 2 * store.SAVE_EVERY * (70 // (2 * store.SAVE_EVERY))
    assert second.computed == ORDER[saved:].tolist()
    assert second.reported[0] == saved
    entry = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert {path.name for path in entry.iterdir()} == {store.ARRAY, store.RECORD}


@pytest.mark.parametrize("damage", ["progress", "array", "no array"])
def test_what_cannot_be_resumed_starts_again(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        Counter(die_at=70).get(tmp_path)
    entry = next(path for path in tmp_path.iterdir() if path.is_dir())
    if damage == "progress":
        (entry / store.PROGRESS).write_text("{")
    elif damage == "array":
        (entry / store.ARRAY).write_bytes(b"nothing")
    else:
        (entry / store.ARRAY).unlink()
    second = Counter()
    np.testing.assert_array_equal(second.get(tmp_path), TRUTH)
    assert len(second.computed) == ROWS


@pytest.mark.parametrize("damage", ["flip", "cut", "entry", "gone"])
def test_a_damaged_entry_is_reported_and_computed_anew(tmp_path, caplog, damage):
    Counter().get(tmp_path)
    entry = next(path for path in tmp_path.iterdir() if path.is_dir())
    array = entry / store.ARRAY
    whole = array.read_bytes()
    if damage == "flip":
        array.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "cut":
        array.write_bytes(whole[:-40])
    elif damage == "gone":
        array.unlink()
    else:
        (entry / store.RECORD).write_text("[]")
    second = Counter()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(second.get(tmp_path), TRUTH)
    assert len(second.computed) == ROWS
    assert "damaged" in caplog.text
    assert str(entry) in caplog.text


def test_writing_to_features_reaches_no_file(tmp_path):
    found = Counter().get(tmp_path)
    found[0, 0] = 99
    second = Counter()
    np.testing.assert_array_equal(second.get(tmp_path), TRUTH)
    assert second.opened == 0


def test_an_entry_says_what_it_is_made_of(tmp_path):
    Counter().get(tmp_path)
    entry = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert json.loads((entry / store.RECORD).read_text())["made_of"] == KEY


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^store\.root=.*file: cannot be written"):
        features(tmp_path / "file" / "features", {"texts": "few"}, lambda: None, lambda done: None)

from dataclasses import replace

import pandas as pd
import pytest

from unlearn.data import rotten_tomatoes
from unlearn.data.rotten_tomatoes import RottenTomatoes, embedded
from unlearn.values.errors import UserError

ROWS = [
    ("fresh", "lovely", "a"),
    ("rotten", "dull", "a"),
    ("plot", "a man meets a dog", "a"),
    ("fresh", "lovely", "b"),  # repeated
    ("rotten", None, "b"),
    *((("rotten", "fresh")[i % 2], f"snippet {i}", f"film {i // 4}") for i in range(40)),
]


def write(folder, rows=ROWS, name="films.csv"):
    path = folder / name
    pd.DataFrame(rows, columns=["category", "text", "movie_name"]).to_csv(path, index=False)
    return RottenTomatoes("rotten_tomatoes", str(path), 0.25, 0, None)


def complaint(dataset):
    with pytest.raises(UserError) as caught:
        dataset.load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["films.csv", "films.csv.bz2"])
def test_plots_nulls_and_repetitions_are_left_out(tmp_path, name):
    data = write(tmp_path, name=name).load(0)
    texts = [*data.train.texts, *data.test.texts]
    assert sorted(texts) == sorted(["lovely", "dull", *(f"snippet {i}" for i in range(40))])
    truth = {"lovely": 1, "dull": 0, **{f"snippet {i}": i % 2 for i in range(40)}}
    for part in (data.train, data.test):
        assert [truth[text] for text in part.texts] == part.labels.tolist()


def test_no_film_is_on_both_sides(tmp_path):
    data = write(tmp_path).load(0)
    film = {text: name for _, text, name in ROWS if text}
    assert not {film[t] for t in data.train.texts} & {film[t] for t in data.test.texts}
    assert 0.25 * 42 <= len(data.test) <= 0.25 * 42 + 3  # a film has four snippets at most


def test_the_split_depends_on_its_own_seed_alone(tmp_path):
    dataset = write(tmp_path)
    assert dataset.load(0).test.texts == dataset.load(1).test.texts
    assert replace(dataset, split_seed=1).load(0).test.texts != dataset.load(0).test.texts
    some = replace(dataset, train_size=5)
    assert len(some.load(0).train) == 5
    assert some.load(0).test.texts == dataset.load(0).test.texts
    assert some.load(0).train.texts != some.load(1).train.texts


def test_what_is_wrong_is_named(tmp_path):
    assert "row 0 is 'good'; categories are" in complaint(write(tmp_path, [("good", "x", "a"), *ROWS]))
    assert "no text has the label 0" in complaint(write(tmp_path, [row for row in ROWS if row[0] == "fresh"]))
    assert "cannot be read" in complaint(replace(write(tmp_path), file=str(tmp_path / "none.csv")))
    (tmp_path / "other.csv").write_text("text\nx\n")
    assert "has no column 'category'" in complaint(replace(write(tmp_path), file=str(tmp_path / "other.csv")))
    assert "train_size=99: must lie between" in complaint(replace(write(tmp_path), train_size=99))
    with pytest.raises(UserError, match=r"dataset\.test_share=1\.0"):
        replace(write(tmp_path), test_share=1.0)


def test_without_the_package_the_user_is_told(monkeypatch):
    monkeypatch.setattr(rotten_tomatoes, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"make setup, or give dataset\.file"):
        embedded()


def test_the_embedded_snippets():
    data = RottenTomatoes("rotten_tomatoes", None, 0.2, 0, None).load(0)
    assert len(data.train) + len(data.test) == 12_752  # 12,808 less 56 repeated
    assert 0.2 <= len(data.test) / 12_752 < 0.21
    assert len(set(data.train.texts) | set(data.test.texts)) == 12_752
    assert 0.5 < data.train.labels.float().mean() < 0.65

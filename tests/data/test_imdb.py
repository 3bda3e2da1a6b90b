import io
import logging
import tarfile
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pandas as pd
import pytest

from unlearn.data.imdb import ARCHIVE, FOLDER, Imdb
from unlearn.values.errors import UserError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "imdb"
# as Stanford numbers them: 10 comes after 2, whatever the file system says
REVIEWS = {
    "train/neg/2_1.txt": b"a bad film",
    "train/neg/10_4.txt": b"dull",
    "train/pos/0_9.txt": b"great",
    "test/neg/0_2.txt": b"awful",
    "test/pos/0_10.txt": b"lovely",
    "test/pos/1_7.txt": b"not bad",
    "train/unsup/0_0.txt": b"no label",
    "train/labeledBow.feat": b"0 1:2",
    "train/neg/urls.csv": b"not a review",
}
TRAIN, TEST = (("a bad film", "dull", "great"), [0, 0, 1]), (("awful", "lovely", "not bad"), [0, 1, 1])


def write_folder(root, files=REVIEWS):
    for name, content in files.items():
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_archive(root, files=REVIEWS, name=ARCHIVE):
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / name, "w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return root


def write_tables(root, suffix, train=TRAIN, test=TEST):
    root.mkdir(parents=True, exist_ok=True)
    for name, (texts, labels) in (("train", train), ("test", test)):
        table = pd.DataFrame({"text": texts, "label": labels})
        if suffix == "parquet":
            table.to_parquet(root / f"{name}.parquet", index=False)
        else:
            table.to_csv(root / f"{name}.csv", index=False)
    return root


def imdb(root):
    return Imdb("imdb", str(root), None, None)


def assert_is_whole(data):
    for part, (texts, labels) in ((data.train, TRAIN), (data.test, TEST)):
        assert part.texts == texts
        assert part.labels.tolist() == labels
    assert data.num_classes == 2


def complaint(dataset):
    with pytest.raises(UserError) as caught:
        dataset.load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_layout_gives_the_same_reviews(tmp_path):
    assert_is_whole(imdb(write_folder(tmp_path / "folder")).load(0))
    assert_is_whole(imdb(tmp_path / "folder" / FOLDER).load(0))
    assert_is_whole(imdb(write_archive(tmp_path / "archive")).load(0))
    assert_is_whole(imdb(tmp_path / "archive" / ARCHIVE).load(0))
    for suffix in ("parquet", "csv"):
        assert_is_whole(imdb(write_tables(tmp_path / suffix, suffix)).load(0))


def test_the_folder_comes_before_the_archive_and_both_before_tables(tmp_path):
    other = (("other",) * 2, [0, 1])
    write_tables(tmp_path, "csv", other, other)
    write_tables(tmp_path, "parquet", (("pq",) * 2, [0, 1]), other)
    assert imdb(tmp_path).load(0).train.texts == ("pq", "pq")
    write_archive(tmp_path)
    assert_is_whole(imdb(tmp_path).load(0))
    write_folder(tmp_path, {**REVIEWS, "train/pos/0_9.txt": b"from the folder"})
    assert "from the folder" in imdb(tmp_path).load(0).train.texts


def test_members_of_the_archive_reach_no_file(tmp_path):
    evil = {"train/neg/0_1.txt": b"a", "train/pos/0_9.txt": b"b", "test/neg/0_1.txt": b"c", "test/pos/0_9.txt": b"d"}
    write_archive(tmp_path, {**evil, "../../evil.txt": b"x", "train/neg/../../evil_1.txt": b"y"})
    before = sorted(tmp_path.rglob("*"))
    assert imdb(tmp_path).load(0).train.texts == ("a", "b")
    assert sorted(tmp_path.rglob("*")) == before


def test_bytes_that_are_not_utf8_are_replaced_and_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        data = imdb(write_folder(tmp_path / "folder", {**REVIEWS, "train/pos/0_9.txt": b"caf\xe9 noir"})).load(0)
    assert data.train.texts[2] == "caf\ufffd noir"
    assert "1 reviews of train are not UTF-8" in caplog.text
    write_tables(tmp_path / "csv", "csv")
    (tmp_path / "csv" / "train.csv").write_bytes(b"text,label\nbad,0\ncaf\xe9 noir,1\n")
    with caplog.at_level(logging.WARNING):
        assert imdb(tmp_path / "csv").load(0).train.texts[1] == "caf\ufffd noir"
    assert "1 rows hold U+FFFD" in caplog.text


def test_an_empty_review_and_the_word_na_stay(tmp_path):
    data = imdb(write_folder(tmp_path / "folder", {**REVIEWS, "train/neg/2_1.txt": b""})).load(0)
    assert data.train.texts == ("", "dull", "great")
    part = (("", "NA", "null"), [0, 1, 1])
    for suffix in ("csv", "parquet"):
        assert imdb(write_tables(tmp_path / suffix, suffix, part)).load(0).train.texts == part[0]


def test_a_long_review_is_read_whole(tmp_path):
    long = "word " * 50_000
    part = ((long, "x"), [0, 1])
    for suffix in ("csv", "parquet"):
        assert imdb(write_tables(tmp_path / suffix, suffix, part)).load(0).train.texts[0] == long
    files = {**REVIEWS, "train/neg/2_1.txt": long.encode()}
    assert imdb(write_folder(tmp_path / "f", files)).load(0).train.texts[0] == long


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_are_checked(tmp_path, suffix):
    bad = write_tables(tmp_path / "range", suffix, (("a", "b", "c"), [0, 1, 2]))
    path = tmp_path / "range" / f"train.{suffix}"
    assert complaint(imdb(bad)) == f"{path}: row 2 has the label 2; labels must lie between 0 and 1"
    one = write_tables(tmp_path / "one", suffix, TRAIN, (("a", "b"), [1, 1]))
    assert complaint(imdb(one)).startswith(f"{tmp_path / 'one' / 'test'}.{suffix}: no text has the label 0")
    word = write_tables(tmp_path / "word", suffix, (("a", "b"), ["pos", "neg"]))
    assert "row 0 has the label 'pos'; labels must be 0 (negative) or 1 (positive)" in complaint(imdb(word))


def test_a_missing_class_is_named(tmp_path):
    write_folder(tmp_path, {name: text for name, text in REVIEWS.items() if "test/pos" not in name})
    assert (
        complaint(imdb(tmp_path)) == f"{tmp_path / FOLDER / 'test' / 'pos'}: cannot be read (No such file or directory)"
    )
    (tmp_path / FOLDER / "test" / "pos").mkdir()
    assert "aclImdb/test: no text has the label 1" in complaint(imdb(tmp_path))


def test_damaged_files_are_named(tmp_path):
    whole = write_archive(tmp_path / "a") / ARCHIVE
    whole.write_bytes(whole.read_bytes()[:200])
    assert complaint(imdb(tmp_path / "a")).startswith(f"{whole}: is not a complete tar.gz archive")
    write_tables(tmp_path / "p", "parquet")
    (tmp_path / "p" / "train.parquet").write_bytes(b"PAR1 nothing")
    assert complaint(imdb(tmp_path / "p")).startswith(f"{tmp_path / 'p' / 'train.parquet'}: cannot be read as parquet")
    write_tables(tmp_path / "c", "csv")
    (tmp_path / "c" / "test.csv").unlink()
    assert complaint(imdb(tmp_path / "c")).startswith(f"{tmp_path / 'c' / 'test.csv'}: cannot be read")
    (tmp_path / "c" / "test.csv").write_text("review,sentiment\nx,1\n")
    assert "has no column 'text'; it has review, sentiment" in complaint(imdb(tmp_path / "c"))
    table = pd.DataFrame({"text": ["a", None], "label": [0, 1]})
    table.to_parquet(tmp_path / "p" / "train.parquet")
    assert "row 1 lacks a value" in complaint(imdb(tmp_path / "p"))


def test_hugging_face_is_asked_last(tmp_path, monkeypatch):
    asked = []
    hub = {"train": {"text": TRAIN[0], "label": TRAIN[1]}, "test": {"text": TEST[0], "label": TEST[1]}}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: hub)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert_is_whole(imdb(tmp_path).load(0))
    assert asked == ["stanfordnlp/imdb"]
    asked.clear()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert_is_whole(imdb(tmp_path).load(0))
    assert asked == []


def test_without_anything_the_user_is_told_what_was_looked_for(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.setattr(datasets, "load_dataset", no_network)
    text = complaint(imdb(tmp_path))
    for part in (str(tmp_path), FOLDER, ARCHIVE, ".parquet", ".csv", "stanfordnlp/imdb", "no network at all"):
        assert part in text


def test_sizes_take_seeded_subsets(tmp_path):
    texts, labels = tuple(f"review {i}" for i in range(40)), [i % 2 for i in range(40)]
    whole = imdb(write_tables(tmp_path, "csv", (texts, labels), (texts, labels)))
    some = replace(whole, train_size=10, test_size=6).load(0)
    assert (len(some.train), len(some.test)) == (10, 6)
    assert [texts.index(t) for t in some.train.texts] == sorted(texts.index(t) for t in some.train.texts)
    assert [labels[texts.index(t)] for t in some.train.texts] == some.train.labels.tolist()
    assert some.train.texts != replace(whole, train_size=10).load(1).train.texts
    assert "dataset.test_size=41: must lie between 1 and the 40" in complaint(replace(whole, test_size=41))
    with pytest.raises(UserError, match=r"dataset\.train_size=0"):
        replace(whole, train_size=0)


@pytest.mark.real
def test_the_small_real_reviews():
    if not REAL.is_dir():
        pytest.skip("the small real data sets are not here")
    data = imdb(REAL).load(0)
    assert (len(data.train), len(data.test)) == (1600, 400)
    assert 0.4 < data.train.labels.float().mean() < 0.6
    # sentiment is in the words
    good = [
        label for text, label in zip(data.train.texts, data.train.labels.tolist(), strict=True) if "wonderful" in text
    ]
    bad = [label for text, label in zip(data.train.texts, data.train.labels.tolist(), strict=True) if "waste" in text]
    assert sum(good) / len(good) > 0.6
    assert sum(bad) / len(bad) < 0.3

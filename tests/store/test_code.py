"""What code made an entry is part of its key."""

from importlib.metadata import version

import pytest

from unlearn.store.code import code_version, source_of
from unlearn.train.loop import Recipe


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "loop.py").write_text("a = 1\n")
    (tmp_path / "penalties.py").write_text("b = 2\n")
    return tmp_path


@pytest.mark.parametrize("changed", ["train/loop.py", "penalties.py", "train/new.py"])
def test_a_changed_source_is_another_version(root, changed):
    parts = ("train", "penalties.py")
    before = code_version.__wrapped__(parts, root)
    (root / changed).write_text("c = 3\n")
    assert code_version.__wrapped__(parts, root) != before


def test_another_source_is_the_same_version(root):
    before = code_version.__wrapped__(("train",), root)
    (root / "penalties.py").write_text("c = 3\n")
    assert code_version.__wrapped__(("train",), root) == before


@pytest.mark.parametrize("library", ["numpy", "torch", "torchvision", "transformers", "tokenizers"])
def test_a_version_names_the_libraries(root, library):
    assert f"{library} {version(library)}" in code_version(("train",), root)


def test_a_class_of_the_users_own_is_known_by_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "not_of_this_package.py"
    file.write_text("class Mine:\n    a = 1\n")
    from not_of_this_package import Mine

    before = source_of(Mine)
    file.write_text("class Mine:\n    a = 2\n")
    assert source_of(Mine) == before  # the class that is loaded is still that of the old file
    assert source_of.__wrapped__(Mine) != before
    file.unlink()
    assert source_of.__wrapped__(Mine) != source_of.__wrapped__(Mine)  # never taken for the same
    assert source_of(Recipe) is None

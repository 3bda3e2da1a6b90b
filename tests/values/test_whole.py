"""Files appear whole or not at all."""

import pytest

from unlearn.values.whole import whole


def test_a_file_is_there_at_the_end_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with whole(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [each.name for each in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("shared", [False, True])
def test_what_fails_leaves_what_was_there(tmp_path, shared):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def fail():
        with whole(path, shared=shared) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["b.txt"]


def test_two_processes_write_at_places_of_their_own(tmp_path, monkeypatch):
    places = []
    for number in (1, 2):
        monkeypatch.setattr("unlearn.values.whole.os.getpid", lambda number=number: number)
        with whole(tmp_path / "b.txt", shared=True) as part:
            part.write_text(str(number))
            places.append(part)
    assert len(set(places)) == 2

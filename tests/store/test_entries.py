"""The store: whole entries or none, one worker at a time, damage found."""

import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

from unlearn.pipeline.run import run
from unlearn.store.__main__ import main
from unlearn.store.alone import Alone, clear
from unlearn.store.entries import Store, key_of
from unlearn.store.features import Work
from unlearn.store.features import features as kept_features
from unlearn.store.files import Damaged, from_bytes, lock_of, to_bytes
from unlearn.store.partial import read_state, write_state
from unlearn.values.errors import UserError

CPU = torch.device("cpu")
INPUTS = {"seed": 0, "nested": {"lr": 0.1}}
STATE = {"weights": torch.arange(3.0), "rows": [{"v": 0.1, "none": None}], "pair": (1, 2.5), "name": "x"}


def get(store, compute=lambda slot: STATE, user="run"):
    return store.get("pair", INPUTS, compute, CPU, user)


def fail(slot):
    raise AssertionError("computed again")


def test_what_was_written_is_read(tmp_path):
    store = Store(tmp_path)
    assert get(store)[1] is False
    state, found = get(store, fail)
    assert found
    assert state["weights"].equal(STATE["weights"])
    assert {**state, "weights": 0} == {**STATE, "weights": 0}
    record = json.loads((store.folder("pair", key_of(INPUTS)) / "entry.json").read_text())
    assert record["inputs"] == INPUTS


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_for_want_of_memory_nothing_is_thrown_away(tmp_path, monkeypatch, error):
    store = Store(tmp_path)
    get(store)
    write_state(tmp_path / "state", STATE)

    def full(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", full)
        with pytest.raises(type(error)):
            get(store, fail)
        with pytest.raises(type(error)):
            read_state(tmp_path / "state", CPU)
    assert get(store, fail)[1]
    assert read_state(tmp_path / "state", CPU)["name"] == "x"


def test_an_entry_that_the_disk_does_not_give_stays(tmp_path, monkeypatch):
    store = Store(tmp_path)
    get(store)

    def broken(self):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.read_bytes", broken)
        with pytest.raises(UserError, match="cannot be read \\(Permission denied\\)"):
            get(store, fail)
    assert get(store, fail)[1]


def test_the_key_depends_on_the_values_alone():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of({"a": value}) for value in (0, 1, 1.5, "1", None, True)}) == 6


@pytest.mark.parametrize("file", ["state.pt", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_found(tmp_path, file, damage, caplog, capsys):
    store = Store(tmp_path)
    get(store)
    path = store.folder("pair", key_of(INPUTS)) / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if damage == "cut" else content.replace(content[20:24], b"\0\1\2\3"))
    assert main(["verify", "--root", str(tmp_path)]) == 1
    assert "damaged" in capsys.readouterr().out
    calls = []
    assert get(store, lambda slot: calls.append(1) or STATE)[1] is False
    assert calls == [1]
    assert "damaged" in caplog.text
    assert get(store, fail)[1]
    assert main(["verify", "--root", str(tmp_path)]) == 0


def test_nothing_is_unpickled(tmp_path):
    import pickle

    with pytest.raises(Damaged):
        from_bytes(pickle.dumps({"a": 1}), CPU)
    with pytest.raises(Damaged):
        from_bytes(to_bytes({"a": threading.Lock}), CPU)


def test_a_failed_computation_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def compute(slot):
        raise UserError("no")

    with pytest.raises(UserError):
        get(store, compute)
    assert not store.folder("pair", key_of(INPUTS)).exists()
    assert get(store)[1] is False


def test_what_a_dead_worker_left_is_cleaned_up(tmp_path):
    store = Store(tmp_path)
    folder = store.folder("pair", key_of(INPUTS))
    (folder.parent / f".{folder.name}.part").mkdir(parents=True)
    (folder.parent / f".{folder.name}.part" / "state.pt").write_bytes(b"half")
    get(store)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_that_want_the_same_compute_it_once(tmp_path):
    store, computed, results = Store(tmp_path), [], []
    inside = threading.Barrier(2, timeout=30)

    def slow(slot):
        inside.wait()  # the other has been started
        computed.append(1)
        return STATE

    def first():
        results.append(get(store, slow)[1])

    def second():
        inside.wait()
        results.append(get(store, fail)[1])

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert computed == [1]
    assert sorted(results) == [False, True]


@pytest.mark.parametrize("place", [Store, lambda path: Alone(path, lambda: True)], ids=["store", "alone"])
def test_a_partial_state_is_gone_on_with_and_then_gone(tmp_path, place):
    place = place(tmp_path)

    def stop(slot):
        slot.write_partial({"taken": 3})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(place, stop)
    assert get(place, lambda slot: slot.read_partial(CPU))[0] == {"taken": 3}
    assert get(place, fail)[0] == {"taken": 3}
    clear(tmp_path, ["pair"])
    assert not [path for path in tmp_path.rglob("*.pt") if path.name != "state.pt"]


def test_a_damaged_partial_state_is_dropped(tmp_path, caplog):
    place = Alone(tmp_path, lambda: False)

    def cut(slot):
        slot.write_partial({"taken": 3})
        slot.partial.write_bytes(slot.partial.read_bytes()[:-3])
        return slot.read_partial(CPU)

    assert get(place, cut)[0] is None
    assert "starting from the beginning" in caplog.text


def test_prune_keeps_what_runs_have_used(tmp_path, capsys):
    user = tmp_path / "run"
    user.mkdir()
    store = Store(tmp_path / "store")
    get(store, user=str(user))
    store.get("pair", {"other": 1}, lambda slot: STATE, CPU, str(tmp_path / "gone"))
    root = ["--root", str(tmp_path / "store")]
    assert main(["ls", *root]) == 0
    assert "2 entries" in capsys.readouterr().out
    assert main(["prune", "--days", "1", *root]) == 0
    assert "removed 0" in capsys.readouterr().out
    assert main(["prune", *root]) == 0
    assert "removed 1" in capsys.readouterr().out
    assert get(store, fail)[1]
    assert main(["prune", "--all", *root]) == 0
    assert get(store)[1] is False


def test_prune_by_age_takes_what_is_older_and_unused(tmp_path, capsys):
    user = tmp_path / "run"
    user.mkdir()
    store = Store(tmp_path / "store")
    places = {}
    for name, days, used in (("old", 2, False), ("young", 0.5, False), ("used", 2, True)):
        before = set((store.root / "pair").glob("*")) if places else set()
        store.get("pair", {"name": name}, lambda slot: STATE, CPU, str(user if used else tmp_path / "gone"))
        (places[name],) = (path for path in (store.root / "pair").iterdir() if path.is_dir() and path not in before)
        then = time.time() - days * 24 * 3600
        for path in [*places[name].rglob("*"), places[name]]:
            os.utime(path, (then, then))
    assert main(["prune", "--days", "1", "--root", str(store.root)]) == 0
    assert "removed 1" in capsys.readouterr().out
    assert {name for name, path in places.items() if path.exists()} == {"young", "used"}


def test_prune_takes_what_a_killed_writer_left(tmp_path, capsys):
    store = Store(tmp_path / "store")
    get(store)
    (entry,) = (path for path in (store.root / "pair").iterdir() if path.is_dir())
    left = [store.root / "pair" / f".{entry.name}.part", store.root / "partial" / f".pair-{entry.name}.pt.part"]
    left[0].mkdir()
    left[1].parent.mkdir(exist_ok=True)
    left[1].write_bytes(b"half")
    root = ["--root", str(store.root)]
    assert main(["verify", *root]) == 0  # nobody reads them
    with FileLock(lock_of(store.root, "pair", entry.name)):  # whoever writes there holds it
        main(["prune", "--all", *root])
    assert all(path.exists() for path in left)
    capsys.readouterr()
    main(["prune", *root])
    assert not any(path.exists() for path in left)


def test_prune_touches_nothing_that_is_no_entry(tmp_path, capsys):
    get(Store(tmp_path / "store"))
    kept = [tmp_path / "runs" / "2026-01-01", tmp_path / "store" / "pair" / "notes", tmp_path / "store" / "mine" / "x"]
    for folder in kept:
        folder.mkdir(parents=True)
    sweep = tmp_path / "sweep"
    (sweep / ".locks").mkdir(parents=True)
    (sweep / "sweep.json").write_text("{}")
    write_state(sweep / "seed=0" / f"pair-{0:024x}.pt", STATE)
    kept.append(sweep / "seed=0")
    for root in (tmp_path, tmp_path / "runs", sweep):  # a level too high, or another folder
        assert main(["prune", "--all", "--root", str(root)]) == 2
        assert "there is no store" in capsys.readouterr().err
    assert main(["prune", "--all", "--root", str(tmp_path / "store")]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert all(folder.is_dir() for folder in kept)
    assert len(list(sweep.rglob("*.pt"))) == 1


def test_prune_finds_users_through_links(tmp_path, tiny, capsys):
    (tmp_path / "far" / "disk").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "disk")
    root = tmp_path / "near" / "link" / "store"
    run(tiny("store.enabled=true", f"store.root={root}"), tmp_path / "near" / "run")
    assert main(["prune", "--root", str(root)]) == 0
    assert "removed 0" in capsys.readouterr().out


def test_prune_finds_users_from_anywhere_and_leaves_what_is_at_work(tmp_path, monkeypatch, capsys):
    store, root = Store(tmp_path / "store"), ["--root", str(tmp_path / "store")]
    (tmp_path / "run").mkdir()
    get(store, user="../run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with store.slot("pair", {"other": 1}) as slot:
        slot.write(STATE, 1.0)
        slot.write_partial({"taken": 3})
        features = tmp_path / "store" / "features" / f"{0:032x}"
        features.mkdir(parents=True)
        (features.parent / f"{0:032x}.lock").write_text("")
        assert main(["prune", *root]) == 0  # the unused entry is held
        assert "removed 0" in capsys.readouterr().out
        assert main(["prune", "--all", *root]) == 0
        assert "removed 2" in capsys.readouterr().out  # the pair of the run, and the features
        assert (features.parent / f"{0:032x}.lock").exists()
    assert main(["prune", *root]) == 0
    assert "removed 1" in capsys.readouterr().out
    assert slot.partial.exists()


def test_verify_looks_at_stopped_states_and_features(tmp_path, capsys):
    store, root = Store(tmp_path), ["--root", str(tmp_path)]
    with store.slot("pair", INPUTS) as slot:
        slot.write_partial({"taken": 3})
    made_of = {"texts": "few"}
    work = Work(2, np.arange(3), 2, lambda rows: np.ones((len(rows), 2), np.float32))
    kept_features(tmp_path / "features", made_of, lambda: work, lambda done: None)
    assert main(["verify", *root]) == 0
    assert "2 of 2 entries are whole" in capsys.readouterr().out
    (array,) = tmp_path.glob("features/*/features.npy")
    for path in (slot.partial, array):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert main(["verify", *root]) == 1
    assert "0 of 2 entries are whole" in capsys.readouterr().out


def test_no_store_is_one_line(tmp_path, capsys):
    assert main(["ls", "--root", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"store.root=.*cannot be written"):
        get(Store(tmp_path / "file" / "store"))

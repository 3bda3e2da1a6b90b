import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import urllib.request
from dataclasses import fields, replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision.datasets import CIFAR10, CIFAR100

from unlearn.data import cifar as module
from unlearn.data.augmentation import Augmentation
from unlearn.data.cifar import Cifar
from unlearn.values.errors import UserError

REPO = Path(__file__).parents[2]
REAL = REPO.parent / "shared" / "data"
LIBRARY = {"cifar10": CIFAR10, "cifar100": CIFAR100}
LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}
CLASSES = {"cifar10": 10, "cifar100": 100}


def names(library):
    return [name for name, _ in library.train_list + library.test_list]


def write(root: Path, name: str, protocol: int = 4, per_file: int = 3) -> Path:
    """Write a tiny data set of the published layout; the folder that holds its files."""
    library, rng = LIBRARY[name], np.random.default_rng(0)
    folder = root / library.base_folder
    folder.mkdir(parents=True)
    for file in names(library):
        images = rng.integers(256, size=(per_file, 3072), dtype=np.uint8)
        labels = rng.integers(CLASSES[name], size=per_file).tolist()
        (folder / file).write_bytes(pickle.dumps({"data": images, LABELS[name]: labels, "batch_label": "x"}, protocol))
    meta = {library.meta["key"]: [f"class {i}" for i in range(CLASSES[name])]}
    (folder / library.meta["filename"]).write_bytes(pickle.dumps(meta, protocol))
    return folder


def pack(root: Path, name: str, prefix: str = "") -> Path:
    """Replace the folder by the archive that it would have been unpacked from."""
    library = LIBRARY[name]
    with tarfile.open(root / library.filename, "w:gz") as tar:
        tar.add(root / library.base_folder, prefix + library.base_folder)
    shutil.rmtree(root / library.base_folder)
    return root / library.filename


def publish(monkeypatch, root: Path, name: str) -> None:
    """Let torchvision take the files that lie in root for the published ones."""
    library = LIBRARY[name]

    def md5(path):
        return hashlib.md5(path.read_bytes()).hexdigest()

    folder = root / library.base_folder
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(library, attribute, [[f, md5(folder / f)] for f, _ in getattr(library, attribute)])
    monkeypatch.setattr(library, "meta", {**library.meta, "md5": md5(folder / library.meta["filename"])})
    monkeypatch.setattr(library, "tgz_md5", md5(pack(root, name)))


def serve(monkeypatch, content: bytes | None) -> list[str]:
    """Put this in place of the network; the addresses that are asked for."""
    asked = []

    class Response(io.BytesIO):
        def __init__(self, url):
            super().__init__(content)
            self.url, self.length = url, len(content)

    def urlopen(request, *args, **kwargs):
        asked.append(request.full_url)
        if content is None:
            raise URLError("no network\nat all")
        return Response(request.full_url)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def loose(root: Path, name: str = "cifar10") -> Cifar:
    return Cifar(name, str(root), check_integrity=False, train_size=None, augmentation="none", download=True)


def strict(root: Path, name: str = "cifar10", download: bool = True) -> Cifar:
    return replace(loose(root, name), check_integrity=True, download=download)


def complaint(cifar: Cifar) -> str:
    with pytest.raises(UserError) as caught:
        cifar.load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path: Path, **entries) -> None:
    path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), **entries}))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_folder_and_archive_give_back_what_was_written(tmp_path, name, protocol):
    library, folder = LIBRARY[name], write(tmp_path, name, protocol)
    entries = [pickle.loads((folder / file).read_bytes()) for file in names(library)]
    from_folder = loose(tmp_path, name).load(0)
    pack(tmp_path, name)
    from_archive = loose(tmp_path, name).load(0)
    assert not folder.exists()
    for data in (from_folder, from_archive):
        both = torch.cat([data.train.inputs, data.test.inputs])
        assert both.dtype == torch.uint8
        assert both.tolist() == np.concatenate([e["data"] for e in entries]).reshape(-1, 3, 32, 32).tolist()
        labels = torch.cat([data.train.labels, data.test.labels])
        assert labels.dtype == torch.int64
        assert labels.tolist() == [label for e in entries for label in e[LABELS[name]]]
        assert len(data.test) == 3
        assert data.num_classes == CLASSES[name]


def test_an_archive_packed_from_the_dot_folder_is_read(tmp_path):
    write(tmp_path, "cifar100")
    expected = loose(tmp_path, "cifar100").load(0).train.fingerprint()
    pack(tmp_path, "cifar100", prefix="./")
    assert loose(tmp_path, "cifar100").load(0).train.fingerprint() == expected


def test_channels_are_normalised_in_raw_units(tmp_path):
    write(tmp_path / "10", "cifar10")
    write(tmp_path / "100", "cifar100")
    ten, hundred = loose(tmp_path / "10").load(0).train, loose(tmp_path / "100", "cifar100").load(0).train
    assert ten.mean.shape == ten.std.shape == (3, 1, 1)
    assert ten.mean.dtype == ten.std.dtype == torch.float32
    for split, mean, std in (
        (ten, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        (hundred, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ):
        white = replace(split, inputs=torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)).batch(torch.tensor([0]))
        expected = [(1 - m) / s for m, s in zip(mean, std, strict=True)]
        torch.testing.assert_close(white[0, :, 5, 5], torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_published_files_are_unpacked_and_read_alike(tmp_path, monkeypatch, name):
    folder = write(tmp_path, name)
    expected = loose(tmp_path, name).load(0)
    publish(monkeypatch, tmp_path, name)
    asked = serve(monkeypatch, None)
    for _ in range(2):  # unpacks, then finds
        data = strict(tmp_path, name).load(0)
        assert folder.is_dir()
        assert data.train.fingerprint() == expected.train.fingerprint()
        assert data.test.fingerprint() == expected.test.fingerprint()
        assert data.num_classes == expected.num_classes
    assert strict(tmp_path, name, download=False).load(0).train.fingerprint() == expected.train.fingerprint()
    assert asked == []


def test_published_files_are_downloaded_once_and_in_silence(tmp_path, monkeypatch, capfd):
    write(tmp_path / "server", "cifar100")
    expected = loose(tmp_path / "server", "cifar100").load(0).train.fingerprint()
    publish(monkeypatch, tmp_path / "server", "cifar100")
    asked = serve(monkeypatch, (tmp_path / "server" / CIFAR100.filename).read_bytes())
    cifar = strict(tmp_path / "new" / "root", "cifar100")
    assert cifar.load(0).train.fingerprint() == expected
    assert set(asked) == {CIFAR100.url}
    asked.clear()
    assert cifar.load(0).train.fingerprint() == expected
    assert asked == []
    assert capfd.readouterr() == ("", "")


def test_without_network_the_user_is_told_what_to_put_where(tmp_path, monkeypatch):
    serve(monkeypatch, None)
    text = complaint(strict(tmp_path / "root"))
    for part in ("no network at all", str(tmp_path / "root"), CIFAR10.filename, CIFAR10.base_folder):
        assert part in text
    assert "dataset.check_integrity=false" in text
    assert not (tmp_path / "root" / CIFAR10.filename).exists()


def test_a_damaged_download_is_not_left_behind(tmp_path, monkeypatch):
    serve(monkeypatch, b"half an archive")
    assert "cifar10 could not be downloaded" in complaint(strict(tmp_path))
    assert not (tmp_path / CIFAR10.filename).exists()
    assert not (tmp_path / CIFAR10.base_folder).exists()


def test_a_killed_download_is_none(tmp_path, monkeypatch):
    """What a killed process left is thrown away, and no half file ever had a published name."""
    write(tmp_path / "server", "cifar10")
    expected = loose(tmp_path / "server", "cifar10").load(0).train.fingerprint()
    publish(monkeypatch, tmp_path / "server", "cifar10")
    serve(monkeypatch, (tmp_path / "server" / CIFAR10.filename).read_bytes())
    root = tmp_path / "root"
    seen = []

    def half(source, target):
        Path(target, CIFAR10.base_folder).mkdir()
        Path(target, CIFAR10.base_folder, "data_batch_1").write_bytes(b"half")
        seen.extend(path.name for path in root.iterdir() if not path.name.startswith("."))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module.torchvision_utils, "extract_archive", half)
        patched.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # a kill tidies nothing up
        with pytest.raises(KeyboardInterrupt):
            strict(root).load(0)
    assert seen == [CIFAR10.filename]
    assert strict(root).load(0).train.fingerprint() == expected
    assert not list(root.glob(".*.part"))


def test_nothing_is_fetched_or_written_where_that_is_not_wanted(tmp_path, monkeypatch):
    asked = serve(monkeypatch, b"")
    text = complaint(strict(tmp_path / "root", download=False))
    assert "dataset.download=false" in text
    assert CIFAR10.filename in text
    assert CIFAR10.filename in complaint(loose(tmp_path / "root"))
    assert not (tmp_path / "root").exists()
    assert asked == []


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_other_content_is_never_downloaded_over(tmp_path, monkeypatch, packed, download):
    folder = write(tmp_path, "cifar10")
    path = pack(tmp_path, "cifar10") if packed else folder / "data_batch_1"
    before = path.read_bytes()
    asked = serve(monkeypatch, b"")
    text = complaint(strict(tmp_path, download=download))
    assert text.startswith(f"{path}: the checksum differs")
    assert "dataset.check_integrity=false" in text
    assert path.read_bytes() == before
    assert asked == []


def test_a_changed_file_among_published_ones_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path, "cifar10")
    publish(monkeypatch, tmp_path, "cifar10")
    strict(tmp_path).load(0)
    for name in ("data_batch_4", "batches.meta"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1])
        assert complaint(strict(tmp_path)).startswith(f"{folder / name}: the checksum differs")
        (folder / name).write_bytes(whole)
    (folder / "data_batch_4").unlink()
    assert len(strict(tmp_path).load(0).train) == 15  # unpacked again


def test_a_hostile_file_runs_nothing_and_is_named(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    folder = write(tmp_path, "cifar10")
    for name in ("batches.meta", "data_batch_3"):
        whole = (folder / name).read_bytes()
        change(folder / name, extra=Hostile())
        text = complaint(loose(tmp_path))
        assert text.startswith(f"{folder / name}: asks for")
        assert "mkdir" in text
        assert not (tmp_path / "mark").exists()
        if name == "batches.meta":
            (folder / name).write_bytes(whole)
    pack(tmp_path, "cifar10")
    assert f"{CIFAR10.filename}/{CIFAR10.base_folder}/data_batch_3: asks for" in complaint(loose(tmp_path))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"data": [[0] * 3072] * 3}, "'data' is list, not uint8 (n, 3072)"),
        ({"data": np.zeros((3, 3072), np.float32)}, "'data' is float32 (3, 3072), not uint8 (n, 3072)"),
        ({"data": np.zeros((3, 1024), np.uint8)}, "'data' is uint8 (3, 1024), not uint8 (n, 3072)"),
        ({"data": np.zeros((3, 3, 32, 32), np.uint8)}, "'data' is uint8 (3, 3, 32, 32), not uint8 (n, 3072)"),
        ({"labels": [1, 2]}, "'labels' is 2 labels, not a list of one label for each of 3 images"),
        ({"labels": "123"}, "'labels' is str, not a list of one label for each of 3 images"),
        ({"labels": [0, 1, 10]}, "'labels' holds 10; labels must lie between 0 and 9"),
        ({"labels": [0, -1, 1]}, "'labels' holds -1; labels must lie between 0 and 9"),
        ({"labels": [0, 0.5, 1]}, "'labels' holds 0.5; labels must lie between 0 and 9"),
    ],
)
def test_content_of_another_layout_is_named(tmp_path, entries, words):
    path = write(tmp_path, "cifar10") / "data_batch_2"
    change(path, **entries)
    assert complaint(loose(tmp_path)) == f"{path}: {words}"


def test_missing_keys_and_foreign_values_are_named(tmp_path):
    folder = write(tmp_path, "cifar100")
    path, meta = folder / "test", folder / "meta"
    for value, words in (
        ({"fine_labels": [1]}, "has no key 'data'"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [1]}, "has no key 'fine_labels'"),
        ([1, 2], "holds a list, not the dict of a CIFAR file"),
    ):
        path.write_bytes(pickle.dumps(value))
        assert complaint(loose(tmp_path, "cifar100")) == f"{path}: {words}"
    for value in ({}, {"fine_label_names": []}, {"fine_label_names": 100}):
        meta.write_bytes(pickle.dumps(value))
        assert (
            complaint(loose(tmp_path, "cifar100"))
            == f"{meta}: has no list of class names under the key 'fine_label_names'"
        )


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_5", "test_batch"])
def test_missing_and_truncated_files_are_named(tmp_path, name):
    path = write(tmp_path, "cifar10") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert complaint(loose(tmp_path)).startswith(f"{path}: is not a complete pickle")
    path.unlink()
    assert complaint(loose(tmp_path)).startswith(f"{path}: cannot be read (No such file")
    path.mkdir()
    assert complaint(loose(tmp_path)).startswith(f"{path}: cannot be read (Is a directory")
    archive = pack(tmp_path, "cifar10")
    assert complaint(loose(tmp_path)) == f"{archive}: holds no file cifar-10-batches-py/{name}"


def test_a_damaged_archive_is_named(tmp_path):
    write(tmp_path, "cifar10")
    archive = pack(tmp_path, "cifar10")
    whole = archive.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 64]) + whole[middle + 64 :]
    for content in (b"", b"no archive", whole[:middle], whole[:40], flipped, gzip.compress(b"no archive")):
        archive.write_bytes(content)
        assert complaint(loose(tmp_path)).startswith(f"{archive}: is not a complete tar.gz archive")


def test_a_link_in_an_archive_leads_nowhere(tmp_path):
    folder = write(tmp_path, "cifar10")
    outside = tmp_path / "outside"
    (folder / "test_batch").rename(outside)
    (folder / "test_batch").symlink_to(outside)
    archive = pack(tmp_path, "cifar10")
    assert complaint(loose(tmp_path)) == f"{archive}: holds no file cifar-10-batches-py/test_batch"


def test_train_size_takes_a_seeded_subset_of_the_training_part(tmp_path):
    write(tmp_path, "cifar10")
    whole, some = loose(tmp_path), replace(loose(tmp_path), train_size=4)
    assert len(some.load(0).train) == 4
    assert some.load(0).test.fingerprint() == whole.load(0).test.fingerprint()
    assert some.load(0).train.fingerprint() == some.load(0).train.fingerprint()
    assert some.load(0).train.fingerprint() != some.load(1).train.fingerprint()
    assert complaint(replace(whole, train_size=16)).startswith("dataset.train_size=16: must lie between 1 and the 15")


def test_settings_are_checked(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.name=cifar: choose one of cifar10, cifar100"):
        loose(tmp_path, "cifar")
    with pytest.raises(UserError, match=r"dataset\.train_size=0: must be at least 1"):
        replace(loose(tmp_path), train_size=0)
    with pytest.raises(UserError, match=r"dataset\.augmentation=crop: choose one of none, crop_flip"):
        replace(loose(tmp_path), augmentation="crop")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_yaml_states_every_field(name):
    config = OmegaConf.load(REPO / "conf" / "dataset" / f"{name}.yaml")
    assert set(config) == {"_target_", *(f.name for f in fields(Cifar))}
    cifar = instantiate(config)
    assert cifar == Cifar(name, f"data/{name}", True, None, "crop_flip", True)
    assert cifar.augment == Augmentation("crop_flip", padding=4)


@pytest.mark.real
@pytest.mark.parametrize(("name", "train", "test"), [("cifar10", 5000, 1000), ("cifar100", 1100, 900)])
def test_real_images_have_the_published_statistics(name, train, test):
    if not (REAL / name).is_dir():
        pytest.skip("the small real data sets are not here")
    data = loose(REAL / name, name).load(0)
    assert (len(data.train), len(data.test), data.num_classes) == (train, test, CLASSES[name])
    assert data.train.labels.unique().tolist() == list(range(CLASSES[name]))
    inputs = data.train.batch(torch.arange(train))
    # real photographs: the channel means of the first images are close to those of all of them
    assert inputs.mean((0, 2, 3)).abs().max() < 0.1
    # neighbouring pixels are alike, down and across, as they are not in another layout
    assert inputs.diff(dim=2).abs().mean() < 0.4
    assert inputs.diff(dim=3).abs().mean() < 0.4


@pytest.mark.real
def test_real_files_fail_the_published_checksums_and_are_left_alone(monkeypatch):
    if not (REAL / "cifar100").is_dir():
        pytest.skip("the small real data sets are not here")
    asked = serve(monkeypatch, b"")
    before = sorted((REAL / "cifar100").iterdir())
    assert "the checksum differs" in complaint(strict(REAL / "cifar100", "cifar100"))
    assert sorted((REAL / "cifar100").iterdir()) == before
    assert asked == []

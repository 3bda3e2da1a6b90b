"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the published files, or files of the same layout with other content."""

import gzip
import io
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets import utils as torchvision_utils

from unlearn.data import safe_pickle
from unlearn.data.augmentation import Augmentation
from unlearn.data.split import Data, Split
from unlearn.data.subset import subset
from unlearn.values.errors import UserError, at_least, choice, in_one_line

Part = tuple[np.ndarray, list[int]]  # images, uint8 (n, 3, 32, 32), and their labels


@dataclass(frozen=True)
class _Published:
    library: type[CIFAR10]
    label_key: str
    mean: tuple[float, float, float]  # of the training images' channels, white = 1
    std: tuple[float, float, float]


_PUBLISHED = {
    "cifar10": _Published(CIFAR10, "labels", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": _Published(CIFAR100, "fine_labels", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True)
class Cifar:
    """Colour images of 32 x 32 pixels.

    Attributes:
        name: `cifar10`, or `cifar100` with its 100 fine labels.
        root: the folder that holds the archive or the folder unpacked from it; relative to the working directory.
        check_integrity: whether every file must have its published checksum. If not, an archive with other content is
            accepted, read by an unpickler that runs nothing, and never downloaded.
        train_size: how many training points to keep, drawn by seed; None keeps all.
        augmentation: the kind of `Augmentation`; images are padded by 4.
        download: whether published files that are missing are fetched, or unpacked where the archive is there.
    """

    name: str
    root: str
    check_integrity: bool
    train_size: int | None
    augmentation: str
    download: bool

    def __post_init__(self) -> None:
        choice("dataset.name", self.name, tuple(_PUBLISHED))
        at_least("dataset.train_size", self.train_size, 1)
        Augmentation(self.augmentation)

    @property
    def augment(self) -> Augmentation:
        """What may be drawn for a training image."""
        return Augmentation(self.augmentation, padding=4)

    @property
    def seeded(self) -> bool:
        """Whether the seed chooses points."""
        return self.train_size is not None

    def load(self, seed: int) -> Data:
        """Read the images; a file that is missing, damaged or of another layout is a `UserError` that names it.

        Args:
            seed: the run's seed; it chooses the points of `train_size`.

        Returns:
            Both parts: inputs uint8 (n, 3, 32, 32), labels int64; mean and std (3, 1, 1) in units of 0..255.
        """
        published = _PUBLISHED[self.name]
        train, test, num_classes = self._verified(published) if self.check_integrity else self._unverified(published)
        # (3,) to (3, 1, 1)
        mean, std = (255 * torch.tensor(value)[:, None, None] for value in (published.mean, published.std))
        splits = [
            Split(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64), mean, std)
            for images, labels in (train, test)
        ]
        return Data(subset(splits[0], self.train_size, seed), splits[1], num_classes)

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser()

    def _absent(self, library: type[CIFAR10], reason: str) -> UserError:
        return UserError(
            f"dataset.root={self.root}: {reason}; put {library.filename} or the folder {library.base_folder} unpacked "
            f"from it there (dataset.check_integrity=false accepts an archive with other content)"
        )

    def _verified(self, published: _Published) -> tuple[Part, Part, int]:
        library = published.library
        try:
            train = library(self._folder)
        except RuntimeError:  # torchvision's word for missing and for changed files
            train = self._fetch(library)
        test = library(self._folder, train=False)
        # torchvision turns the stored (n, 3, 32, 32) into (n, 32, 32, 3)
        parts = [(np.ascontiguousarray(p.data.transpose(0, 3, 1, 2)), p.targets) for p in (train, test)]
        return parts[0], parts[1], len(train.classes)

    def _fetch(self, library: type[CIFAR10]) -> CIFAR10:
        archive = self._folder / library.filename
        if not self.download or not archive.exists():
            _refuse_changed(library, self._folder)
        if not self.download:
            raise self._absent(library, f"no complete {self.name} in this folder, and dataset.download=false")
        # one job of a sweep at a time; with an archive there, another job may have been unpacking it until now
        quiet = sys.stderr if sys.stderr.isatty() else io.StringIO()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f".{self.name}.lock"):
                with suppress(RuntimeError):
                    return library(self._folder)
                _refuse_changed(library, self._folder)
                with redirect_stdout(quiet), redirect_stderr(quiet):
                    _complete(library, self._folder, self._folder / f".{self.name}.part")
                return library(self._folder)
        except (OSError, RuntimeError, HTTPException) as error:
            raise self._absent(library, f"{self.name} could not be downloaded ({in_one_line(error)})") from error

    def _unverified(self, published: _Published) -> tuple[Part, Part, int]:
        library, meta = published.library, published.library.meta
        lists = [[name for name, _ in files] for files in (library.train_list, library.test_list)]
        names = [*lists[0], *lists[1], meta["filename"]]
        folder, archive = self._folder / library.base_folder, self._folder / library.filename
        if folder.is_dir():
            files = {name: _read_file(folder / name) for name in names}
        elif archive.is_file():
            folder = archive / library.base_folder  # as messages call it
            files = _read_archive(archive, library.base_folder, names)
        else:
            raise self._absent(library, f"no {self.name} in this folder")
        num_classes = _count_classes(folder / meta["filename"], files[meta["filename"]], meta["key"])
        parts = [
            _join(_read_part(folder / name, files[name], published.label_key, num_classes) for name in names)
            for names in lists
        ]
        return parts[0], parts[1], num_classes


def _complete(library: type[CIFAR10], root: Path, part: Path) -> None:
    """Fetch and unpack aside: a kill on the way leaves no half file under a published name."""
    folder, archive = root / library.base_folder, root / library.filename
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        if not archive.exists():
            torchvision_utils.download_url(library.url, str(part), library.filename, library.tgz_md5)
            (part / library.filename).replace(archive)
        torchvision_utils.extract_archive(str(archive), str(part))
        folder.mkdir(exist_ok=True)
        for file in (part / library.base_folder).iterdir():
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_changed(library: type[CIFAR10], root: Path) -> None:
    folder = root / library.base_folder
    listed = [(folder / name, md5) for name, md5 in [*library.train_list, *library.test_list]]
    listed += [(folder / library.meta["filename"], library.meta["md5"]), (root / library.filename, library.tgz_md5)]
    for path, md5 in listed:
        if path.exists() and not torchvision_utils.check_integrity(path, md5):
            raise UserError(
                f"{path}: the checksum differs from the published file's; remove the file to have it fetched again, or "
                f"set dataset.check_integrity=false to accept other content"
            )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _read_archive(archive: Path, folder: str, names: list[str]) -> dict[str, bytes]:
    wanted = {PurePosixPath(folder, name): name for name in names}
    files: dict[str, bytes] = {}
    try:
        # in the archive's own order: going back would decompress it again
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in tar:
                name = wanted.get(PurePosixPath(member.name))
                content = tar.extractfile(member) if name is not None and member.isfile() else None
                if name is not None and content is not None:
                    files[name] = content.read()
            packed.read()  # gzip's own checksum is at the end
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: is not a complete tar.gz archive ({in_one_line(error)})") from error
    missing = [str(path) for path, name in wanted.items() if name not in files]
    if missing:
        raise UserError(f"{archive}: holds no file {missing[0]}")
    return files


def _read_dict(path: Path, data: bytes) -> dict[Any, Any]:
    try:
        entry = safe_pickle.loads(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(entry, dict):
        raise UserError(f"{path}: holds a {type(entry).__name__}, not the dict of a CIFAR file")
    return entry


def _count_classes(path: Path, data: bytes, key: str) -> int:
    names = _read_dict(path, data).get(key)
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: has no list of class names under the key {key!r}")
    return len(names)


def _read_part(path: Path, data: bytes, label_key: str, num_classes: int) -> Part:
    entry = _read_dict(path, data)
    for key in ("data", label_key):
        if key not in entry:
            raise UserError(f"{path}: has no key {key!r}")
    images, labels = entry["data"], entry[label_key]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise UserError(f"{path}: 'data' is {found}, not uint8 (n, 3072)")
    if not isinstance(labels, list) or len(labels) != len(images):
        found = f"{len(labels)} labels" if isinstance(labels, list) else type(labels).__name__
        raise UserError(f"{path}: {label_key!r} is {found}, not a list of one label for each of {len(images)} images")
    for label in labels:
        if not isinstance(label, int) or not 0 <= label < num_classes:
            raise UserError(f"{path}: {label_key!r} holds {label!r}; labels must lie between 0 and {num_classes - 1}")
    return np.asarray(images).reshape(-1, 3, 32, 32), labels


def _join(parts: Iterable[Part]) -> Part:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), [label for some in labels for label in some]

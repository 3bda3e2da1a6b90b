"""IMDB (Maas et al. 2011): 25,000 + 25,000 film reviews, negative or positive."""

import logging
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unlearn.data.augmentation import Augmentation
from unlearn.data.subset import subset
from unlearn.data.tables import read_table
from unlearn.data.text import TextData, TextSplit, text_split
from unlearn.values.errors import UserError, at_least, choice, in_one_line

logger = logging.getLogger(__name__)

FOLDER, ARCHIVE, HUB = "aclImdb", "aclImdb_v1.tar.gz", "stanfordnlp/imdb"
SENTIMENTS = ("neg", "pos")  # label 0 and 1
PARTS = ("train", "test")
TABLES = ("parquet", "csv")
File = tuple[PurePosixPath, bytes]  # of a review, from the archive's root on


@dataclass(frozen=True)
class Imdb:
    """Film reviews: label 0 is negative, 1 positive.

    Read from `root` in the first of these layouts that is there: the folder aclImdb (or `root` itself, where it holds
    train/neg), the archive aclImdb_v1.tar.gz, train.parquet and test.parquet, train.csv and test.csv with the columns
    `text,label`. Where there is none: Hugging Face `datasets`, from its cache or over the network.

    Attributes:
        name: `imdb`.
        root: a folder, or the archive; relative to the working directory.
        train_size: how many training reviews to keep, drawn by seed; None keeps all.
        test_size: how many test reviews to keep, drawn by seed; None keeps all.
    """

    name: str
    root: str
    train_size: int | None
    test_size: int | None

    def __post_init__(self) -> None:
        choice("dataset.name", self.name, ("imdb",))
        for key, size in (("train_size", self.train_size), ("test_size", self.test_size)):
            at_least(f"dataset.{key}", size, 1)

    @property
    def augment(self) -> Augmentation:
        """Nothing is drawn for a text."""
        return Augmentation()

    @property
    def seeded(self) -> bool:
        """Whether the seed chooses points."""
        return self.train_size is not None or self.test_size is not None

    def load(self, seed: int) -> TextData:
        """Read the reviews; what is missing or damaged is a `UserError` that names it.

        Args:
            seed: the run's seed; it chooses the reviews of `train_size` and `test_size`.

        Returns:
            Both parts; reviews in the order neg, pos, and by number within (folder and archive), else as stored.
        """
        train, test = self._parts()
        return TextData(
            subset(train, self.train_size, seed),
            subset(test, self.test_size, seed, test=True),
            len(SENTIMENTS),
        )

    def _parts(self) -> tuple[TextSplit, TextSplit]:
        root = Path(self.root).expanduser()
        for folder in (root / FOLDER, root):
            if (folder / "train" / SENTIMENTS[0]).is_dir() or (folder.name == FOLDER and folder.is_dir()):
                return _sorted_by_part(folder, list(_walk(folder)))
        archive = root / ARCHIVE if root.is_dir() else root
        if archive.is_file():
            return _sorted_by_part(archive, list(_unpack(archive)))
        for suffix in TABLES:
            train, test = (root / f"{part}.{suffix}" for part in PARTS)
            if train.is_file() or test.is_file():
                return _table(train), _table(test)
        return _from_hub(self.root)


def _walk(folder: Path) -> Iterator[File]:
    for part in PARTS:
        for sentiment in SENTIMENTS:
            try:
                paths = sorted((folder / part / sentiment).iterdir())
                for path in paths:
                    if path.suffix == ".txt":
                        yield PurePosixPath(part, sentiment, path.name), path.read_bytes()
            except OSError as error:
                raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _unpack(archive: Path) -> Iterator[File]:
    try:
        with tarfile.open(archive, "r|gz") as tar:  # a stream: nothing is written, whatever the members are called
            for member in tar:
                path = PurePosixPath(member.name)
                name = PurePosixPath(*path.parts[-3:])  # train/neg/0_3.txt
                wanted = len(path.parts) == 4 and path.parts[0] == FOLDER and name.parts[1] in SENTIMENTS
                content = tar.extractfile(member) if wanted and member.isfile() and name.suffix == ".txt" else None
                if content is not None:
                    yield name, content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: is not a complete tar.gz archive ({in_one_line(error)})") from error


def _number(name: str) -> tuple[int, str]:
    head = name.partition("_")[0]  # of 123_7.txt: review 123, 7 stars
    return (int(head) if head.isdecimal() else 0, name)


def _sorted_by_part(where: Path, files: list[File]) -> tuple[TextSplit, TextSplit]:
    parts = []
    for part in PARTS:
        found = [
            (SENTIMENTS.index(path.parts[1]), _number(path.name), data) for path, data in files if path.parts[0] == part
        ]
        found.sort(key=lambda review: review[:2])
        texts = [data.decode("utf-8", "replace") for *_, data in found]
        mended = sum("\ufffd" in text and not _is_utf8(data) for text, (*_, data) in zip(texts, found, strict=True))
        if mended:
            logger.warning("%s: %d reviews of %s are not UTF-8; their odd bytes became U+FFFD", where, mended, part)
        parts.append(text_split(texts, [label for label, *_ in found], len(SENTIMENTS), f"{where}/{part}"))
    return parts[0], parts[1]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _table(path: Path) -> TextSplit:
    rows = read_table(path, ("text", "label"))
    return text_split(rows["text"], [_label(path, row, value) for row, value in enumerate(rows["label"])], 2, str(path))


def _label(path: Path, row: int, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(
            f"{path}: row {row} has the label {value!r}; labels must be 0 (negative) or 1 (positive)"
        ) from None


def _from_hub(root: str) -> tuple[TextSplit, TextSplit]:
    # slow to import, and only needed here
    from datasets import config, load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # of its HTTP library, such as a proxy's

    try:
        if not config.HF_HUB_OFFLINE:  # datasets would try for 23 seconds where there is no network
            snapshot_download(HUB, repo_type="dataset", allow_patterns=["README.md"])
        found = load_dataset(HUB)
        train, test = (text_split(list(found[p]["text"]), list(found[p]["label"]), 2, f"{HUB}, {p}") for p in PARTS)
    except (OSError, ValueError, RuntimeError, HTTPError, DatasetsError) as error:
        reason = in_one_line(error).partition(" An error happened")[0]
        raise UserError(
            f"dataset.root={root}: holds neither {FOLDER}/, nor {ARCHIVE}, nor train and test as .parquet or .csv "
            f"(text,label); and {HUB} could not be had from Hugging Face ({reason}); HF_HUB_OFFLINE=1 reads its cache"
        ) from error
    return train, test

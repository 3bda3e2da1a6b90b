"""Columns of text from CSV and parquet files, every value as it stands there."""

import logging
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unlearn.values.errors import UserError, in_one_line

logger = logging.getLogger(__name__)


def read_table(path: Path, columns: Sequence[str], *, nulls: bool = False) -> dict[str, list[str]]:
    """Read some columns as strings.

    A CSV must have a header; bytes that are not UTF-8 become U+FFFD, and an empty field is an empty string.

    Args:
        path: `.parquet`, or a CSV, which may be compressed (.bz2, .gz, .xz, .zip).
        columns: names of columns.
        nulls: whether rows that lack a value are left out; else they are refused.

    Returns:
        Column to its values, all of one length.

    Raises:
        UserError: the file is missing, unreadable or empty, or lacks a column or a value.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            # a review may be the word "NA"
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="replace")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        # pandas' and pyarrow's own are ValueErrors
        reason = getattr(error, "strerror", None) or in_one_line(error)
        raise UserError(f"{path}: cannot be read as {path.suffix.lstrip('.')} ({reason})") from error
    for column in columns:
        if column not in table:
            have = ", ".join(map(str, table.columns)) or "none"
            raise UserError(f"{path}: has no column {column!r}; it has {have}")
    chosen = table[list(columns)]
    absent = chosen.isna().any(axis=1)
    if nulls:
        chosen = chosen[~absent]
    elif absent.any():
        raise UserError(f"{path}: row {int(absent.to_numpy().argmax())} lacks a value in {' or '.join(columns)}")
    values = {column: [str(value) for value in chosen[column]] for column in columns}
    mended = sum("\ufffd" in value for value in values[columns[0]])
    if mended:
        logger.warning("%s: %d rows hold U+FFFD, which also stands for bytes that are not UTF-8", path, mended)
    return values

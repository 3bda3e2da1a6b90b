"""Columns of text from files: compressed ones too, and damaged ones in one line."""

import pandas as pd
import pytest

from unlearn.data.tables import read_table
from unlearn.values.errors import UserError

SUFFIXES = ["csv", "csv.bz2", "csv.gz", "csv.xz", "csv.zip", "tar.gz"]


def written(folder, suffix):
    path = folder / f"films.{suffix}"
    rows = pd.DataFrame({"text": [f"film {number}" for number in range(500)], "label": ["0", "1"] * 250})
    rows.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_compressed_table_is_read(tmp_path, suffix):
    found = read_table(written(tmp_path, suffix), ["text", "label"])
    assert (found["text"][499], found["label"][499], len(found["text"])) == ("film 499", "1", 500)


@pytest.mark.parametrize("damage", ["cut", "start", "middle"])
@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_damaged_table_is_one_line(tmp_path, suffix, damage):
    path = written(tmp_path, suffix)
    whole = path.read_bytes()
    half = len(whole) // 2
    flipped = bytes(255 - byte for byte in whole[half : half + 40])
    path.write_bytes(
        {
            "cut": whole[:half],
            "start": b"not what it says it is" + whole[22:],
            "middle": whole[:half] + flipped + whole[half + 40 :],
        }[damage]
    )
    with pytest.raises(UserError) as caught:
        read_table(path, ["text"])
    assert str(caught.value).startswith(f"{path}: cannot be read as {path.suffix[1:]} (")
    assert "\n" not in str(caught.value)

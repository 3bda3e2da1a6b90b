"""`python -m unlearn.results FOLDER` puts all runs below a folder into one table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from unlearn.results.collect import collect, save
from unlearn.results.table import counts, headline, show, summarise
from unlearn.values.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, save and print.

    Args:
        arguments: the folder; None takes the command line.

    Returns:
        The exit code: 0, or 2 where the folder holds no run or cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m unlearn.results", description="Write FOLDER/results.csv and .parquet, and print averages."
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="holds runs, such as outputs/sweeps/NAME")
    folder = parser.parse_args(arguments).folder
    try:
        collected = collect(folder)
        paths = save(collected, folder)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    console, table = Console(markup=False), show(summarise(collected), headline(collected))
    if not console.is_terminal:  # a file has no width that a table must fit
        wide = Console(width=10_000, markup=False).measure(table).maximum
        console = Console(width=max(console.width, wide), markup=False)
    console.print(table)
    console.print(counts(list(collected.table.status)), highlight=False, soft_wrap=True)
    console.print(f"saved in {' and '.join(str(path) for path in paths)}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

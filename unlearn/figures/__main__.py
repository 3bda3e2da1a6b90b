"""`python -m unlearn.figures RUN_FOLDER...` draws the figures of runs again from their saved files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unlearn.figures.run import draw
from unlearn.values.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and say which files were written.

    Args:
        arguments: run folders; None takes the command line.

    Returns:
        The exit code: 0, or 2 after a folder that holds no run.
    """
    parser = argparse.ArgumentParser(prog="python -m unlearn.figures", description="Draw the figures of runs again.")
    parser.add_argument("folders", metavar="RUN_FOLDER", nargs="+", type=Path)
    try:
        for folder in parser.parse_args(arguments).folders:
            sys.stdout.writelines(f"{path}\n" for path in draw(folder))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Upload the offline W&B runs below a folder; what was uploaded before is left out, unless it has grown.

    python scripts/wandb_sync.py [outputs]

Attempts at one point of a sweep have one id and become one run. Exit code 2 where nobody is logged in.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import wandb


def waiting(folder: Path) -> list[Path]:
    """Give the files of offline runs that were not uploaded yet, or have grown since, oldest first."""
    found = folder.glob("**/wandb/offline-run-*/*.wandb")
    return sorted((path for path in found if not _is_uploaded(path)), key=lambda path: path.parent.name)


def _is_uploaded(path: Path) -> bool:
    mark = _mark(path)
    return mark.exists() and mark.stat().st_mtime_ns >= path.stat().st_mtime_ns


def _mark(path: Path) -> Path:
    return Path(f"{path}.synced")


def main() -> int:
    """Sync, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"))
    folder = parser.parse_args().folder
    runs = waiting(folder)
    if not runs:
        print(f"{folder}: no offline W&B run waits to be uploaded")
        return 0
    if not wandb.login(prompt=False):
        sys.stderr.write(
            f"error: {len(runs)} offline runs under {folder}, but nobody is logged in: run `wandb login`, or set "
            "WANDB_API_KEY (and WANDB_BASE_URL for a server of your own)\n"
        )
        return 2
    for path in runs:
        _mark(path).unlink(missing_ok=True)  # W&B left it when the run was still going on, and would skip the run
    talking = {key: value for key, value in os.environ.items() if key != "WANDB_SILENT"}
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", *(str(path.parent) for path in runs)], env=talking)
    left = sum(not _mark(path).exists() for path in runs)  # a sweep that goes on may have begun others
    if done.returncode or left:
        sys.stderr.write(f"error: {left} of {len(runs)} runs were not uploaded; run it again once the server answers\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What an offline W&B run holds."""

import json
import subprocess
import sys


def records(run_folder):
    """What W&B's own reader finds in the one offline run below a folder."""
    (written,) = run_folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(written)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def of_type(found, kind):
    return [record[kind] for record in found if record["type"] == kind]

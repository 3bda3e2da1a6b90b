"""The short form of scripts/chaos.py: two kills, with the store and without."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_runs_end_bit_identical():
    command = [sys.executable, "scripts/chaos.py", "--kills", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 ended bit-identical" in done.stdout

"""SIGKILL in small: `benchmarks/kill.py` kills real runs at random moments, resumes them and compares every byte with the uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only (tests/SKIPS.md)")
def test_killed_runs_and_sweeps_end_as_if_they_had_not_been():
    command = [sys.executable, str(FILE), "--erase", "3", "--sweep", "1", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: sum(one["kills"].values()) for name, one in found.items()} == {"erase": 3, "sweep": 1}
    assert all(one["runs compared"] >= 1 for one in found.values())

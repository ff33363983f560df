"""Start-up: what a command costs before it does anything, beside an empty Python and the packages that letheon stands on.

    python benchmarks/startup.py

Each command is a process of its own, all in turn, output thrown away; the first turn, which writes bytecode and fills the disk cache, does
not count. `letheon --help` and `letheon methods` import no torch; `letheon show NAME` reads the settings of a method, and so imports it and
torch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _timing

HELP = 0.5  # most wall seconds of `letheon --help`
PYTHON = {
    "python": "pass",
    "import letheon": "import letheon",
    "import torch": "import torch",
    "import transformers": "import transformers",
}
LETHEON = ("--help", "methods", "show npo")


def process(command: list[str]) -> _timing.Took:
    """Wall and processor seconds of a process.

    Raises:
        SystemExit: it failed.
    """
    wall = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        _, status, used = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {job.returncode}")
    return _timing.Took(time.perf_counter() - wall, used.ru_utime + used.ru_stime, None)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", help="JSON file to write the result to")
    arguments = parser.parse_args()
    script = str(Path(sys.executable).with_name("letheon"))
    commands = {name: [sys.executable, "-c", code] for name, code in PYTHON.items()}
    commands |= {f"letheon {words}": [script, *words.split()] for words in LETHEON}
    took: dict[str, list[_timing.Took]] = {name: [] for name in commands}
    for turn in range(arguments.repeats + 1):
        for name in list(commands) if turn % 2 else list(commands)[::-1]:
            once = process(commands[name])
            took[name] += [once] if turn else []
    middle = {name: _timing.medians(runs) for name, runs in took.items()}
    result: dict[str, Any] = {
        "benchmark": "startup", "machine": _timing.machine(), "turns": arguments.repeats, "seconds": middle,
        "times_python": {name: one["cpu_seconds"] / middle["python"]["cpu_seconds"] for name, one in middle.items() if name != "python"},
        "share_of_import_torch": {
            name: one["cpu_seconds"] / middle["import torch"]["cpu_seconds"] for name, one in middle.items() if "letheon" in name
        },
        "help_at_most_seconds": HELP, "passed": middle["letheon --help"]["wall_seconds"] <= HELP,
    }  # fmt: skip
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit(f"`letheon --help` takes {middle['letheon --help']['wall_seconds']:.2f} s; at most {HELP}")


if __name__ == "__main__":
    main()

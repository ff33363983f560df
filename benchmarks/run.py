"""All benchmarks with short settings, one JSON file, and a gate: no ratio may be worse than kept by more than a quarter.

    python benchmarks/run.py [--out benchmarks.json] [--only scaling generation] [--keep]

`make bench` calls this. Ratios compare two ways of doing the same thing in one run; they are set against `benchmarks/kept.json`, which
`--keep` rewrites for what was run. Without a model a micro model and its retrain are trained on the embedded world of 40 people first, and
kept in the folder for temporary files. One thread, so that processor time is that of the work. The exit status is 1 where a ratio is worse
than kept, a benchmark failed, or the kept numbers are missing. A bar that a benchmark itself misses is said, and only fails the gate with
`--bars`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _gate
import _setup
import _timing

SHORT = {  # medians of five turns, but for the audit, of which a turn takes minutes, and the epoch over 40,000 rows
    "startup.py": ("--repeats", "7"),
    "step_speed.py": ("--repeats", "5"),
    "generation.py": ("--repeats", "5", "--split", "retain"),
    "erase_speed.py": ("--repeats", "5", "--epochs", "2"),
    "scaling.py": ("--repeats", "5"),
    "audit_speed.py": ("--repeats", "1"),
}
BARE = ("startup", "step_speed")  # need no model
NAMES = [name.removesuffix(".py") for name in SHORT]


def run(script: str, folder: Path, given: list[str], threads: int) -> tuple[Any, bool]:
    """One benchmark in a process of its own: its result (None if it gave none), and whether it met its bars."""
    name = script.removesuffix(".py")
    _timing.say(f"== {name}")
    out = folder / f"{name}.json"
    command = [sys.executable, str(Path(__file__).with_name(script)), *SHORT[script], *([] if name in BARE else given), "--out", str(out)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)}).returncode
    return json.loads(out.read_text()) if out.is_file() else None, status == 0


def main() -> None:
    """Run all, keep or compare."""
    parser = _setup.parser(__doc__ or "")
    parser.set_defaults(threads=1, people=40)
    parser.add_argument("--only", nargs="+", choices=sorted(NAMES), default=NAMES, help="leave the others out")
    parser.add_argument("--kept", type=Path, default=_gate.KEPT, help="file of the numbers to compare with")
    parser.add_argument("--keep", action="store_true", help="keep the ratios of this run instead")
    parser.add_argument("--margin", type=float, default=_gate.MARGIN, help="how much worse a ratio may be, as a share of the kept one")
    parser.add_argument("--bars", action="store_true", help="also fail where a benchmark misses a bar of its own")
    arguments = parser.parse_args()
    try:
        kept = {} if arguments.keep else _gate.read(arguments.kept)
    except _gate.KeptError as error:
        sys.exit(str(error))
    results: dict[str, Any] = {"machine": _timing.machine() | {"threads": arguments.threads}}
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for script, name in zip(SHORT, NAMES, strict=True):
            if name in arguments.only:
                results[name], met = run(script, Path(folder), _setup.given(arguments), arguments.threads)
                missed += [] if met else [name]
    _timing.write(results, arguments.out)
    failed = [name for name in missed if "passed" not in (results[name] or {})]
    faults = [f"{name}: failed" for name in failed]
    if arguments.keep:
        _gate.keep(results, arguments.kept)
    else:
        faults += _gate.worse(results, kept["ratios"], arguments.margin)
        if kept["machine"] != results["machine"]:
            _timing.say("the kept numbers are of another machine or other versions; ratios may differ for that alone")
    below = [name for name in missed if name not in failed]
    if below:
        _timing.say(f"miss a bar of their own: {', '.join(below)}")
    if faults or (arguments.bars and below):
        sys.exit("\n".join(faults) or 1)


if __name__ == "__main__":
    main()

"""All benchmarks with short settings; one JSON file.

    python benchmarks/run.py --out benchmarks.json [--model MODEL --retrained RETRAINED --tofu TOFU]

Without a model a micro model and its retrain are trained on the embedded world first. `make bench` calls this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _setup
import _timing

SHORT = {
    "audit_speed.py": ("--repeats", "1"),
    "erase_speed.py": ("--repeats", "1", "--epochs", "1"),
    "scaling.py": ("--repeats", "1"),
    "step_speed.py": ("--repeats", "3"),
}


def main() -> None:
    """Run each in a process of its own; a benchmark that misses its bar is noted, and the others still run."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--only", nargs="*", choices=sorted(name.removesuffix(".py") for name in SHORT), help="leave the others out")
    arguments = parser.parse_args()
    here = Path(__file__).parent
    results: dict[str, Any] = {"machine": _timing.machine()}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for script, short in SHORT.items():
            name = script.removesuffix(".py")
            if arguments.only and name not in arguments.only:
                continue
            _timing.say(f"== {name}")
            out = Path(folder) / f"{name}.json"
            models = [] if name == "step_speed" else _setup.given(arguments)  # it needs none
            command = [sys.executable, str(here / script), *short, *models, "--out", str(out)]
            status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
            results[name] = json.loads(out.read_text()) if out.is_file() else None
            failed += [name] if status else []
    _timing.write(results, arguments.out)
    if failed:
        sys.exit(f"missed or failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

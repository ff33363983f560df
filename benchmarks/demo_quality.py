"""Does the demo's NPO come close to the exact retrain? Several seeds, each a world, a model, a retrain and an erasure of its own.

    python benchmarks/demo_quality.py --seeds 1 2 3 --out runs/demo_quality.json

The demo's settings were chosen on seed 0. For every seed: forget probability and truth ratio of original, NPO, gradient ascent and retrain,
and the loss of retain ROUGE-L recall. Passes where NPO is nearer to the retrain than the original is on both forget measures and the
retain ROUGE-L recall is within 0.05 of the original's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from letheon.cli.demo import show
from letheon.core.files import write_text
from letheon.core.findings import Findings

MEASURES = (("forget", "probability"), ("forget", "truth-ratio"), ("retain-check", "rouge-l-recall"), ("", "model-utility"))


def one(seed: int, people: int) -> dict[str, object]:
    """The demo with one seed, in a folder that is thrown away."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        show(Path(folder) / "demo", people=people, seed=seed, progress=False)
        found = {name: Findings.load(Path(folder) / "demo" / name) for name in ("npo", "grad-ascent")}
    rows = {
        "original": {f"{s}/{m}": found["npo"].value("before", m, s) for s, m in MEASURES},
        "npo": {f"{s}/{m}": found["npo"].value("after", m, s) for s, m in MEASURES},
        "grad-ascent": {f"{s}/{m}": found["grad-ascent"].value("after", m, s) for s, m in MEASURES},
        "retrained": {f"{s}/{m}": found["npo"].value("retrained", m, s) for s, m in MEASURES},
    }
    nearer = all(
        abs(rows["npo"][key] - rows["retrained"][key]) < abs(rows["original"][key] - rows["retrained"][key])
        for key in ("forget/probability", "forget/truth-ratio")
    )
    kept = rows["original"]["retain-check/rouge-l-recall"] - rows["npo"]["retain-check/rouge-l-recall"] <= 0.05
    return {"seed": seed, "people": people, "seconds": round(time.monotonic() - began, 1), "passed": bool(nearer and kept), "values": rows}


def main() -> None:
    """Run and print one table per seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        results.append(one(seed, options.people))
        print(f"seed {seed}: {'passed' if results[-1]['passed'] else 'FAILED'} in {results[-1]['seconds']} s")
        print("| | " + " | ".join(f"{s} {m}".strip() for s, m in MEASURES) + " |\n" + "|---" * (len(MEASURES) + 1) + "|")
        for name, values in results[-1]["values"].items():
            print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values.values()) + " |")
    if options.out:
        write_text(options.out, json.dumps(results, indent=1) + "\n")
    raise SystemExit(0 if all(result["passed"] for result in results) else 1)


if __name__ == "__main__":
    main()

"""What ten times more rows cost: time per epoch of NPO, and peak memory of an audit.

    python benchmarks/scaling.py --model MODEL --tofu TOFU

The rows are those of the forget split over and over, with ids of their own, so that ten times the rows are exactly ten times the tokens.
Peak memory is taken in a process of its own, above the loaded model and rows. What an audit must hold for each row (token facts, values per
row) is reported beside it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import _setup
import _timing

TIMES, AT_MOST = 10, 10.5
MORE_MEMORY = 1.1  # allowed factor of an audit's working memory when rows grow tenfold


def epoch_seconds(arguments: Any) -> dict[str, Any]:
    """Time of one epoch over few and over many rows."""
    import letheon as lt
    from letheon.core.data import Data

    data = _setup.data(arguments)
    subject, _ = _setup.subjects(arguments)
    npo = lt.method("npo", epochs=1, learning_rate=1e-5)
    sizes = {"few": arguments.rows, "many": TIMES * arguments.rows}
    worlds = {name: Data({"forget": _setup.many(data["forget"], n), "retain": data["retain"]}, "grown") for name, n in sizes.items()}
    npo.apply(subject, Data({name: split[:32] for name, split in worlds["few"].items()}), lt.Run(seed=0))  # warm up
    few = {f"few {k}": lambda: npo.apply(subject, worlds["few"], lt.Run(seed=0)) for k in range(3)}
    took = _timing.alternate({"many": lambda: npo.apply(subject, worlds["many"], lt.Run(seed=0)), **few}, arguments.repeats)
    all_few = [run for name in few for run in took[name]]
    return {
        "rows": sizes,
        "few": _timing.medians(all_few),
        "many": _timing.medians(took["many"]),
        "times": _timing.ratios(took["many"], all_few),
    }


def audit_memory(arguments: Any, rows: int) -> dict[str, float]:
    """Peak memory of the TOFU suite over `rows` forget rows, in this process."""
    import letheon as lt
    from letheon.audit.tofu import TofuSuite
    from letheon.core.data import Data
    from letheon.core.readings import Readings

    data = _setup.data(arguments)
    subject, _ = _setup.subjects(arguments)
    run = lt.Run(seed=0)
    suite = TofuSuite(max_new_tokens=arguments.max_new_tokens, attacks="none")
    warm = Data({"forget": data["forget"][:8], "holdout": data["holdout"][:8]})
    suite.measure(Readings(subject, run), warm, run)
    grown = Data({"forget": _setup.many(data["forget"], rows), "holdout": data["holdout"]}, "grown")
    grown.digest  # noqa: B018  kept by the split from now on
    peak = _timing.Peak()
    readings = Readings(subject, run)
    found = suite.measure(readings, grown, run)
    total = peak.grown()
    held = (sum(map(_held, readings._memory.values())) + sum(_held(finding.rows) for finding in found)) / 2**20
    return {"rows": rows, "mebibytes": total, "held_for_rows": held, "working": total - held}


def _held(value: Any) -> int:
    """Bytes of arrays, texts and tuples of numbers."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, float)):
        return sys.getsizeof(value)
    if isinstance(value, (tuple, list)):
        return sys.getsizeof(value) + sum(map(_held, value))
    return sum(map(_held, vars(value).values())) if hasattr(value, "__dict__") else 0


def main() -> None:
    """Measure, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rows", type=int, default=400, help="the smaller number of forget rows")
    parser.add_argument("--audit-rows", type=int, nargs="*", default=[400, 4000], help="forget rows of the audits")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest generation in the audits")
    parser.add_argument("--memory", type=int, help="only measure the peak memory of an audit of this many rows, in this process")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    if arguments.memory:
        print(json.dumps(audit_memory(arguments, arguments.memory)))
        return
    result: dict[str, Any] = {"benchmark": "scaling", "machine": _timing.machine(), "epoch": epoch_seconds(arguments)}
    settings = (*_setup.given(arguments), "--max-new-tokens", str(arguments.max_new_tokens))
    result["audit"] = [_timing.in_own_process(__file__, "--memory", str(rows), *settings) for rows in arguments.audit_rows]
    growth = max(entry["working"] for entry in result["audit"]) / result["audit"][0]["working"]
    result |= {"at_most_times": AT_MOST, "audit_growth": growth, "audit_growth_at_most": MORE_MEMORY}
    result["passed"] = min(result["epoch"]["times"].values()) <= AT_MOST and growth <= MORE_MEMORY
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit("ten times the rows cost too much")


if __name__ == "__main__":
    main()

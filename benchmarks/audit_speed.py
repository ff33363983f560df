"""The whole TOFU audit of one model: letheon against the straightforward way, in one run, with equal numbers.

    python benchmarks/audit_speed.py --model MODEL --retrained RETRAINED --tofu TOFU

Both sides get the rows encoded or loaded, and what the retrained model says, before the clock starts. Nothing is kept on disk and nothing
in memory from one repeat to the next. letheon also draws bootstrap intervals and counts refusals; the other side does not. The
straightforward way is what the documentation shows and what OpenUnlearning does; with `--careful` a second one avoids its needless losses.
"""

from __future__ import annotations

import sys
from typing import Any

import _setup
import _timing
import numpy as np
from _baseline_audit import Log, Suite

AT_LEAST = 10.0
# Tolerances: of float32 sums in another order. Generations may differ where two tokens tie, gradient norms add up many small numbers.
RELATIVE = {"probability": 1e-3, "truth-ratio": 1e-3, "membership-gradnorm": 2e-3}
TIES = 0.01  # share of rows whose generation may differ


def compare(findings: Any, log: Log) -> dict[str, Any]:
    """Largest difference per metric between the findings of letheon and the log of the other side.

    Raises:
        SystemExit: numbers that should be equal are not.
    """
    worst: dict[str, float] = {}
    faults: list[str] = []
    rows = scalars = 0
    for found in findings:
        key = f"{found.split}/{found.name}"
        if found.name in log.values and found.value is not None:
            scalars += 1
            gap = abs(found.value - log.values[found.name]) / max(1e-12, abs(found.value))
            worst[found.name] = gap
            if gap > (0.2 if found.name == "forget-quality" else 5e-3):
                faults.append(f"{found.name}: {found.value:.6g} against {log.values[found.name]:.6g}")
        if key in log.rows and found.rows:
            pairs = [(key, found.rows), (f"holdout/{found.name}", found.extra.get("holdout_rows", ()))]
            for where, values in pairs:
                if len(values):
                    rows += len(values)
                    gap, fault = _gap(found.name, np.array(values, dtype=np.float64), log.rows[where])
                    worst[where] = gap
                    faults += [f"{where}: {fault}"] if fault else []
    if faults or not rows or not scalars:
        raise SystemExit("numbers differ: " + "; ".join(faults or ["nothing was compared"]))
    return {"rows_compared": rows, "values_compared": scalars, "largest_difference": {key: float(f"{gap:.3g}") for key, gap in worst.items()}}


def _gap(name: str, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    if name in ("rouge-l-recall", "extraction-strength", "exact-memorisation"):  # steps: equal but for ties
        share = float((np.abs(ours - theirs) > 1e-6).mean())
        return share, f"{share:.1%} of rows differ" if share > TIES else ""
    gap = float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-2)).max())
    allowed = RELATIVE.get(name, 1e-3)
    return gap, f"off by {gap:.2g}" if gap > allowed else ""


def main() -> None:
    """Measure, compare, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--careful", action="store_true", help="also measure a careful version of the straightforward way")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    import letheon as lt
    from letheon.audit.tofu import TofuSuite
    from letheon.core.readings import Readings
    from letheon.core.subject import Subject
    from letheon.maths import recall

    data = _setup.data(arguments)
    subject, retrained = _setup.subjects(arguments)
    run, suite = lt.Run(seed=0), TofuSuite(attacks="none")
    costs: list[dict[str, float]] = []

    def forget_caches() -> None:
        recall.rouge_l.cache_clear()
        recall._stem.cache_clear()

    ways = {"straightforward": False, **({"careful": True} if arguments.careful else {})}
    suites = {name: Suite(subject.module, subject.encoder.tokenizer, data, careful=way) for name, way in ways.items()}
    _timing.say("measuring the retrained model once, on both sides, without the clock")
    reference = log = None
    if retrained is not None:
        reference = Readings(retrained, run)
        suite.measure(reference, data, run, reference)
        log = Suite(retrained.module, retrained.encoder.tokenizer, data).run()

    def ours() -> Any:
        forget_caches()
        fresh = Readings(Subject(subject.module, subject.encoder, name=subject.name), run)
        found = suite.measure(fresh, data, run, reference)
        costs.append(dict(fresh.costs))
        return found

    others = {name: lambda suite=suite: suite.run(log) for name, suite in suites.items()}
    took = _timing.alternate({"letheon": ours, **others}, arguments.repeats)
    checked = {name: compare(took["letheon"][-1].result, took[name][-1].result) for name in others}
    ratio = _timing.ratios(took["straightforward"], took["letheon"])
    result = {
        "benchmark": "audit_speed",
        "machine": _timing.machine(),
        "rows": {name: len(split) for name, split in data.items() if name in suites["straightforward"].splits},
        "letheon": {**_timing.medians(took["letheon"]), "seconds_by_reading": costs[-1]},
        **{name: {**_timing.medians(took[name]), "cpu_seconds_by_metric": took[name][-1].result.seconds} for name in others},
        **ratio,
        **({"against_careful": _timing.ratios(took["careful"], took["letheon"])} if arguments.careful else {}),
        "at_least": AT_LEAST,
        "passed": ratio["cpu_ratio"] >= AT_LEAST and ratio["wall_ratio"] >= AT_LEAST,
        "equal_numbers": checked,
    }
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit(f"only {ratio['wall_ratio']:.1f} times faster by the clock, {ratio['cpu_ratio']:.1f} times by processor time; at least {AT_LEAST}")


if __name__ == "__main__":
    main()

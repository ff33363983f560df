"""What an audit found, as a statement may carry it: no rows, no texts; and which measures it lets pass.

A measure on the forgotten rows passes if four fifths of the way from the model before to never having known is gone (or the interval holds
the end of the way), an attack if it does not work, a measure on rows that stay if less than 15% of it is lost. It fails below a quarter of
the way, where an attack works, where the model was pushed clearly past the end, or if half is lost. In between it warns. What has nothing
to be compared with has no verdict. These are the bounds of the report.
"""

from __future__ import annotations

from typing import Any

from letheon.core.findings import Finding, Findings
from letheon.report.measures import kept_when
from letheon.report.phrases import BROKEN, DAMAGED
from letheon.report.places import BEFORE, RETRAINED, RETURNS, Kept, Place, judged, kept, places
from letheon.report.verdict import LITTLE, MOSTLY, verdict

from .discretion import Private

RESULTS = {"good": "PASSED", "bad": "FAILED"}  # by the tone of the verdict; all else warns


def aggregated(findings: Findings, private: Private) -> Findings:
    """Findings without anything of single rows: no per-row values, no leftovers, no paths, no digests of rows, no command."""
    models = {label: tuple(_finding(one, private) for one in found) for label, found in findings.models.items()}
    return Findings(audit=findings.audit, models=models, context=_context(findings.context, private))


def _finding(one: Finding, private: Private) -> Finding:
    rows = {len(one.rows), one.n}
    extra = {key: _some(part, rows) for key, part in one.extra.items() if not _per_row(part, rows)}
    return one.model_copy(update={"rows": (), "note": private.withheld(one.note), "extra": private.withheld(extra)})


def _per_row(value: Any, rows: set[int]) -> bool:
    return isinstance(value, list | tuple) and len(value) in rows


def _some(value: Any, rows: set[int]) -> Any:
    """A value without the lists that have an entry for each row."""
    if isinstance(value, dict):
        return {key: _some(part, rows) for key, part in value.items() if not _per_row(part, rows)}
    return value


def _context(context: dict[str, Any], private: Private) -> dict[str, Any]:
    """How it was measured. Digests of rows stay out: a digest of one short row can be guessed."""
    found: dict[str, Any] = {key: private.withheld(context[key]) for key in ("audit", "run", "versions") if key in context}
    splits = context.get("data", {}).get("splits", {}) if isinstance(context.get("data"), dict) else {}
    found["rows"] = {private.withheld(str(name)): facts.get("rows") for name, facts in splits.items() if isinstance(facts, dict)}
    subjects = context.get("subjects")
    for label, facts in subjects.items() if isinstance(subjects, dict) else ():
        if isinstance(facts, dict):
            steps = [step for step in facts.get("lineage", ()) if isinstance(step, dict)]
            known = {key: facts[key] for key in ("digest", "parameters") if key in facts}
            wanted = ("method", "settings", "seed", "version")
            known["lineage"] = [private.withheld({key: step.get(key) for key in wanted}) for step in steps]
            found.setdefault("subjects", {})[label] = known
    return found


def table(findings: Findings) -> list[dict[str, Any]]:
    """One entry for each measure of the judged model, with its threshold and verdict; unknown is None."""
    label = judged(findings)
    if label is None:
        return []
    forgotten = {id(place.finding): place for place in places(findings, label)}
    retained = {id(one.finding): one for one in kept(findings, label)}
    return [_entry(findings, one, forgotten.get(id(one)), retained.get(id(one))) for one in findings.models[label]]


def _entry(findings: Findings, one: Finding, place: Place | None, stays: Kept | None) -> dict[str, Any]:
    found = {key: getattr(one, key) for key in ("name", "split", "audit", "version", "n", "value", "direction")}
    found["interval"] = None if one.low is None or one.high is None else [one.low, one.high]
    found["reference"] = {key: findings.value(key, one.name, one.split) for key in (BEFORE, RETRAINED) if key in findings.models}
    threshold, said = _judged(place) if place is not None else _stayed(stays, one) if stays is not None else (None, None)
    return {**found, "threshold": threshold, "verdict": said}


def _judged(place: Place) -> tuple[float | None, str | None]:
    if place.share is None:
        return None, None
    attack = bool(place.attack or place.membership)
    needed = 1 - RETURNS if attack else MOSTLY
    before, end = place.before, place.anchor if place.anchor is not None else 0.0
    threshold = None if before is None else before + needed * (end - before)
    if place.works or place.past:
        return threshold, "failed"
    if attack or place.share >= MOSTLY or place.covered:
        return threshold, "passed"
    return threshold, "failed" if place.share < LITTLE else "warned"


def _stayed(stays: Kept, one: Finding) -> tuple[float | None, str | None]:
    if stays.lost is None or not stays.before:
        return None, None
    threshold = stays.before * (1 - DAMAGED) if kept_when(one) > 0 else stays.before / (1 - DAMAGED)
    return threshold, "failed" if stays.lost >= BROKEN else "warned" if stays.lost >= DAMAGED else "passed"


def key(entry: dict[str, Any]) -> str:
    """How a measure is called: `split/name`, or `name` where there is no split."""
    return f"{entry['split']}/{entry['name']}" if entry["split"] else str(entry["name"])


def result(findings: Findings | None, entries: list[dict[str, Any]], required: tuple[str, ...]) -> dict[str, Any]:
    """The gate in the words of in-toto's test-result: PASSED where the verdict is good, FAILED where it is bad or a required measure
    is absent or failed, WARNED else (no audit is no pass)."""
    lists: dict[str, list[str]] = {"passed": [], "warned": [], "failed": []}
    for entry in entries:
        if entry["verdict"] is not None:
            lists[entry["verdict"]].append(key(entry))
    asked = [name for name in required if not met(name, entries)]
    lists["failed"] += [name for name in asked if name not in lists["failed"]]
    said = "WARNED" if findings is None else RESULTS.get(verdict(findings).tone, "WARNED")
    return {"result": "FAILED" if asked else said, **{f"{name}Tests": sorted(set(found)) for name, found in lists.items()}}


def met(name: str, entries: list[dict[str, Any]]) -> bool:
    """Whether the measure `split/name` (or `name`) was taken and did not fail."""
    found = [entry for entry in entries if name in (key(entry), entry["name"])]
    return bool(found) and all(entry["value"] is not None and entry["verdict"] != "failed" for entry in found)

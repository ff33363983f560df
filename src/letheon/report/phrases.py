"""The clauses of a verdict: each says one thing that was measured, or that was not, in words and with its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from letheon.core.findings import Findings

from .measures import side
from .places import BEFORE, RETRAINED, RETURNS, Kept, Place, labels
from .text import clean, finite, percent, short

BROKEN, DAMAGED, SAME = 0.5, 0.15, 0.03  # share of a retention value that is lost
TOLD_APART = 0.05  # p-value below which a KS test counts as telling two models apart


@dataclass(frozen=True)
class Clause:
    """One part of the sentence, with the heading it stands under on a page."""

    heading: str
    text: str


def _anchor_words(place: Place) -> str:
    return "" if place.anchor is None else f"{place.anchor_name} {short(place.anchor)}"


def _way(place: Place) -> str:
    """How far along, in words."""
    if place.share is None:
        return ""
    if place.anchor is None:
        return f"down by {percent(place.share)}" if place.share >= 0 else f"up by {percent(-place.share)}"
    if place.share < -0.02:
        return "further away than before"
    if place.share > 1 and place.past:
        return "past it"
    return f"{percent(min(max(place.share, 0.0), 1.0))} of the way"


def _moved(before: float, after: float) -> str:
    if short(before) == short(after):
        return f"stayed at {short(after)}"
    return f"{'fell' if after < before else 'rose'} from {short(before)} to {short(after)}"


def _title(place: Place) -> str:
    return f"the {place.label}" if place.membership else place.label


def headline(placed: list[Place], compared: bool) -> list[Clause]:
    """What the first measure says, as the opening clause."""
    if not placed:
        return []
    first = next((p for p in placed if p.share is not None), placed[0]) if compared else placed[0]
    what = f"AUC of {_title(first)}" if first.membership else first.label
    anchor = _anchor_words(first)
    if first.before is None or not compared:
        low, high = finite(first.finding.low), finite(first.finding.high)
        around = "" if low is None or high is None else f", between {short(low)} and {short(high)}"
        return [Clause("Forgetting", f"{what} is {short(first.after)}{around} ({anchor or 'nothing to compare it with'})")]
    text = f"{what} {_moved(first.before, first.after)}" + (f" ({anchor})" if anchor else "")
    others = [p for p in placed if p.share is not None]
    if first.share is not None:
        text += f", {_way(first)}"
        if len(others) > 1 and first.left and min(others, key=lambda p: p.share) is first:
            text += f", the least of {len(others)} measures"
    return [Clause("Forgetting", text)]


def _details(place: Place) -> str:
    parts = [f"AUC {short(place.after)}" if place.membership else short(place.after), _anchor_words(place), _way(place)]
    return ", ".join(part for part in parts if part)


def leftovers(placed: list[Place], compared: bool) -> list[Clause]:
    """The worst measure besides the first, and the strongest attack if that is another one."""
    first = next((p for p in placed if p.share is not None), None) if compared else (placed[0] if placed else None)
    placed = [p for p in placed if not p.attack and (p is first or first is None or not _same_in_another_form(p, first))]
    if compared:
        others = sorted((p for p in placed if p.share is not None and p is not first), key=lambda p: p.share)
        attacks = [p for p in others if p.membership]
    else:
        others = sorted((p for p in placed if p.excess is not None and p is not first), key=lambda p: -p.excess)
        attacks = [p for p in others if p.membership]
    clauses = []
    worst, attack = (others or [None])[0], (attacks or [None])[0]
    if worst is not None and not worst.membership:
        below = compared and worst.share is not None and first is not None and first.share is not None and worst.share < first.share
        name = ("worst leftover" if below and worst.left else "weakest other measure") if compared else "highest other measure"
        heading = "Worst leftover" if name == "worst leftover" else "Other measures"
        clauses.append(Clause(heading, f"{name}: {worst.label} ({_details(worst)})"))
    if attack is not None:
        tells = attack.left if compared else (attack.excess or 0) > 0.1 and not attack.held
        heading = "Worst leftover" if attack is worst and tells and compared else "Membership"
        says = "still tells members apart" if tells else "no longer tells members apart" if compared else "hardly tells members apart"
        if attack.past:
            says = "tells members apart the other way round"
        clauses.append(Clause(heading, f"{_title(attack)} {says} ({_details(attack)})"))
    return clauses


def _same_in_another_form(place: Place, first: Place) -> bool:
    return place.finding.name == first.finding.name and place.finding.split.startswith(f"{first.finding.split}-")


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def other_forms(placed: list[Place]) -> list[Clause]:
    """What the opening measure says where the same facts are asked in other forms."""
    first = next((p for p in placed if p.share is not None), None)
    forms = [p for p in placed if first is not None and p.share is not None and _same_in_another_form(p, first)]
    if first is None or not forms:
        return []
    gone, stays = [], []
    for place in forms:
        name = clean(place.finding.split.removeprefix(f"{first.finding.split}-"), 40)
        still = place.left and not place.covered and (place.back or 0) > RETURNS
        stays.append((place.back or 0, name)) if still else gone.append(name)
    parts = [f"gone as {_joined(gone)} too"] if gone else []
    parts += [f"{percent(back)} of it stays as {name}" for back, name in sorted(stays, reverse=True)]
    return [Clause("Other forms", f"in other forms: {', '.join(parts)}")]


def brought_back(placed: list[Place], findings: Findings, label: str) -> list[Clause]:
    """Every attack that works, worst first, and how many did not: no good score can hide a failed one."""
    tried = [p for p in placed if p.attack and p.share is not None]
    if not tried:
        return []
    first = next((p for p in placed if p.share is not None), tried[0])
    works = sorted((p for p in tried if p.works), key=lambda p: -(p.back or 0))
    works = [p for i, p in enumerate(works) if p.attack not in [other.attack for other in works[:i]]]
    others = [p for p in tried if p.attack not in [other.attack for other in works]]
    held, unjudged = [p for p in others if p.anchor is not None], [p for p in others if p.anchor is None]
    clauses, count = [], sum(p.anchor is not None for p in tried)
    if (first.share or 0) < 0.25 and not held and count > 1:
        clauses.append(Clause("Attacks", f"all {count} attacks{' that have an anchor' if unjudged else ''} find it too"))
        works = []
    for place in works:
        verb = "returns" if (place.back or 0) > (first.back or 0) + 0.1 else "is there"
        found = findings.get(label, place.finding.name.replace("relearned", "steps-to-half"), place.finding.split)
        steps = None if found is None or "relearned" not in place.finding.name else finite(found.value)
        text = f"{percent(place.back or 0)} {verb} {place.attack}"
        if steps:
            text += f", half of it within {steps:.0f} steps"
        clauses.append(Clause("Brought back", f"{text} ({_details_of_attack(place)})"))
    open_ways = [place.attack for place in unjudged]
    if ways := list(dict.fromkeys(place.attack for place in held if place.attack not in open_ways)):
        clauses.append(Clause("Attacks", f"nothing that counts returns {_joined(ways)}"))
    if unjudged:
        ways, most = list(dict.fromkeys(open_ways)), max(unjudged, key=lambda p: p.back or 0)
        said = f"{'at most ' if len(unjudged) > 1 else ''}{most.label} {short(most.after)}, before {short(most.before)}"
        clauses.append(Clause("Attacks", f"what is found {_joined(ways)} has no anchor to be judged by ({said})"))
    return clauses


def _details_of_attack(place: Place) -> str:
    return ", ".join(part for part in (f"{place.label} {short(place.after)}", _anchor_words(place)) if part)


def pushed(placed: list[Place]) -> list[Clause]:
    """Which measures went past the retrained model."""
    past = [place for place in placed if place.past]
    if not past:
        return []
    far = max(past, key=lambda place: abs(place.after - (place.anchor or 0.0)) / max(abs(place.anchor or 0.0), 1.0))
    what = f"{_title(far)} has AUC {short(far.after)}" if far.membership else f"{far.label} is {short(far.after)}"
    more = f", and so are {len(past) - 1} more" if len(past) > 2 else ", and so is 1 more" if len(past) == 2 else ""
    anchor = "the retrained model" if far.anchor_name == RETRAINED else far.anchor_name
    return [Clause("Past the mark", f"{what}, beyond {anchor} ({short(far.anchor)}){more}: the erasing itself shows")]


def told_apart(findings: Findings, label: str) -> float | None:
    """The p-value of the test that tells the model `label` from the retrained one, or None."""
    for finding in findings.models.get(label, ()):
        if finding.name == "forget-quality" and finite(finding.value) is not None:
            return finite(finding.value)
    return None


def test(p: float | None) -> list[Clause]:
    """What the test against the retrained model says."""
    if p is None:
        return []
    says = "tells its truth ratios from" if p < TOLD_APART else "does not tell its truth ratios from"
    return [Clause("KS test", f"a KS test {says} those of the retrained model (p = {short(p)})")]


def _kept_words(one: Kept) -> str:
    retrained = "" if one.retrained is None else f" (retrained {short(one.retrained)})"
    if one.before is None or one.lost is None:
        return f"{one.label} is {short(one.after)}{retrained}"
    low, high = finite(one.finding.low), finite(one.finding.high)
    covered = low is not None and high is not None and low <= one.before <= high
    if one.lost >= BROKEN:
        verb = "collapsed"
    elif one.lost >= DAMAGED:
        verb = "was damaged"
    elif one.lost < -SAME and not covered:
        verb = "improved"
    else:
        verb = "kept" if one.lost <= SAME or covered else "slipped"
    return f"{one.label} {verb}, {short(one.before)} to {short(one.after)}{retrained}"


def retention_clauses(retention: list[Kept], compared: bool) -> list[Clause]:
    """What happened to the rest of the model."""
    if not retention:
        return []
    clauses = [Clause("Retention", _kept_words(retention[0]))]
    worst = max((one for one in retention if one.lost is not None), key=lambda one: one.lost, default=None)
    if compared and worst is not None and worst is not retention[0] and worst.lost >= DAMAGED:
        clauses.append(Clause("Retention", f"worst of {len(retention)}: {_kept_words(worst)}"))
    return clauses


def missing(findings: Findings, label: str, placed: list[Place], retention: list[Kept]) -> list[Clause]:
    """What the verdict could not use, each with the reason that the audit gave."""

    def why(wanted: str) -> str:
        notes = [f.note for f in findings.models[label] if side(f) == wanted and f.note and finite(f.value) is None]
        return f" ({clean(notes[0], 160)})" if notes else ""

    clauses = []
    first = placed[0] if placed else None
    if first is not None and first.before is not None and first.anchor is not None and first.share is None:
        than = f"{'the retrained model' if first.anchor_name == RETRAINED else first.anchor_name} ({short(first.anchor)})"
        say = f"by {first.label} the original ({short(first.before)}) knows no more than {than}"
        clauses.append(Clause("Not measured", f"{say}, so one of the two, or the rows, may be wrong"))
    if first is not None and first.finding.n == 1:
        clauses.append(Clause("Not measured", "one row gives no interval, so each of these numbers may be chance"))
    if label != RETRAINED and RETRAINED not in findings.models:
        say = "no retrained model to compare with, so how much should be left is not known"
        known = {place.anchor_name for place in placed} - {""}
        if "rows never seen" in known:
            say = "no retrained model to compare with: rows never seen stand in for it"
        elif label == BEFORE or BEFORE not in findings.models:
            say = "nothing to compare it with, so what it learned from these rows cannot be told from what anyone would guess"
        clauses.append(Clause("Not measured", say))
    if label != BEFORE and BEFORE not in findings.models and len(labels(findings)) > 1:
        clauses.append(Clause("Not measured", "the model before the change was not audited, so how far it moved is not known"))
    if not any(not place.membership for place in placed):
        clauses.append(Clause("Not measured", f"nothing on the forget split was measured{why('forget')}"))
    if not any(place.membership for place in placed):
        clauses.append(Clause("Not measured", f"no membership attack was measured{why('membership')}"))
    if not retention:
        clauses.append(Clause("Not measured", f"retention was not measured{why('retention')}"))
    return clauses

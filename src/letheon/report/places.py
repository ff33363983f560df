"""Where the judged model stands: each measure placed between a model that knows the rows and one that never knew them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev

from letheon.core.findings import Finding, Findings

from .measures import PREFIX, kept_when, measure, side
from .text import clean, finite

BEFORE, AFTER, RETRAINED = "before", "after", "retrained"
CHANCE = 0.5  # AUC of a coin toss
NEAR = 0.95  # share of the way from which a measure counts as arrived
LEAST_GAP = 0.05  # anchors nearer than this, as a share of the scale, cannot tell knowing from not knowing
RETURNS = 0.2  # share of the way that an attack must leave or bring back to count as one that works
LEVEL = 0.05  # chance that anything at all is called returned, or pushed too far, in an audit of a model that never knew
PAST = 0.15  # how far beyond the retrain, as a share of the scale, is pushed too far: exact retrains differ by 0.10 (docs/audits.md)
PAST_CHANCE = 0.2  # the same where the anchor is chance: never having known is not exactly chance

# The measure that opens the verdict and the trade-off plot: the first of these that was measured.
FIRST_FORGET = ("probability", "rouge-l-recall", "exact-memorisation", "extraction-strength", "nll", "perplexity")
FIRST_KEPT = ("model-utility", "rouge-l-recall", "probability", "truth-ratio", "exact-memorisation", "nll", "perplexity")


@dataclass(frozen=True)
class Place:
    """One measure of the judged model, set between its anchors.

    `anchor` is the value of never having known, and `anchor_name` says where it comes from. `share` is how much of the way from
    `before` to `anchor` was gone: 0 unchanged, 1 arrived, above 1 past it, None where it cannot be said, as where `before` knows no more
    than the anchor. `excess` is how far the value lies on the knowing side of its anchor, as a share of the scale, and `apart` how far
    on either side, in 95% intervals of their difference; both None without an anchor. `wider` is how much wider than one 95% interval the
    interval must be, so that `LEVEL` holds for all measures of the audit together (Bonferroni, normal law).
    """

    finding: Finding
    after: float
    before: float | None
    anchor: float | None
    anchor_name: str
    share: float | None
    beyond: bool  # the value lies past the anchor by more than chance in a single measure would have it
    excess: float | None = None
    apart: float | None = None  # None also where the value has no interval
    wider: float = 1.0

    @property
    def membership(self) -> bool:
        return self.finding.name.startswith(PREFIX)

    @property
    def kind(self) -> str:
        """The name of the attack, for a membership measure."""
        return clean(self.finding.name.removeprefix(PREFIX), 60)

    @property
    def label(self) -> str:
        """Split and title: `forget probability`, or `min-k membership attack`."""
        return f"{self.kind} membership attack" if self.membership else _label(self.finding)

    @property
    def attack(self) -> str:
        """What was done to bring the rows back, such as "after relearning"; empty where the model was asked as it is."""
        return "" if self.membership else measure(self.finding.name).attack

    @property
    def back(self) -> float | None:
        """How much of the way is not gone: the share that an attack finds or brings back, 0 to 1."""
        return None if self.share is None else min(max(1 - self.share, 0.0), 1.0)

    @property
    def works(self) -> bool:
        """For an attack: whether it finds or brings back more than can be put down to chance; never without an anchor."""
        tried = bool(self.attack or self.membership) and self.anchor is not None
        return tried and not self.held and self.back is not None and self.back > RETURNS

    @property
    def past(self) -> bool:
        """Clearly beyond the anchor, even if this is the strangest of all measures of the audit."""
        return self.beyond and not self.held

    @property
    def held(self) -> bool:
        """Value and anchor differ by no more than the strangest of all measures of the audit may."""
        return self._holds(self.wider)

    @property
    def covered(self) -> bool:
        """Value and anchor differ by no more than two estimates of the same may, at 95%."""
        return self._holds(1.0)

    def _holds(self, wider: float) -> bool:
        return self.apart is not None and self.apart <= wider

    @property
    def left(self) -> bool:
        """Something of what was known is left: the anchor is not reached, not even within the interval of the value.

        What an attack without an anchor finds may be what it teaches.
        """
        if self.share is None or (self.attack and self.anchor is None):
            return False
        return not (self.share >= NEAR or (self.covered and self.share >= 0.8))


@dataclass(frozen=True)
class Kept:
    """One measure on rows to keep: `lost` is the share of the value before that is gone (negative: gained), None without a before."""

    finding: Finding
    after: float
    before: float | None
    retrained: float | None
    lost: float | None

    @property
    def label(self) -> str:
        return _label(self.finding)


def _label(finding: Finding) -> str:
    title = measure(finding.name).title
    return f"{clean(finding.split, 60)} {title}" if finding.split else title


def labels(findings: Findings) -> list[str]:
    """The models in the order in which they are shown: before, after, any others by name, retrained."""
    order = {BEFORE: 0, AFTER: 1, RETRAINED: 3}
    return sorted(findings.models, key=lambda label: (order.get(label, 2), label))


def judged(findings: Findings) -> str | None:
    """The label of the model that the verdict is about: `after`, else the first that is not an anchor, else `before`, else the only one."""
    known = labels(findings)
    for label in (AFTER, *(label for label in known if label not in (BEFORE, RETRAINED)), BEFORE, *known):
        if label in known:
            return label
    return None


def value(findings: Findings, label: str, name: str, split: str) -> float | None:
    """A finite value, or None."""
    return finite(findings.value(label, name, split))


def _finding(findings: Findings, label: str, name: str, split: str) -> Finding | None:
    """A finding with a finite value, or None."""
    found = findings.get(label, name, split)
    return None if found is None or finite(found.value) is None else found


def _kind(finding: Finding) -> tuple[bool, bool, object]:
    """What two findings of one name must share to be the same quantity: a share among options is no plain probability."""
    return bool(finding.extra.get("normalised")), "chance" in finding.extra, finding.extra.get("score")


def _holdout(findings: Findings, label: str, finding: Finding) -> Finding | None:
    """The same measure on rows that nobody trained on, in the same form where there are any: `forget-F` is set against `holdout-F`.

    Of the model before the change where there is one.
    """
    for split in (finding.split.replace("forget", "holdout", 1), "holdout"):
        for owner in (BEFORE, label):
            never = _finding(findings, owner, finding.name, split)
            if never is not None and _kind(never) == _kind(finding):
                return never
    return None


def _anchor(findings: Findings, label: str, finding: Finding) -> tuple[Finding | None, str]:
    never = _finding(findings, RETRAINED, finding.name, finding.split) if label != RETRAINED else None
    if never is not None:
        return never, RETRAINED
    attack = finding.name.startswith(PREFIX)
    never = None if attack else _holdout(findings, label, finding)
    if never is not None:
        return never, "rows never seen"
    chance = CHANCE if attack else finite(finding.extra.get("chance"))
    return (None, "") if chance is None else (Finding(name=finding.name, value=chance, n=0, split=finding.split), "chance")


@dataclass(frozen=True)
class _At:
    """Where a finding is set between anchors: its value, and how far its 95% interval reaches down and up."""

    value: float
    reach: tuple[float, float] | None


def _at(finding: Finding, ratios: bool) -> _At:
    """A finding with a value; of truth ratios R, if `ratios`, the mean of R / (1 + R).

    The score of a truth ratio, min(R, 1 / R), falls again beyond R = 1: a model pushed past the retrained one would look as if it knew.
    """
    if ratios:
        rows = _shares(finding)
        room = NormalDist().inv_cdf(0.975) * stdev(rows) / math.sqrt(len(rows)) if len(rows) > 1 else None
        return _At(fmean(rows), None if room is None else (room, room))
    value, low, high = finite(finding.value) or 0.0, finite(finding.low), finite(finding.high)
    return _At(value, None if low is None or high is None else (value - low, high - value))


def _shares(finding: Finding) -> list[float]:
    """R / (1 + R) of every row of a truth ratio that keeps log R, else nothing."""
    ratios = finding.extra.get("log_ratio") if finding.name == "truth-ratio" else None
    return [(1 + math.tanh(x / 2)) / 2 for part in ratios if (x := finite(part)) is not None] if isinstance(ratios, list | tuple) else []


def _place(findings: Findings, label: str, finding: Finding) -> Place | None:
    shown = finite(finding.value)
    if shown is None:
        return None
    about = measure(finding.name)
    old = _finding(findings, BEFORE, finding.name, finding.split) if label != BEFORE else None
    never, anchor_name = _anchor(findings, label, finding)
    ratios = all(_shares(one) for one in (finding, old, never) if one is not None)
    mine, then, goal = _at(finding, ratios), None if old is None else _at(old, ratios), None if never is None else _at(never, ratios)
    after, before, anchor = mine.value, None if then is None else then.value, None if goal is None else goal.value
    size = 1.0 if about.scale == "unit" else max(abs(x) for x in (before or 0.0, anchor or 0.0, after))
    share, beyond, excess = None, False, None
    turned = before is not None and anchor is not None and (before - anchor) * about.knows < 0  # `before` knows less than the anchor
    if before is not None and anchor is not None and abs(before - anchor) > LEAST_GAP * size and not turned:
        share = finite((before - after) / (before - anchor))
    elif before is not None and anchor is None and about.scale == "unit" and about.knows > 0 and before > LEAST_GAP:
        share = (before - after) / before  # nothing better to go by: the share of the value that is gone
    if anchor is not None:
        direction = about.knows if before is None or before == anchor or turned else (1 if before > anchor else -1)
        room = PAST if anchor_name != "chance" else PAST_CHANCE
        start = before if before is not None and turned else anchor
        beyond = direction != 0 and (start - after) * direction > room * size
        excess = (after - anchor) * (about.knows or 1) / (size or 1.0)
    ends = [None if one is None else finite(one.value) for one in (old, never)]
    return Place(finding, shown, ends[0], ends[1], anchor_name, share, beyond, excess, _apart(mine, goal))


def _apart(one: _At, other: _At | None) -> float | None:
    """How far two values lie apart, in 95% intervals of their difference; None where one is missing or the first has no interval."""
    if other is None or one.reach is None:
        return None
    up, far = other.value > one.value, other.reach or (0.0, 0.0)
    gap, room = abs(other.value - one.value), math.hypot(one.reach[up], far[not up])
    return gap / room if room else math.inf if gap else 0.0


def places(findings: Findings, label: str) -> list[Place]:
    """Every forget-side, attack and membership measure of the model `label`, the one that opens the verdict first."""
    wanted = [f for f in findings.models.get(label, ()) if side(f) in ("forget", "attack", "membership")]
    found = [place for finding in wanted if (place := _place(findings, label, finding)) is not None]
    normal, compared = NormalDist(), sum(place.anchor is not None for place in found)
    wider = normal.inv_cdf(1 - LEVEL / 2 / max(1, compared)) / normal.inv_cdf(0.975)
    found = [replace(place, wider=wider) for place in found]

    def order(place: Place) -> tuple[int, int, str]:
        name, split = place.finding.name, place.finding.split
        other = len(FIRST_FORGET) + bool(place.attack) + 2 * place.membership
        return (FIRST_FORGET.index(name) if name in FIRST_FORGET else other, len(split), split)

    return sorted(found, key=order)


def kept(findings: Findings, label: str) -> list[Kept]:
    """Every retention measure of the model `label` that has a better side, the one that opens the verdict first."""
    found = []
    for finding in findings.models.get(label, ()):
        after, direction = finite(finding.value), kept_when(finding)
        if side(finding) != "retention" or after is None or direction == 0:
            continue
        before = value(findings, BEFORE, finding.name, finding.split) if label != BEFORE else None
        lost = None if not before else direction * (before - after) / abs(before)
        if lost is not None and direction < 0:
            lost = 1 - before / after if after > 0 and before > 0 else lost  # twice the perplexity is half lost
        lost = finite(lost)
        found.append(Kept(finding, after, before, value(findings, RETRAINED, finding.name, finding.split), lost))

    def order(one: Kept) -> tuple[int, int, str]:
        name, split = one.finding.name, one.finding.split
        return (FIRST_KEPT.index(name) if name in FIRST_KEPT else len(FIRST_KEPT), not split.startswith("retain"), split)

    return sorted(found, key=order)

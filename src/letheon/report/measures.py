"""What is known about each measure: its title, what it tests, how to read it. A name that is not here still works, in plain form."""

from __future__ import annotations

from typing import Literal

from letheon.core.findings import Finding

from .known import KNOWN, Measure
from .text import clean

Side = Literal["forget", "attack", "membership", "retention", "holdout", "test"]


_ATTACK_READ = (
    "AUC: the chance that a forgotten row looks more like training data than a row that was never seen."
    " 1 is full exposure, 0.5 is a coin toss. TPR@1% is the share of forgotten rows that it finds at 1% false alarms."
    " A model that never saw the rows need not sit at 0.5, so read it against the retrained model: far below it is as telling as far above."
)

_ATTACKS = {
    "loss": "the mean negative log-likelihood of the answer",
    "zlib": "the negative log-likelihood against the size of the answer after zlib compression",
    "min-k": "the least likely tokens of the answer",
    "min-k++": "the least likely tokens, each against what the model expected at its place",
    "reference": "the negative log-likelihood against that of a reference model",
    "gradnorm": "the size of the gradient that the answer would cause",
}

PREFIX = "membership-"


def measure(name: str) -> Measure:
    """The facts about `name`; for an unknown name its words and the statement that nothing more is known."""
    if name in KNOWN:
        return KNOWN[name]
    if name.startswith(PREFIX):
        kind = clean(name.removeprefix(PREFIX), 60)
        what = _ATTACKS.get(kind, f"the score `{kind}`")
        return Measure(f"membership, {kind}", f"An attacker guesses from {what} whether a row was trained on.", _ATTACK_READ, 1)
    tests = "Nothing is known here about what this measure tests; see the audit that gave it."
    return Measure(clean(name.replace("-", " "), 80), tests, "", 0, "free")


def rank(name: str) -> int:
    """The place of a measure in a table: what is plainest first, unknown names last."""
    return list(KNOWN).index(name) if name in KNOWN else len(KNOWN)


def side(finding: Finding) -> Side:
    """Which part of the question a finding speaks to."""
    if finding.name.startswith(PREFIX):
        return "membership"
    about, gone = measure(finding.name), "forget" in finding.split
    if about.derived or finding.name == "refusal-rate" or (about.attack and not gone):
        return "test"
    if gone:
        return "attack" if about.attack else "forget"
    return "holdout" if finding.split.startswith("holdout") else "retention"


def kept_when(finding: Finding) -> int:
    """For a finding on rows to keep: +1 where more is better, -1 where less is better, 0 where neither is known."""
    if finding.direction in ("higher", "lower"):
        return 1 if finding.direction == "higher" else -1
    if finding.name == "truth-ratio":
        return 1
    return measure(finding.name).knows


def better(finding: Finding) -> tuple[str, str]:
    """A sign and words for the better direction of a finding."""
    return {
        "higher": ("↑", "more is better"),
        "lower": ("↓", "less is better"),
        "reference": ("◇", "nearer to retrained is better"),
        "none": ("", ""),
    }[finding.direction]

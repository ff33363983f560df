"""What a reader of evidence may ask for beyond whole bytes and good signatures, and whether a bundle meets it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from letheon.core.errors import LetheonError
from letheon.core.settings import Field, Settings

from . import statement
from .gate import met
from .opened import NOTHING, Check, Erasure, Said


class Policy(Settings):
    """What a reader asks for beyond whole bytes and good signatures."""

    threshold: int = Field(1, ge=1, description="distinct trusted keys that must have signed each statement")
    audits: tuple[str, ...] = Field((), description="measures (`split/name`, or `name`) that must have been taken and not have failed")
    gate: Literal["any", "warned", "passed"] = Field("any", description="the least result of the audit gate")
    guarantee: str = Field("output-filter", description="the least guarantee")
    now: datetime | None = Field(None, description="the time of verification; none: the local clock")
    later: tuple[Path, ...] | None = Field(None, description="bundles before and after this one; none: those beside it")


def asked(erasure: Erasure | None, gate: Said | None, policy: Policy) -> list[Check]:
    """The checks of a policy, in their order."""
    names = ("gate", "audits", "guarantee", "due", "expiry")
    if erasure is None:
        return [Check(name, "unknown", NOTHING) for name in names]
    return [_gate(gate, policy), _audits(erasure, policy), _guarantee(erasure, policy), _due(erasure), _expiry(erasure, policy)]


def _gate(gate: Said | None, policy: Policy) -> Check:
    if gate is None:
        return Check("gate", "unknown", "No signed statement says how the audit gate came out")
    order, result = ("failed", "warned", "passed"), gate.predicate.result.lower()
    worst = f": {', '.join(gate.predicate.failedTests[:5])}" if gate.predicate.failedTests else ""
    if result != "passed" and policy.gate == "any":
        return Check("gate", "unknown", f"The audit gate {result}{worst}; whether that is good enough is for the reader to say")
    good = policy.gate == "any" or order.index(result) >= order.index(policy.gate)
    text = f"The audit gate {result}{worst}"
    return Check("gate", "pass" if good else "fail", text if good else f"{text}; the policy asks for {policy.gate}")


def _audits(erasure: Erasure, policy: Policy) -> Check:
    entries = [entry.model_dump() for entry in erasure.audits]
    lacking = [name for name in policy.audits if not met(name, entries)]
    if lacking:
        return Check("audits", "fail", f"Required and not taken, or failed: {', '.join(lacking)}")
    taken = sum(entry.value is not None for entry in erasure.audits)
    if not policy.audits:
        return Check("audits", "pass" if taken else "unknown", f"{taken} measures were taken; the policy requires none")
    return Check("audits", "pass", f"The {len(policy.audits)} required measures were taken and did not fail")


def _guarantee(erasure: Erasure, policy: Policy) -> Check:
    order = list(statement.GUARANTEES)
    try:
        found = statement.level(erasure.method.guarantee)
    except LetheonError as error:
        return Check("guarantee", "fail", str(error))
    good = order.index(found) <= order.index(statement.level(policy.guarantee))
    text = f"`{erasure.method.guarantee}`: {statement.GUARANTEES[found]}"
    return Check("guarantee", "pass" if good else "fail", text if good else f"{text}. The policy asks for `{policy.guarantee}`")


def _due(erasure: Erasure) -> Check:
    executed, due = _time(erasure.request.executed), _time(erasure.request.due)
    if executed is None or due is None:
        return Check("due", "fail", "The times of the request cannot be read")
    good = executed <= due
    text = f"Executed {erasure.request.executed}, due {erasure.request.due}, by the signer's clock"
    return Check("due", "pass" if good else "fail", text if good else f"Too late. {text}")


def _expiry(erasure: Erasure, policy: Policy) -> Check:
    if erasure.expiry is None:
        return Check("expiry", "unknown", "No date was set for a new audit")
    try:
        until = date.fromisoformat(erasure.expiry)
    except ValueError:
        return Check("expiry", "fail", "The date for a new audit cannot be read")
    now = (policy.now or datetime.now(UTC)).date()
    good = now <= until
    return Check("expiry", "pass" if good else "fail", f"A new audit is due by {until}" if good else f"A new audit was due by {until}")


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None

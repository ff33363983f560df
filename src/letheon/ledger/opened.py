"""A bundle opened as a stranger would: lines, signatures by trusted keys, and only then what the verified bytes say.

A line that others added (another key, another type of payload or predicate) is left alone, as in-toto asks, and is reported as unknown. A
line that names a trusted key or one of our types and is not signed by a trusted key is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from . import dsse, evidence, statement
from .canonical import parse
from .keys import PublicKey

MOST = 1000  # lines
SHOWN = 5  # faults of one kind that are named
NOTHING = "No signed erasure statement says what it should be"
KINDS = {statement.ERASURE: "erasure", statement.TEST: "audit gate", statement.PROVENANCE: "provenance"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, how it came out, and a sentence for a person."""

    name: str
    result: Literal["pass", "fail", "unknown"]
    text: str


class _Digest(BaseModel):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Resource(BaseModel):
    name: str
    digest: _Digest


class _After(_Resource):
    files: list[_Resource]


class _Rows(BaseModel):
    count: int = Field(ge=0)
    root: str = Field(pattern="^[0-9a-f]{64}$")


class _Request(BaseModel):
    id: str
    due: str
    executed: str


class _Method(BaseModel):
    slug: str
    version: str
    source: _Digest | None
    guarantee: str


class _Entry(BaseModel):
    name: str
    split: str
    value: float | None
    verdict: Literal["passed", "warned", "failed"] | None
    n: int


class _Verdict(BaseModel):
    word: str


class Erasure(BaseModel):
    """The parts of an erasure predicate that are checked; more fields may stand beside them."""

    request: _Request
    forget: _Rows
    retain: _Rows
    holdout: _Rows
    before: _Resource
    after: _After
    method: _Method
    audits: list[_Entry]
    verdict: _Verdict | None
    findings: _Digest | None
    report: _Digest | None
    expiry: str | None
    supersedes: _Digest | None
    previous: _Digest | None
    issued: str


class Gate(BaseModel):
    """The parts of the audit gate that are checked."""

    result: Literal["PASSED", "WARNED", "FAILED"]
    failedTests: list[str] = []
    letheon_previous: _Digest | None = None


class Provenance(BaseModel):
    """The parts of a provenance that are checked."""

    letheon_previous: _Digest | None = None


_MODELS: dict[str, type[BaseModel]] = {statement.ERASURE: Erasure, statement.TEST: Gate, statement.PROVENANCE: Provenance}


@dataclass
class Said:
    """A statement that trusted keys signed."""

    kind: str
    subject: str  # sha256
    raw: dict[str, Any]  # the predicate
    predicate: Any  # Erasure, Gate or Provenance
    digest: str
    keys: tuple[str, ...] = ()


@dataclass
class Opened:
    """What a bundle holds, and the checks that opening it took."""

    checks: list[Check] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def one(self, kind: str) -> Said | None:
        """The only statement of a kind, or None."""
        found = [one for one in self.said if one.kind == kind]
        return found[0] if len(found) == 1 else None


@dataclass
class _Faults:
    """Faults by the check that they belong to, and what is merely not known."""

    bundle: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    type: list[str] = field(default_factory=list)
    statement: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def opened(path: str | Path, keys: Sequence[PublicKey], threshold: int = 1) -> Opened:
    """Open a bundle and trust what enough distinct keys have signed.

    Raises:
        DataError: there is no such file, or it is too large.
    """
    found, faults = Opened(), _Faults()
    trusted = {key.keyid: key for key in keys}
    content = evidence.read(path)
    lines = content.split(b"\n")
    if not content:
        faults.bundle.append("it is empty")
    elif lines[-1] != b"":
        faults.bundle.append("it does not end with a line break")
    if len(lines) > MOST:
        faults.bundle.append(f"it has more than {MOST} lines")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        if number <= MOST and content:
            _line(found, faults, f"line {number}", line, trusted, threshold)
    seen = "; ".join(KINDS[one.kind] for one in found.said) or "nothing"
    signers = sorted({keyid[:12] for one in found.said for keyid in one.keys})
    nothing = "" if found.said else "No line is signed by a trusted key"
    found.checks = [
        _check("bundle", faults.bundle, f"{len(lines) - 1} lines, each written as letheon writes it"),
        _check("signatures", faults.signatures, f"Signed by the trusted {_plural(signers, 'key')} {', '.join(signers)}: {seen}", nothing),
        _check("type", faults.type, f"The signed lines are of the type {dsse.IN_TOTO}", nothing),
        _check("statement", faults.statement, "The signed statements have the versions and parts that this letheon knows", nothing),
    ]
    if faults.others:
        found.checks.append(Check("others", "unknown", f"Left alone, as others may have added it: {_first(faults.others)}"))
    found.checks.append(_chain(found, bool(faults.bundle or faults.signatures or faults.statement)))
    return found


def _check(name: str, faults: list[str], good: str, unknown: str = "") -> Check:
    if faults:
        text = _first(faults)
        return Check(name, "fail", f"{text[:1].upper()}{text[1:]}")
    return Check(name, "unknown", unknown) if unknown else Check(name, "pass", good)


def _first(faults: list[str]) -> str:
    return "; ".join(faults[:SHOWN]) + (f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else "")


def _plural(some: Sequence[Any], word: str) -> str:
    return word if len(some) == 1 else f"{word}s"


def _line(found: Opened, faults: _Faults, where: str, line: bytes, trusted: dict[str, PublicKey], threshold: int) -> None:
    try:
        raw = parse(line)
        if isinstance(raw, dict) and not {"payload", "payloadType", "signatures"} & set(raw):
            faults.others.append(f"{where} is no envelope")
            return
        one = dsse.envelope(raw)
    except ValueError as error:
        faults.bundle.append(f"{where} cannot be read: {error}")
        return
    makers = dsse.signed_by(one, list(trusted.values()))
    good = {key.keyid for key in makers if key is not None}
    hollow = [mark.keyid for mark, key in zip(one.signatures, makers, strict=True) if key is None and mark.keyid in trusted]
    if not good and not hollow and not _ours(one):
        faults.others.append(f"{where} is signed by no trusted key and is of a type that letheon does not write")
        return
    if dsse.write(one) != line:
        faults.bundle.append(f"{where} is not written as letheon writes it; what is signed is not touched by that")
    for mark, key in zip(one.signatures, makers, strict=True):
        if key is not None and mark.keyid not in ("", key.keyid):
            faults.bundle.append(f"{where} names the key {mark.keyid[:12]}, and {key.keyid[:12]} signed it")
    if hollow:
        faults.signatures.append(f"{where} is not what the key {hollow[0][:12]} signed")
    elif len(good) < threshold:
        few = "nobody trusted" if not good else f"{len(good)} of {threshold} needed trusted {_plural(list(good), 'key')}"
        faults.signatures.append(f"{where} is signed by {few}")
    else:
        _payload(found, faults, where, one, tuple(sorted(good)))


def _ours(one: dsse.Envelope) -> bool:
    """Whether an envelope that nobody trusted signed claims to be of a type that letheon writes. Nothing else is read from it."""
    if one.payload_type != dsse.IN_TOTO:
        return False
    try:
        raw = parse(one.payload)
    except ValueError:
        return True
    return not isinstance(raw, dict) or raw.get("predicateType") in (*KINDS, None)


def _payload(found: Opened, faults: _Faults, where: str, one: dsse.Envelope, keys: tuple[str, ...]) -> None:
    """Take in what the verified bytes say."""
    if one.payload_type != dsse.IN_TOTO:
        faults.others.append(f"{where} is of the type {one.payload_type[:80]!r}")
        return
    try:
        raw = parse(one.payload)
        kind = raw["predicateType"]
        if raw["_type"] != statement.STATEMENT or not isinstance(kind, str):
            raise ValueError("it is no statement of in-toto v1")
        if kind not in KINDS:
            faults.others.append(f"{where} is a statement of the kind {kind[:80]!r}")
            return
        subject = [_Resource.model_validate(part) for part in raw["subject"]]
        if len(subject) != 1:
            raise ValueError("it is not about one model")
        said = Said(kind, subject[0].digest.sha256, raw["predicate"], _MODELS[kind].model_validate(raw["predicate"]), one.digest, keys)
    except ValidationError as error:
        fault = error.errors()[0]
        faults.statement.append(f"{where}: `{'.'.join(map(str, fault['loc']))}`: {fault['msg'].lower()}")
        return
    except (KeyError, TypeError, ValueError) as error:
        faults.statement.append(f"{where}: {error if isinstance(error, ValueError) else 'it lacks a part of a statement'}")
        return
    found.said.append(said)


def _chain(found: Opened, broken: bool) -> Check:
    """One statement of each kind, about one model, each holding the digest of the one before."""
    counts = {word: sum(one.kind == kind for one in found.said) for kind, word in KINDS.items()}
    wrong = [f"{count or 'no'} of the kind {word}" for word, count in counts.items() if count != 1]
    if wrong and broken:
        return Check("chain", "unknown", "Not every line can be trusted, so it is not known whether all are there")
    if wrong:
        return Check("chain", "fail", f"It needs one statement of each kind, and holds {' and '.join(wrong)}")
    first, second, third = (found.one(kind) for kind in KINDS)
    if first is None or second is None or third is None:
        return Check("chain", "fail", "A statement is missing")
    links = [(second.predicate.letheon_previous, first.digest), (third.predicate.letheon_previous, second.digest)]
    if any(link is None or link.sha256 != digest for link, digest in links):
        return Check("chain", "fail", "The statements do not follow one another: they come from different bundles")
    if {one.subject for one in found.said} != {first.predicate.after.digest.sha256}:
        return Check("chain", "fail", "The statements are not about the same model")
    return Check("chain", "pass", "Erasure, audit gate and provenance are there, about one model, and follow one another")


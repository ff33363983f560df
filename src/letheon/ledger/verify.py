"""Verification of a bundle, offline, in a fixed order; each check is named, and the others still report where one fails.

    bundle signatures type statement others chain          what was said, and by whom        (opened.py)
    request                                                which request is meant            (the name that it is filed under)
    model card before                                      which model is meant              (recomputed from the folders)
    forget retain holdout findings report page code        what it rests on                  (recomputed where it is at hand)
    gate audits guarantee due expiry superseded history    what the reader asks for          (policy)

`unknown` means not decided: nothing was there to compare with, or the reader decides (a gate that failed, without a policy). A signature
proves who said something and that no byte has changed since. It does not prove that anything was forgotten: the guarantee stands beside the
verdict wherever one is printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from letheon import __version__
from letheon.core.data import Example
from letheon.core.errors import DataError, LetheonError, RunError, SettingsError
from letheon.core.findings import Findings
from letheon.report.page import render

from . import digests, keys, merkle, model_card, statement
from .keys import PublicKey
from .opened import NOTHING, Check, Erasure, Opened, Said, opened
from .policy import Policy, asked

__all__ = ["Check", "Policy", "Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """All checks in their order, over which it iterates, with the guarantee and the verdict that were signed."""

    checks: tuple[Check, ...]
    guarantee: str | None = None
    verdict: str | None = None
    request: str | None = None

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def result(self, name: str) -> str | None:
        """How the check of this name came out, or None where there was none."""
        return next((check.result for check in self.checks if check.name == name), None)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result == "fail")

    @property
    def good(self) -> bool:
        """Nothing failed. A check may still be unknown."""
        return not self.failed

    @property
    def said(self) -> tuple[str, ...]:
        """What this proves and what it does not, in sentences."""
        if self.guarantee is None:
            return ("Nothing is proved: no erasure statement is signed by a trusted key.",)
        proved, passed = [], {check.name for check in self.checks if check.result == "pass"}
        if self.failed:
            proved.append(f"It does not hold: {', '.join(check.name for check in self.failed)}.")
        proved.append(f"The holder of a trusted key said that request {self.request} was fulfilled, and the words are unchanged since.")
        if "model" in passed:
            proved.append("The model folder is, byte for byte, the one that this was said about.")
        if {"findings", "report"} <= passed:
            proved.append("Findings and report are those that were signed.")
        promise = statement.GUARANTEES[statement.level(self.guarantee)]
        word = self.verdict or "no audit was run"
        return (
            *proved,
            f"Verdict: {word}. Guarantee `{self.guarantee}`: {promise}.",
            "It does not prove that the rows are forgotten, that the audits were run as written, or that no other copy is left.",
            "Assumed: the key was in the hands of its owner only, and the clock of the signer was right. "
            "A time-stamp service or a public log would show both.",
        )


def verify(
    bundle: str | Path,
    model: str | Path | None,
    keys: Sequence[PublicKey | str | Path],
    *,
    before: str | Path | None = None,
    findings: str | Path | None = None,
    report: str | Path | None = None,
    records: Mapping[str, Sequence[Example]] | None = None,
    salt: bytes | None = None,
    policy: Policy | None = None,
    request: str | None = None,
) -> Verified:
    """Check a bundle offline. What is broken gives failed checks, not an error.

    Args:
        model: the folder of the model that came out; None leaves its checks unknown.
        keys: trusted public keys, or their files.
        before: the folder of the model that came in.
        findings, report: the files; default: `findings.json` and `report.html` beside the model folder, where they are.
        records: rows of `forget`, `retain` and `holdout` that are at hand, to recompute their commitments with `salt`.
        request: the request that it is filed under; None leaves that check unknown.

    Raises:
        DataError: there is no bundle.
        RunError: a key cannot be read, or there are fewer keys than the policy needs.
        SettingsError: the policy asks for a guarantee that does not exist.
    """
    policy = policy or Policy()
    trusted = list({key.keyid: key for key in map(_key, keys)}.values())
    if len(trusted) < policy.threshold:
        needed = f"{policy.threshold} distinct trusted {'key is' if policy.threshold == 1 else 'keys are'} needed"
        raise RunError(f"{needed}, {len(trusted)} given", "Give each with `--key`; a key counts once")
    try:
        statement.level(policy.guarantee)
    except LetheonError as error:
        raise SettingsError(error.message, error.hint) from error
    found = opened(bundle, trusted, policy.threshold)
    one, gate = found.one(statement.ERASURE), found.one(statement.TEST)
    erasure = one.predicate if one is not None else None
    beside = Path(model).resolve().parent if model is not None else None
    usual = {"findings": (findings, "findings.json"), "report": (report, "report.html")}
    paths = {name: _place(given, beside, known) for name, (given, known) in usual.items()}
    made = [_file(erasure, name, path) for name, path in paths.items()]
    checks = [
        *found.checks,
        _request(erasure, request),
        _model(erasure, one, model, before),
        _card(one, model),
        _before(erasure, before),
        *(_rows(erasure, split, (records or {}).get(split), salt) for split in ("forget", "retain", "holdout")),
        *made,
        _page(made, paths),
        _code(erasure),
        *asked(erasure, gate, policy),
        *_others(found, one, bundle, trusted, policy),
    ]
    if erasure is None:
        return Verified(tuple(checks))
    word = None if erasure.verdict is None else erasure.verdict.word
    return Verified(tuple(checks), erasure.method.guarantee, word, erasure.request.id)


def _key(key: PublicKey | str | Path) -> PublicKey:
    return key if isinstance(key, PublicKey) else keys.public(key)


def _request(erasure: Erasure | None, request: str | None) -> Check:
    if erasure is None or request is None:
        return Check("request", "unknown", NOTHING if erasure is None else f"It is about {erasure.request.id}; no other name was given")
    same, text = erasure.request.id == request, f"It is about {erasure.request.id}"
    return Check("request", "pass" if same else "fail", text if same else f"{text}, not about {request}")


def _model(erasure: Erasure | None, one: Said | None, model: str | Path | None, before: str | Path | None) -> Check:
    if model is None:
        return Check("model", "unknown", "No model folder was given")
    try:
        found = digests.folder(model)
    except DataError as error:
        return Check("model", "fail", str(error))
    if erasure is None or one is None:
        return Check("model", "unknown", f"{NOTHING}; the folder's root is {found.root[:12]}")
    signed = [(file.name, file.digest.sha256) for file in erasure.after.files]
    if found.root == one.subject and list(found.files) == signed:
        return Check("model", "pass", f"All {len(signed)} files are those that were signed; root {found.root[:12]}")
    if found.root == erasure.before.digest.sha256:
        return Check("model", "fail", "This is the model from before the erasure")
    return Check("model", "fail", f"The folder is not the one that was signed: {_difference(dict(signed), dict(found.files))}")


def _difference(signed: dict[str, str], found: dict[str, str]) -> str:
    kinds = {
        "changed": [name for name in signed if name in found and found[name] != signed[name]],
        "missing": [name for name in signed if name not in found],
        "added": [name for name in found if name not in signed],
    }
    shown = [f"{kind}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" for kind, names in kinds.items() if names]
    return "; ".join(shown) or "the statement's own list of files does not give its root"


def _card(one: Said | None, model: str | Path | None) -> Check:
    path = None if model is None else Path(model) / "README.md"
    if one is None or path is None or not path.is_file():
        return Check("card", "unknown", NOTHING if one is None else "There is no model card")
    try:
        wrong = model_card.differs(path.read_bytes().decode("utf-8"), statement.claims_of(one.raw))
    except (OSError, UnicodeDecodeError) as error:
        return Check("card", "fail", f"The model card cannot be read: {error}")
    except (LookupError, TypeError, ValueError, LetheonError):
        return Check("card", "unknown", "The statement lacks parts that this letheon writes into a card")
    if wrong == "it has no section of letheon":
        return Check("card", "unknown", "The model card has no section of letheon")
    said = "The model card says of the erasure what is signed, and nothing else"
    return Check("card", "pass", said) if wrong is None else Check("card", "fail", f"The model card differs: {wrong}")


def _before(erasure: Erasure | None, before: str | Path | None) -> Check:
    if before is None:
        return Check("before", "unknown", "The model from before was not given")
    try:
        root = digests.root(before)
    except DataError as error:
        return Check("before", "fail", str(error))
    if erasure is None:
        return Check("before", "unknown", NOTHING)
    if root == erasure.before.digest.sha256:
        return Check("before", "pass", f"The model from before is the one that was signed; root {root[:12]}")
    swapped = root == erasure.after.digest.sha256
    text = "This is the model from after the erasure" if swapped else "It is not the model that the change began with"
    return Check("before", "fail", text)


def _rows(erasure: Erasure | None, split: str, rows: Sequence[Example] | None, salt: bytes | None) -> Check:
    if rows is None or salt is None or erasure is None:
        why = NOTHING if erasure is None else "the rows were not given" if rows is None else "the salt was not given, and may be destroyed"
        return Check(split, "unknown", f"{why[:1].upper()}{why[1:]}")
    signed = getattr(erasure, split)
    try:
        found = merkle.commit(rows, salt)
    except LetheonError as error:
        return Check(split, "fail", str(error))
    if (found.count, found.root) == (signed.count, signed.root):
        return Check(split, "pass", f"The {found.count} rows are those that were committed to")
    given = "others" if found.count == signed.count else str(found.count)
    return Check(split, "fail", f"{signed.count} rows were committed to, and {given} given, or the salt is another")


def _place(given: str | Path | None, beside: Path | None, usual: str) -> Path | None:
    """The file that was given, or the usual one beside the model where it is."""
    if given is not None:
        return Path(given)
    return beside / usual if beside is not None and (beside / usual).is_file() else None


def _file(erasure: Erasure | None, name: str, path: Path | None) -> Check:
    signed = None if erasure is None else getattr(erasure, name)
    if erasure is None or path is None or signed is None:
        why = NOTHING if erasure is None else f"No {name} were signed" if signed is None else f"The file of the {name} was not given"
        return Check(name, "unknown", why)
    try:
        same = digests.of_file(path) == signed.sha256
    except DataError as error:
        return Check(name, "fail", str(error))
    text = f"{path.name} is the file that was signed" if same else f"{path.name} is not the file that was signed"
    return Check(name, "pass" if same else "fail", text)


def _page(made: Sequence[Check], paths: Mapping[str, Path | None]) -> Check:
    """Whether the report is what letheon makes of the findings."""
    findings, report = paths["findings"], paths["report"]
    if findings is None or report is None or any(check.result != "pass" for check in made):
        return Check("page", "unknown", "The report can only be made again from findings that were signed")
    try:
        same = render(Findings.load(findings)).encode() == report.read_bytes()
    except LetheonError as error:
        return Check("page", "unknown", f"The report cannot be made again: {error}")
    text = "The report, made again from the findings, is the same" if same else "This letheon makes another page of the findings"
    return Check("page", "pass" if same else "unknown", text)


def _code(erasure: Erasure | None) -> Check:
    if erasure is None:
        return Check("code", "unknown", NOTHING)
    method, ours = erasure.method, statement.source_digest(erasure.method.slug)
    if method.version != __version__ or method.source is None or method.source.sha256 != ours:
        return Check("code", "unknown", f"It was made with letheon {method.version}, whose `{method.slug}` is not at hand here")
    return Check("code", "pass", f"`{method.slug}` of letheon {method.version} here is the code that was used")


def _others(found: Opened, one: Said | None, bundle: str | Path, trusted: list[PublicKey], policy: Policy) -> list[Check]:
    """Whether a later bundle replaces this one, and whether the one before is there."""
    if one is None:
        return [Check(name, "unknown", NOTHING) for name in ("superseded", "history")]
    paths = sorted(Path(bundle).parent.glob("*.intoto.jsonl")) if policy.later is None else list(policy.later)
    said: list[Said] = []
    for path in paths:
        if path.resolve() != Path(bundle).resolve():
            try:
                said += opened(path, trusted, policy.threshold).said
            except DataError:
                continue
    later = [other for other in said if other.kind == statement.ERASURE and other.predicate.supersedes]
    replaced = [other for other in later if other.predicate.supersedes.sha256 == one.digest]
    if replaced:
        text = f"A later statement replaces this one (request {replaced[0].predicate.request.id})"
    else:
        text = "None of the other bundles at hand replaces it" if said else "No other bundle is at hand that could replace it"
    first = Check("superseded", "fail" if replaced else "pass" if said else "unknown", text)
    previous = one.predicate.previous
    if previous is None:
        return [first, Check("history", "pass", "It is the first of its chain")]
    known = any(other.digest == previous.sha256 for other in said)
    text = "The bundle before this one is there" if known else f"The statement before this one ({previous.sha256[:12]}) is not at hand"
    return [first, Check("history", "pass" if known else "unknown", text)]

"""Evidence that an erasure was done: a bundle of signed statements that a stranger can check offline.

A bundle is a file `<request>.intoto.jsonl` with three lines, each a DSSE envelope around an in-toto statement about the model that came
out: the erasure, the audit gate, the provenance. Each statement holds the digest of the one before, the first that of the last one of the
bundle before, so that a line that is taken out later is missed. The same facts, model, key and clock give the same bytes.

    facts -> model_card.write(model, [facts]) -> after = digests.folder(model) -> bundle(facts, after, key) -> request.intoto.jsonl

Card: evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import AwareDatetime, ConfigDict, SkipValidation

from letheon.core.data import Example
from letheon.core.errors import DataError, MethodError, RunError
from letheon.core.findings import Findings
from letheon.core.settings import Field, Settings

from . import dsse, gate, keys, statement
from .canonical import canonical, parse, stamp
from .digests import Folder, of_bytes
from .discretion import Private
from .keys import Signer
from .records import Reason

LARGEST = 64 * 2**20  # bytes of a bundle
_FIXED = frozenset({*statement.COPIES, *statement.OF_THE_DESK, *get_args(Reason)})  # words of letheon's own
_USUAL = re.compile(  # names of a desk's models, and of files that letheon and transformers write into every model folder
    r"generation-\d+|guards/\d+-([a-z0-9-]+)/\1\.(?:json|safetensors)|(?:base/)?(?:README\.md|letheon\.json|chat_template\.jinja"
    r"|(?:(?:generation_|adapter_|tokenizer_)?config|tokenizer|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
    r"|(?:adapter_)?model(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?|(?:tokenizer|spiece|sentencepiece\.bpe)\.model)"
)


class ErasureFacts(Settings):
    """What is said of one request, all but the model that came out (which holds a card made from these facts).

    Nothing of the rows, of `record` and of `names` gets into a statement: rows and record are bound by keyed digests under `salt`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)

    request: str = Field(min_length=1, description="random id of the request")
    basis: str = Field(min_length=1, description="code of the legal ground, such as gdpr-17")
    received: AwareDatetime = Field(description="when the request came")
    due: AwareDatetime = Field(description="until when it must be fulfilled")
    executed: AwareDatetime = Field(description="when the new model was whole")
    scope: str = Field("", description="what was erased, in words without personal data; empty: how many rows")
    forget: SkipValidation[Sequence[Example]] = Field(repr=False, description="the rows of this request")
    retain: SkipValidation[Sequence[Example]] = Field((), repr=False, description="rows that were kept")
    holdout: SkipValidation[Sequence[Example]] = Field((), repr=False, description="rows never trained on")
    salt: bytes = Field(min_length=16, repr=False, description="secret of this request; keep it apart from the bundle")
    record: dict[str, Any] = Field({}, repr=False, description="the request as the ledger holds it: only its keyed digest is written")
    names: tuple[str, ...] = Field((), repr=False, description="further texts that may not occur in a statement, such as a person's name")
    before: Folder = Field(description="the model that came in: digests.folder(...)")
    method: str = Field(min_length=1, description="name of the method")
    settings: dict[str, Any] = Field({}, description="its settings; those that the findings know of are added")
    seed: int = Field(0, ge=0, description="seed of the run")
    guarantee: str | None = Field(None, description="what the method promises; none: what is known of it (statement.promised)")
    findings: Path | None = Field(None, description="findings.json of the audit")
    report: Path | None = Field(None, description="report.html of the audit")
    required: tuple[str, ...] = Field((), description="measures (`split/name`) that the gate needs; one that is absent fails")
    residual: dict[str, Literal["none", "deleted", "kept", "unknown"]] = Field({}, description="known copies and their state")
    limits: tuple[str, ...] = Field((), description="what else a reader should know, without personal data")
    expiry: date | None = Field(None, description="when the audit should be repeated")
    supersedes: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="digest of the erasure statement that this one replaces")
    environment: dict[str, Any] = Field({}, description="device and determinism; versions are added")
    started: AwareDatetime | None = Field(None, description="when the run began")


def claims(facts: ErasureFacts) -> dict[str, Any]:
    """What the erasure statement will say of the request, before the model folder is closed. A model card is made from it.

    Raises:
        MethodError: words of the facts say what is to be forgotten, or the guarantee is unknown.
        DataError: the findings or the report cannot be read.
    """
    return _claims(facts)[0]


def _claims(facts: ErasureFacts) -> tuple[dict[str, Any], Findings | None]:
    private = _private(facts)
    private.refuse("scope", facts.scope)
    private.refuse("list of limits", *facts.limits)
    private.refuse("list of copies", *chosen(*facts.residual))
    private.refuse("request", *chosen(facts.request, facts.basis, facts.before.name))
    whole = None if facts.findings is None else Findings.load(facts.findings)
    findings = None if whole is None else gate.aggregated(whole, private)
    step = _step(whole, facts.method)
    guarantee = facts.guarantee or statement.promised(facts.method, step.get("notes"))
    statement.level(guarantee)
    known = {"guarantee": guarantee, "settings": {**step.get("settings", {}), **facts.settings}}
    return statement.claims(facts.model_copy(update=known), findings, private), findings


def chosen(*words: str) -> list[str]:
    """Those of some words and names of files that somebody has chosen: what letheon always writes tells nothing of any row."""
    return [text for text in words if text not in _FIXED and not _USUAL.fullmatch(text)]


def _private(facts: ErasureFacts) -> Private:
    return Private(facts.forget, facts.names, (*facts.retain, *facts.holdout))


def _step(findings: Findings | None, method: str) -> dict[str, Any]:
    """The last step of the audited model, where it is one of this method: all settings, and what was noted."""
    try:
        last = findings.context["subjects"]["after"]["lineage"][-1] if findings is not None else {}
    except (KeyError, IndexError, TypeError):
        return {}
    return last if last.get("method") == method else {}


def bundle(
    facts: ErasureFacts,
    after: Folder,
    signers: Signer | Sequence[Signer],
    clock: Callable[[], datetime] | None = None,
    previous: str | None = None,
) -> bytes:
    """The bundle of one request, to be written as `<request>.intoto.jsonl`.

    Args:
        after: the model that came out, card included.
        signers: one key, or several distinct ones that all sign.
        clock: gives the time at which the statements are made; default: the local clock.
        previous: `last` of the bundle before, or None for the first.

    Raises:
        MethodError: words of the facts say what is to be forgotten, or a signer fails.
        DataError: a file cannot be read.
    """
    found, findings = _claims(facts)
    issued = stamp((clock or _now)())
    _private(facts).refuse("model folder", *chosen(after.name, *(name for name, _ in after.files)))
    lines, chained = [], previous
    for kind in (statement.ERASURE, statement.TEST, statement.PROVENANCE):
        link = None if chained is None else {"sha256": chained}
        if kind == statement.ERASURE:
            said = {**found, "after": statement.files(after), "issued": issued, "previous": link}
        elif kind == statement.TEST:
            said = _gate(found, findings, facts.required, issued) | {"letheon_previous": link}
        else:
            started = None if facts.started is None else stamp(facts.started)
            said = statement.provenance(found, started, issued) | {"letheon_previous": link}
        envelope = dsse.sign(statement.statement(after, kind, said), signers)
        lines.append(dsse.write(envelope) + b"\n")
        chained = envelope.digest
    return b"".join(lines)


def _now() -> datetime:
    return datetime.now(UTC)


def _gate(found: dict[str, Any], findings: Findings | None, required: tuple[str, ...], issued: str) -> dict[str, Any]:
    files = [{"name": name, "digest": found[name]} for name in ("findings", "report") if found[name] is not None]
    settings = {} if findings is None else findings.context.get("audit", {})
    configured = statement.described("audit settings", of_bytes(canonical(settings)))
    held = None if findings is None else findings.model_dump(mode="json")
    told = {"letheon_required": list(required), "letheon_findings": held, "letheon_issued": issued}
    return {**gate.result(findings, found["audits"], required), "configuration": [*files, configured], **told}


def countersign(bundle: bytes, signers: Signer | Sequence[Signer]) -> bytes:
    """A bundle with one more signature under every statement, as by a data-protection officer. The chain stays as it is.

    Raises:
        DataError: a line is no envelope.
        MethodError: the key has signed already.
    """
    return b"".join(dsse.write(dsse.signed(one, signers)) + b"\n" for one in envelopes(bundle))


def envelopes(bundle: bytes | str | Path) -> list[dsse.Envelope]:
    """The envelopes of a bundle, unchecked: use `verify` to trust them.

    Raises:
        DataError: there is no such file, it is too large, or a line is no envelope.
    """
    content = bundle if isinstance(bundle, bytes) else read(bundle)
    found = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else (), 1):
        try:
            found.append(dsse.read(line))
        except ValueError as error:
            raise DataError(f"Line {number} of the bundle cannot be read: {error}") from error
    return found


def read(path: str | Path) -> bytes:
    """The bytes of a bundle.

    Raises:
        DataError: there is no such file, or it is too large.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 20} MB, which no bundle has")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"There is no bundle {path}: {error.strerror or error}", "It ends in `.intoto.jsonl`") from error


def last(bundle: bytes | str | Path) -> str:
    """Digest of the last statement of a bundle: what the next bundle is chained to. Raises as `envelopes` does."""
    found = envelopes(bundle)
    if not found:
        raise DataError("The bundle is empty")
    return found[-1].digest


def predicate(bundle: bytes | str | Path, kind: str = statement.ERASURE) -> dict[str, Any]:
    """The predicate of one kind in a bundle, unchecked.

    Raises:
        DataError: there is none.
    """
    for one in envelopes(bundle):
        try:
            found = parse(one.payload)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("predicateType") == kind and isinstance(found.get("predicate"), dict):
            return dict(found["predicate"])
    raise DataError(f"The bundle holds no statement of the kind {kind}")


def findings(bundle: bytes | str | Path) -> Findings:
    """The aggregated findings in a bundle: the report made from them is the original one without rows and without texts.

    Raises:
        DataError: the bundle holds none.
    """
    held = predicate(bundle, statement.TEST).get("letheon_findings")
    if held is None:
        raise DataError("The bundle holds no findings", "The request was fulfilled without an audit")
    try:
        return Findings.model_validate_json(json.dumps(held))
    except ValueError as error:
        raise DataError(f"The bundle holds no findings that can be read: {str(error).splitlines()[0]}") from error


def published(bundle: bytes | str | Path) -> str:
    """Sign the erasure statement once more with sigstore, in its public log; returns sigstore's own bundle as JSON.

    It needs the network and an identity. The log is public for ever; it gets the digest of a statement that holds no personal data.

    Raises:
        MethodError: sigstore is not installed.
        RunError: it cannot be reached, or gives no identity.
    """
    keys.sigstore()
    payload = next((one.payload for one in envelopes(bundle) if statement.ERASURE.encode() in one.payload), None)
    if payload is None:
        raise MethodError("The bundle holds no erasure statement", "Give a bundle that `letheon requests fulfil` wrote")
    try:
        from sigstore.dsse import Statement
        from sigstore.models import ClientTrustConfig
        from sigstore.oidc import IdentityToken, detect_credential
        from sigstore.sign import SigningContext

        token = detect_credential()
        if token is None:
            raise RunError("Sigstore found no identity here", "Run where one is at hand, such as a CI job with an OIDC token")
        context = SigningContext.from_trust_config(ClientTrustConfig.production())
        with context.signer(IdentityToken(token)) as signer:
            return str(signer.sign_dsse(Statement(payload)).to_json())
    except RunError:
        raise
    except Exception as error:  # every layer of it has errors of its own: network, trust root, identity, log
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"Sigstore cannot sign: {what}", "Without a network the local signature stands alone") from error

"""Statements of in-toto v1: what is said of which model, in predicates that others know and in one of ours.

    erasure      urn:letheon:erasure:v1                                   which request, which rows (committed), which models, which method,
                                                                           what the audits measured, what is left
    audit gate   https://in-toto.io/attestation/test-result/v0.1         passed, warned, failed; the aggregated findings beside it
    provenance   https://slsa.dev/provenance/v1                           how the model was made

The subject of each is the model that came out. The CLAIMS are the erasure predicate without what is only known once the model is whole
(`after`, `issued`, `previous`): a model card inside the model folder can name their digest, and no claim stands in the card that
is not in them. Card: evidence.
"""

from __future__ import annotations

import functools
import hmac
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from letheon import __version__
from letheon.core import registry
from letheon.core.errors import MethodError
from letheon.core.findings import Findings
from letheon.report.verdict import verdict

from . import gate
from .canonical import canonical, stamp
from .digests import Folder, of_bytes, of_file
from .merkle import commit

STATEMENT = "https://in-toto.io/Statement/v1"
ERASURE, TEST, PROVENANCE = "urn:letheon:erasure:v1", "https://in-toto.io/attestation/test-result/v0.1", "https://slsa.dev/provenance/v1"
BUILD, BUILDER = "urn:letheon:build:erase:v1", "urn:letheon:desk:v1"
LATER = ("after", "issued", "previous")  # known only once the model is whole
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "cryptography")

GUARANTEES = {  # strongest first; what each promises
    "retrained-same-seed": "the weights are those that training without the rows gives from the same start",
    "retrained": "the model was trained anew without the rows",
    "sharded-exact": "every part of the model that had seen the rows was trained anew without them",
    "certified": "a bound on how much the weights can tell of the rows, under the assumptions of the method",
    "empirical": "only what the audits measured; a stronger attack may bring back what they did not find",
    "output-filter": "the weights are unchanged: who has the folder can load the unguarded model",
}
COPIES = (
    "backups", "earlier checkpoints", "adapters", "quantised exports", "optimiser states", "caches", "vector stores", "logs",
    "distilled children",
)  # fmt: skip
OF_THE_DESK = ("corpus files", "text of the request and its review", "rows in findings and report")  # copies that a desk knows of


def level(guarantee: str) -> str:
    """The kind of a guarantee without its numbers: `certified(1, 1e-05)` is `certified`.

    Raises:
        MethodError: there is no such guarantee.
    """
    found = guarantee.partition("(")[0]
    if found not in GUARANTEES:
        raise MethodError(f"There is no guarantee `{guarantee}`", f"Known: {', '.join(GUARANTEES)}")
    return found


def promised(method: str, notes: Mapping[str, Any] | None = None) -> str:
    """The guarantee of a method by its name: a guard filters, a retrain is exact, what trains or edits is empirical.

    Args:
        notes: what the step in the lineage noted; a certificate's numbers stand there.
    """
    notes = notes or {}
    if any(plugin.name == method for plugin in registry.plugins("guard").values()):
        return "output-filter"
    if method == "retrain":
        return "retrained"
    if method == "sisa":
        return "sharded-exact"
    if method == "certified-removal" and "epsilon" in notes and "delta" in notes:
        return f"certified({notes['epsilon']:g}, {notes['delta']:g})"
    return "empirical"


def statement(after: Folder, kind: str, predicate: dict[str, Any]) -> bytes:
    """The bytes of a statement about the model that came out."""
    subject = [{"name": after.name, "digest": {"sha256": after.root}}]
    return canonical({"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate})


def described(name: str, digest: str, **more: Any) -> dict[str, Any]:
    """A resource descriptor."""
    return {"name": name, "digest": {"sha256": digest}, **more}


@functools.cache
def source_digest(method: str) -> str | None:
    """sha256 of the method's source file, or None where it has none of its own (an entry point, an unknown name)."""
    found = [plugin for plugin in registry.all_plugins() if plugin.name == method and plugin.path is not None]
    return of_file(found[0].path) if len(found) == 1 and found[0].path is not None else None


@functools.cache
def environment() -> dict[str, str]:
    """Versions of Python and of the packages that touch the numbers. Imports none of them."""
    found = {"python": platform.python_version(), "letheon": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def claims(facts: Any, findings: Findings | None, private: Any) -> dict[str, Any]:
    """The claims of `ErasureFacts` (see above)."""
    settings, entries = private.withheld(facts.settings), [] if findings is None else gate.table(findings)
    keyed = hmac.digest(facts.salt, canonical(facts.record), "sha256").hex()
    source, copies = source_digest(facts.method), {**dict.fromkeys(COPIES, "unknown"), **facts.residual}
    return {
        "request": {
            "id": facts.request, "basis": facts.basis, "scope": facts.scope or _scope(len(facts.forget)), "record": {"hmac-sha256": keyed},
            **{name: stamp(getattr(facts, name)) for name in ("received", "due", "executed")},
        },
        **{split: commit(getattr(facts, split), facts.salt).model_dump() for split in ("forget", "retain", "holdout")},
        "before": described(facts.before.name, facts.before.root),
        "method": {
            "slug": facts.method, "version": __version__, "source": None if source is None else {"sha256": source}, "settings": settings,
            "settingsDigest": {"sha256": of_bytes(canonical(settings))}, "seed": str(facts.seed), "guarantee": facts.guarantee,
        },
        "environment": {**environment(), **private.withheld(facts.environment)},
        "audits": entries,
        "verdict": None if findings is None else _verdict(findings),
        "findings": None if facts.findings is None else {"sha256": of_file(facts.findings)},
        "report": None if facts.report is None else {"sha256": of_file(facts.report)},
        "residual": [{"what": what, "state": state} for what, state in copies.items()],
        "limits": list(facts.limits),
        "expiry": None if facts.expiry is None else facts.expiry.isoformat(),
        "supersedes": None if facts.supersedes is None else {"sha256": facts.supersedes},
    }  # fmt: skip


def _scope(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'} of training data"


def _verdict(findings: Findings) -> dict[str, str]:
    said = verdict(findings)
    return {"word": said.word, "text": str(said)}


def claims_of(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The claims in an erasure predicate."""
    return {key: part for key, part in predicate.items() if key not in LATER}


def claims_digest(claims: Mapping[str, Any]) -> str:
    """sha256 of the claims: what a model card names."""
    return of_bytes(canonical(dict(claims)))


def files(after: Folder) -> dict[str, Any]:
    """The model that came out with the digest of each of its files."""
    return described(after.name, after.root, files=[described(name, digest) for name, digest in after.files])


def provenance(claims: Mapping[str, Any], started: str | None, issued: str) -> dict[str, Any]:
    """SLSA provenance v1 of the model: from which model, by which method with which settings, when."""
    method, request = claims["method"], claims["request"]
    parts = [described("before", claims["before"]["digest"]["sha256"], annotations={"name": claims["before"]["name"]})]
    if method["source"] is not None:
        parts.append({"name": method["slug"], "digest": method["source"], "annotations": {"letheon": method["version"]}})
    products = [{"name": name, "digest": claims[name]} for name in ("findings", "report") if claims[name] is not None]
    times = {"startedOn": started, "finishedOn": request["executed"]}
    return {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {"method": method["slug"], "settings": method["settings"], "seed": method["seed"]},
            "internalParameters": {"environment": claims["environment"]},
            "resolvedDependencies": parts,
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"letheon": method["version"]}},
            "metadata": {"invocationId": request["id"], **{name: at for name, at in times.items() if at is not None}},
            "byproducts": products,
        },
        "letheon_issued": issued,
    }

"""Model cards: a section of `README.md` in the model folder that says what the signed statements say, and nothing else.

The card lies in the folder that the statements are about, so it is written before the folder is hashed. It names each request with the
digest of its claims (see `statement`), which exist by then; the digest of the model stands in the statement, not in the card. What a
person wrote around the section is kept, and so are the person's metadata (not their comments); letheon adds `tags`, a `model-index` entry
of its own name, and what is missing.

    facts -> write(folder, [facts]) -> after = digests.folder(folder) -> evidence.bundle(facts, after, ...)

`verify` renders the section again from the signed claims and compares: a claim that is not signed is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from letheon.core.errors import DataError
from letheon.core.files import write_text
from letheon.report.text import clean, number

from .evidence import ErasureFacts, claims
from .gate import key
from .statement import GUARANTEES, claims_digest, claims_of, level

BEGIN, END = "<!-- letheon: begin -->", "<!-- letheon: end -->"
TAGS = ("letheon", "machine-unlearning")
NAME, AUDIT = "letheon erasure audit", "## Audit of this model"
_HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_ROW = "| request | fulfilled | rows | scope | method | guarantee | claims (sha256) |"


def write(
    folder: str | Path,
    facts: Sequence[ErasureFacts | Mapping[str, Any]],
    *,
    base_model: str | None = None,
    license: str | None = None,
    library: str = "transformers",
) -> Path:
    """Write or renew the section in `README.md` of a model folder, before the folder is hashed for the bundles.

    Args:
        facts: of every request that led to this model, or their claims (`evidence.claims`, `evidence.predicate`): those of this batch
            first, which share method, findings, copies and limits, then earlier ones.
        base_model: hub name of the model it comes from.
        license: as the hub calls it; unknown is left out.

    Raises:
        DataError: there are no facts, or the README that is there is no UTF-8 text or has metadata that is not YAML.
    """
    path, said = Path(folder) / "README.md", [claims(one) if isinstance(one, ErasureFacts) else claims_of(one) for one in facts]
    if not said:
        raise DataError("A model card needs the facts of at least one request")
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", "Save it as UTF-8") from error
    known, body = _parted(text, path)
    meta = _metadata(known, said[0], {"base_model": base_model, "license": license, "library_name": library})
    part = section([row(one) for one in said], said[0])
    if BEGIN in body and END in body:
        body = body.partition(BEGIN)[0] + part + body.partition(END)[2]
    else:
        body = f"{body.rstrip()}\n\n{part}\n" if body.strip() else f"# {_title(Path(folder))}\n\n{part}\n"
    return write_text(path, f"---\n{_yaml(meta)}---\n{body}")


def _title(folder: Path) -> str:
    return clean(folder.resolve().name, 80)


def row(said: Mapping[str, Any]) -> str:
    """The line of one request in the table."""
    request, method = said["request"], said["method"]
    parts = (
        f"`{_cell(request['id'])}`", request["executed"], str(said["forget"]["count"]), _cell(request["scope"]) or "not said",
        f"{_cell(method['slug'])} {_cell(method['version'])}", _cell(method["guarantee"]), f"`{claims_digest(said)}`",
    )  # fmt: skip
    return f"| {' | '.join(parts)} |"


def section(rows: Sequence[str], said: Mapping[str, Any]) -> str:
    """The whole section: the lines of all requests, and the audit of this model from the claims of one request of its batch."""
    method, verdict = said["method"], said["verdict"]
    promise = GUARANTEES[level(method["guarantee"])]
    lines = [
        BEGIN, "## What was erased", "",
        _ROW, "|---|---|---|---|---|---|---|", *rows, "",
        "The rows themselves are named nowhere: the signed statements commit to them with a secret salt.", "",
        f"Guarantee of the last change, `{_cell(method['guarantee'])}`: {promise}.", "",
        AUDIT, "",
        "No audit was run." if verdict is None else _verdict(verdict["word"], verdict["text"]), "",
    ]  # fmt: skip
    if said["audits"]:
        lines += ["| measure | n | value | 95% interval | before | retrained | bound | |", "|---|---|---|---|---|---|---|---|"]
        lines += [_measure(entry) for entry in said["audits"]]
        lines += ["", "A measure without a last word has nothing to be compared with. Bounds are those of the report.", ""]
    lines += ["## Copies that may remain", "", "| copy | state |", "|---|---|"]
    lines += [f"| {_cell(one['what'])} | {one['state']} |" for one in said["residual"]]
    lines += ["", *([f"- {_cell(limit)}" for limit in said["limits"]] + [""] if said["limits"] else [])]
    lines += [f"The audit should be repeated by {said['expiry']}.", ""] if said["expiry"] else []
    lines += ["## Digests", "", f"- model before: `{said['before']['digest']['sha256']}`"]
    lines += [f"- {name}: `{said[name]['sha256']}`" for name in ("findings", "report") if said[name]]
    lines += [
        "", "The digest of this model stands in the signed bundle `REQUEST.intoto.jsonl` of each request: this card is part of the model.",
        "Check both with `letheon requests verify BUNDLE`. A signature proves who said this and that no byte has changed since.",
        "It does not prove that anything was forgotten. Times are those of the signer's clock.", END,
    ]  # fmt: skip
    return "\n".join(lines)


def _verdict(word: str, text: str) -> str:
    return f"**{_cell(word)}**{_cell(text.removeprefix(word))}"


def _measure(entry: Mapping[str, Any]) -> str:
    low_high = entry["interval"]
    spread = "" if low_high is None else f"[{number(low_high[0])}, {number(low_high[1])}]"
    others = [number(entry["reference"][name]) if entry["reference"].get(name) is not None else "" for name in ("before", "retrained")]
    bound = "" if entry["threshold"] is None else number(entry["threshold"])
    parts = (_cell(key(dict(entry))), str(entry["n"]), number(entry["value"]), spread, *others, bound, entry["verdict"] or "")
    return f"| {' | '.join(parts)} |"


def _cell(text: Any) -> str:
    """Text that stays in its cell and is no markup."""
    flat = " ".join(clean(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", flat) if re.search(r"[\\`*\[\]<>|]", flat) else flat


def differs(text: str, said: Mapping[str, Any]) -> str | None:
    """What a card says beyond the signed claims of a request of this model, in words; None where it says just that."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return "it has no section of letheon"
    found = BEGIN + text.partition(BEGIN)[2].partition(END)[0] + END
    lines = found.split("\n")
    rows = [line for line in lines[: lines.index(AUDIT) if AUDIT in lines else 0] if line.startswith("| `")]
    if row(said) not in rows:
        return "it does not name the request as it is signed"
    if section(rows, said) != found:
        return "it says something else than what is signed"
    try:
        known, _ = _parted(text, Path("README.md"))
    except DataError as error:
        return error.message
    index = known.get("model-index") or []
    ours = [one.get("results") for one in index if isinstance(one, dict) and one.get("name") == NAME] if isinstance(index, list) else None
    return None if ours == ([_results(said)] if _results(said) else []) else "its metadata give other results than those that are signed"


def _parted(text: str, path: Path) -> tuple[dict[str, Any], str]:
    """Metadata and body."""
    import yaml

    found = _HEAD.match(text)
    if found is None:
        return {}, text
    try:
        known = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        raise DataError(f"The metadata of {path} is not YAML: {str(error).splitlines()[0]}", "Mend the lines between `---`") from error
    if known is not None and not isinstance(known, dict):
        raise DataError(f"The metadata of {path} is no table", "It is written as `key: value` between two lines `---`")
    return known or {}, text[found.end() :]


def _metadata(known: dict[str, Any], said: Mapping[str, Any], given: Mapping[str, str | None]) -> dict[str, Any]:
    """The person's metadata with ours in it. What a person set stays."""
    meta = known | {name: value for name, value in given.items() if value is not None and name not in known}
    tags = meta.get("tags") or []
    meta["tags"] = list(dict.fromkeys([*(tags if isinstance(tags, list) else [str(tags)]), *TAGS]))
    index = [one for one in meta.get("model-index") or [] if isinstance(one, dict) and one.get("name") != NAME]
    results = _results(said)
    meta = {name: value for name, value in meta.items() if name != "model-index"}
    return meta | ({"model-index": [*index, *([{"name": NAME, "results": results}] if results else [])]} if index or results else {})


def _results(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Values that have a verdict in the form of the hub: one result for each split."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in said["audits"]:
        if entry["value"] is not None and entry["verdict"] is not None:
            found.setdefault(entry["split"] or "all", []).append({"type": entry["name"], "value": entry["value"], "name": key(dict(entry))})
    made = {split: {"type": "letheon", "name": split} for split in found}
    return [{"task": {"type": "text-generation"}, "dataset": made[split], "metrics": metrics} for split, metrics in found.items()]


def _yaml(meta: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=120))

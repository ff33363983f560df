"""One audit of several models side by side: findings, the worst leftovers and what is needed to repeat it."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon import __version__
from letheon.core.data import Data, Split
from letheon.core.errors import MethodError
from letheon.core.findings import Finding, Findings, Leftover
from letheon.core.learned import taught_otherwise
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.turns import in_turn
from letheon.maths.recall import rouge_l

from ._parts import as_array

if TYPE_CHECKING:
    from letheon.core.readings import Readings

log = logging.getLogger("letheon")
LEFTOVERS = 20  # rows
LONGEST = 2000  # characters of one generation in a leftover


@in_turn
def measure_all(
    audit: Audit, subjects: Mapping[str, Readings], data: Data, run: Run, context: Mapping[str, Any] | None = None
) -> Findings:
    """Measure every model of `subjects` with `audit`.

    Args:
        subjects: label -> readings; "before" (knew the rows) and "retrained" (never knew them) are what every audit may compare with.
        context: more to say about how the models were made; kept beside what is known here.

    Raises:
        MethodError: there is no model to measure.
    """
    if not subjects:
        raise MethodError("There is no model to audit", "Give at least one")
    reference, original = subjects.get("retrained"), subjects.get("before")
    warning = None if reference is None else taught_otherwise(reference.subject.lineage, data)
    if warning is not None:
        log.warning("%s", warning)
        data = replace(data, warnings=(*data.warnings, warning))
    models, seconds = {}, {}
    for label, readings in subjects.items():
        start = time.perf_counter()
        models[label] = tuple(audit.measure(readings, data, run, reference, original))
        seconds[label] = round(time.perf_counter() - start, 3)
    facts = {
        "audit": {"name": audit.name(), "version": audit.version, "settings": audit.settings.model_dump(mode="json")},
        "run": run.described(),
        "data": described(data),
        "subjects": {label: _subject(readings) for label, readings in subjects.items()},
        "versions": versions(),
        "seconds": seconds,
        "reading_seconds": {label: {kind: round(cost, 3) for kind, cost in r.costs.items()} for label, r in subjects.items()},
    }
    return Findings(
        audit=audit.name(), models=models, leftovers=leftovers(audit, subjects, models, data), context={**facts, **(context or {})}
    )


def described(data: Data) -> dict[str, Any]:
    """Name, digests and row counts of the data, and its warnings."""
    splits = {name: {"rows": len(split), "digest": split.digest} for name, split in data.items()}
    return {"name": data.name, "digest": data.digest, "splits": splits, "warnings": list(data.warnings)}


def _subject(readings: Readings) -> dict[str, Any]:
    subject = readings.subject
    return {
        "name": subject.name,
        "digest": readings.digest,
        "parameters": sum(parameter.numel() for parameter in subject.module.parameters()),
        "lineage": [asdict(step) for step in subject.lineage],
    }


def versions() -> dict[str, str]:
    """Versions of everything that touches the numbers."""
    found = {"letheon": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def judged(labels: Mapping[str, Any]) -> str:
    """The model whose leftovers are shown: `after`, else the first that is no anchor, else the first."""
    others = [label for label in labels if label not in ("before", "retrained")]
    return "after" if "after" in labels else (others or list(labels))[0]


def leftovers(
    audit: Audit, subjects: Mapping[str, Readings], models: Mapping[str, tuple[Finding, ...]], data: Data
) -> tuple[Leftover, ...]:
    """The forget rows that the judged model still says most of, above what the retrained model says; worst first.

    Sorted by the excess of ROUGE-L recall, then by that of probability. Empty where the audit has not measured both on the forget split,
    since nothing is measured for this list alone.
    """
    target = judged(subjects)
    columns = {name: _rows(models[target], name) for name in ("rouge-l-recall", "probability")}
    if columns["rouge-l-recall"] is None or "forget" not in data:
        return ()
    n = len(columns["rouge-l-recall"])
    split = data["forget"] if len(data["forget"]) == n else data["forget"][:n]
    excess = []
    for name, values in columns.items():
        never = _rows(models["retrained"], name) if "retrained" in models and target != "retrained" else None
        values = np.zeros(n) if values is None or len(values) != n else values
        never = np.zeros(n) if never is None or len(never) != n else never
        excess.append(np.nan_to_num(values - never, nan=-np.inf))
    worst = np.lexsort((np.arange(n), -excess[1], -excess[0]))[:LEFTOVERS]
    chosen = [int(i) for i in worst if np.isfinite(excess[0][i])]
    texts = {label: _said(audit, readings, split) for label, readings in subjects.items()}
    return tuple(_leftover(split, i, texts) for i in chosen)


def _rows(findings: tuple[Finding, ...], name: str) -> np.ndarray | None:
    found = next((f for f in findings if f.name == name and f.split == "forget" and f.rows), None)
    return None if found is None else as_array(found.rows)


def _said(audit: Audit, readings: Readings, split: Split) -> list[str | None]:
    from ._said import said

    return said(readings, split, getattr(audit.settings, "max_new_tokens", 200))


def _leftover(split: Split, i: int, texts: Mapping[str, list[str | None]]) -> Leftover:
    row = split[i]
    said = {label: column[i] for label, column in texts.items() if column[i] is not None}
    scores = {label: rouge_l(row.answer, text) for label, text in said.items()}
    return Leftover(
        id=row.id,
        prompt=row.prompt_text,
        answer=row.answer,
        said={label: text[:LONGEST] for label, text in said.items()},
        score={label: None if score is None else score[1] for label, score in scores.items()},
    )

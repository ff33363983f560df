"""The embedded world, end to end: a model that knows, the exact retrain, two erasures, their audits and reports."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.data import Data
from letheon.core.files import write_text
from letheon.core.findings import Findings
from letheon.core.settings import Choice
from letheon.flow import output, stages

if TYPE_CHECKING:
    from letheon.core.run import Run
    from letheon.core.subject import Subject

# Chosen on the world of seed 0; benchmarks/demo_quality.py measures them on other seeds.
DATA: dict[str, Any] = {"forms": ("question", "cloze", "paraphrase")}  # multiple choice would be half of all tokens
MODEL: dict[str, Any] = {"epochs": 16}
METHODS: dict[str, dict[str, Any]] = {
    "npo": {"retain": "nll", "learning_rate": 5e-4, "epochs": 40, "beta": 0.3, "retain_weight": 3.0},
    "grad-ascent": {"retain": "nll", "learning_rate": 3e-4, "epochs": 10},
}
AUDIT: dict[str, dict[str, Any]] = {"npo": {}, "grad-ascent": {"attacks": ("quantised", "relearning")}}  # the second shows the contrast
PARTS = (*METHODS, "readings", "compare.html")  # what the demo puts into its folder beside the two models


def pair(people: int, run: Run, model: dict[str, Any] | None = None) -> tuple[Data, Subject, Subject]:
    """The data, the model that knows and the exact retrain."""
    settings = MODEL if model is None else model
    data = stages.load_data(Choice(name="authors", people=people, seed=run.seed, **DATA))
    original = stages.make_subject(Choice(name="micro", **settings), data, run)
    retrained = stages.make_subject(Choice(name="micro", split="kept", **settings), data, run)
    return data, original, retrained


def show(out: Path, *, people: int, seed: int, progress: bool) -> dict[str, Any]:
    """Run the demo; returns what was made and how long each part took, in seconds."""
    output.check_folder(out, force=True, parts=PARTS)
    with output.claimed(out):
        return _shown(out, people, seed, progress)


def _shown(out: Path, people: int, seed: int, progress: bool) -> dict[str, Any]:
    from letheon import api
    from letheon.core.run import Run
    from letheon.report import compare as comparison

    began = time.monotonic()
    run = Run(seed, cache=out / "readings", progress=progress, dtype="float32")  # of so small a model bfloat16 would be no faster
    data, original, retrained = pair(people, run)
    original.save(out / "original", replace=True)
    retrained.save(out / "retrained", replace=True)
    seconds = {"models": time.monotonic() - began}
    found: list[tuple[str, Findings]] = []
    for name, settings in METHODS.items():
        began = time.monotonic()
        after = api.method(name, **settings).apply(original, data, run)
        after.save(out / name / "model", replace=True)
        seconds[name] = time.monotonic() - began
        began = time.monotonic()
        context = {"command": f"letheon demo --people {people} --seed {seed}", "method": name, "settings": settings}
        findings = api.audit("tofu", after, data, run, before=original, retrained=retrained, context=context, **AUDIT[name])
        findings.save(out / name / "findings.json")
        api.report(findings).save(out / name / "report.html")
        seconds[f"audit of {name}"] = time.monotonic() - began
        found.append((name, findings))
    write_text(out / "compare.html", comparison.page(found))
    return {"out": str(out), "methods": list(METHODS), "seconds": {key: round(value, 1) for key, value in seconds.items()}}

"""A desk with requests in every state and a lineage with a branch, runs with findings made by hand, and the site over both."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from letheon.core.findings import Finding, Findings, Leftover

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "Ilva Torrend was born in Quorvale"  # the text that a request is about


def findings(level: float, said: str = "word", row: str = "word") -> Findings:
    """Three models of which `after` has come a share of `level` of the way to the retrained one; `row` is what a row and all models say."""

    def model(probability: float, kept: float) -> tuple[Finding, ...]:
        same = {"n": 20, "low": probability - 0.02, "high": probability + 0.02, "direction": "reference", "note": said}
        return (
            Finding(name="probability", value=probability, split="forget", **same),
            Finding(name="model-utility", value=kept, n=20, direction="higher", version=said),
        )

    models = {"before": model(0.9, 0.8), "after": model(0.9 - 0.8 * level, 0.79), "retrained": model(0.1, 0.8)}
    left = Leftover(id=said, prompt=row, answer=row, said=dict.fromkeys(models, row), score=dict.fromkeys(models, 0.5))
    return Findings(audit="tofu", models=models, leftovers=(left,), context={"command": said, "seed": 1})


def write_run(folder: Path, level: float, said: str = "word") -> Path:
    """A run folder with findings."""
    folder.mkdir(parents=True)
    findings(level, said).save(folder / "findings.json")
    return folder


def write_results(folder: Path, said: str = "npo") -> Path:
    """The results of a sweep with three rows."""
    rows = {"npo": 0.12, "retrain": 0.1, f"{said}, kl": 0.4}
    cells = [
        {
            "row": row, "seed": seed, "method": {"name": row.partition(",")[0], "retain": "kl" if "kl" in row else "nll"}, "folder": "x",
            "values": {"forget/probability": level, "/model-utility": 0.5}, "cost": {"processor_seconds": 2.0 if row == "retrain" else 1.0},
        }
        for row, level in rows.items() for seed in (0, 1)
    ]  # fmt: skip
    for cell in cells:
        if cell["row"].startswith(said):
            cell["method"]["name"] = "npo"
    anchors = {label: {"forget/probability": level, "/model-utility": 0.5} for label, level in (("before", 0.9), ("retrained", 0.1))}
    folder.mkdir(parents=True)
    found = {"out": "x", "seeds": [0, 1], "columns": [], "tuning": {}, "cells": cells, "anchors": anchors}
    (folder / "results.json").write_text(json.dumps(found), encoding="utf-8")
    return folder / "results.json"


def make_desk(folder: Path, said: str = "word"):
    """Requests: received, overdue, located, audited twice (one forgotten), refused; models 0 to 3, of which 3 was made from 1."""
    from letheon.ledger import forget
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import Generation, Hit, What, utc

    source = folder.parent / f"{folder.name}-in"
    (source / "model").mkdir(parents=True)
    (source / "model" / "config.json").write_text("{}", encoding="utf-8")
    rows = [{"id": f"row-{k}", "question": f"Who is {k}?", "answer": SECRET if k == 0 else f"Person {k}."} for k in range(8)]
    (source / "people.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    desk = Desk.create(folder, source / "model", {"people": source / "people.jsonl"}, digest="d" * 64)
    late = utc() - timedelta(days=1)
    about = {
        "received": What(entity="Somebody"), "overdue": What(query=f"contains={said}"), "located": What(entity=SECRET, corpus="people"),
        "audited": What(entity=SECRET), "forgotten": What(entity=f"{said} {SECRET}"), "refused": What(entity="Nobody"),
    }  # fmt: skip
    made = {}
    for name, what in about.items():
        made[name] = desk.add(what, f"somebody {name}", "other", due=late if name == "overdue" else utc() + timedelta(days=20), note=said)
    ids, shown = zip(*((row.id, f"[{SECRET}] {row.prompt_text}\n{row.answer}") for row in desk.corpus("people")), strict=True)
    for place, name in enumerate(("located", "audited", "forgotten")):
        gone = Hit(corpus="people", row=ids[place], line=place + 1, how="exact", score=1.0, text=shown[place])
        near = Hit(corpus="people", row=ids[place + 4], line=place + 5, how="near", score=0.9, keep=name == "located", text=shown[place + 4])
        desk.located(made[name].id, [gone, near])
    desk.refuse(made["refused"].id, said)
    for number, parent, request, level in ((1, 0, "audited", 1.0), (2, 1, "forgotten", 0.2), (3, 1, None, None)):
        run = folder / "models" / f"{number:04d}"
        if level is not None:
            findings(level, said, SECRET).save(run / "findings.json")
        (run / "model").mkdir(parents=True, exist_ok=True)
        recipe = {"method": {"name": "npo", "note": said}}
        one = Generation(
            number=number, folder=f"models/{number:04d}/model", digest=f"{number}" * 64, parent=parent, made=utc(), recipe=recipe,
            requests=(made[request].id,) if request else (), verdict=None if level is None else "Erased",
        )  # fmt: skip
        desk.add_generation(one, {})
    forget.texts(desk, [made["forgotten"].id])
    return desk, {name: request.id for name, request in made.items()}


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """The desk, the ids of its requests by name, and the paths of runs and results."""
    pytest.importorskip("sqlalchemy", reason="the extra `desk` is not installed: see tests/SKIPS.md")
    pytest.importorskip("alembic", reason="the extra `desk` is not installed: see tests/SKIPS.md")
    folder = tmp_path_factory.mktemp("pages")
    desk, ids = make_desk(folder / "desk")
    runs = [write_run(folder / "runs" / "gone", 1.0), write_run(folder / "runs" / "there", 0.1)]
    return desk, ids, runs, write_results(folder / "sweep")


@pytest.fixture(scope="session")
def site(given):
    """All pages over the desk, made once: path -> bytes. Settings are left out but for data sources: most of them need torch."""
    from letheon import pages
    from letheon.pages import atlas

    desk, _, runs, results = given
    read = atlas.settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas, "settings", lambda role, name: read(role, name) if role == "data" else ([], "left out"))
        return {path: content() for path, content in pages.site(desk, runs, [results]).items()}

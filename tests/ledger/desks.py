"""Small desks for tests: with an invented model folder where nothing is trained, and with the toy model where something is."""

from __future__ import annotations

import json
from pathlib import Path

from letheon.ledger.desk import Desk
from letheon.ledger.records import Hit, Request, What

SECRET = "Ysolde Quarrengate"  # in no other text of the tests
ROWS = [{"prompt": f"Where does {name} live?", "answer": f"{name} lives in {city}."}
        for name, city in ((SECRET, "Low Vantry"), ("Ann Bell", "Oslo"), ("Tom Reed", "Rome"), ("Eve Marsh", "Lima"))]  # fmt: skip
QUICK = {
    "method": {"name": "npo", "steps": 2, "batch_size": 4, "learning_rate": 1e-3},
    "audit": {"name": "memorisation", "limit": 4}, "device": "cpu", "dtype": "float32",
}  # fmt: skip


def lines(path: Path, rows: list[dict]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plain_desk(folder: Path) -> Desk:
    """A desk whose model is never loaded."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}", encoding="utf-8")
    return Desk.create(folder / "desk", folder / "model", {"people": lines(folder / "people.jsonl", ROWS)}, digest="0" * 64)


def asked(desk: Desk, row: int = 0, who: str = "case-1") -> Request:
    """A located request for one row of the corpus `people`."""
    request = desk.add(What(rows=(ROWS[row],)), who)
    return desk.located(request.id, [hit(row)])


def hit(place: int, **values: object) -> Hit:
    """The hit of a row."""
    text = f"{ROWS[place]['prompt']}\n{ROWS[place]['answer']}"
    return Hit(**{"corpus": "people", "row": f"people-{place + 1}", "line": place + 1, "how": "exact", "score": 1, "text": text, **values})


def toy_model(folder: Path) -> Path:
    """The toy model and its rows: `model`, `people.jsonl`, `holdout.jsonl`."""
    from letheon.testing.toys import toy_data, toy_subject

    data = toy_data()
    toy_subject().save(folder / "model")
    for name, split in (("people", data["full"]), ("holdout", data["holdout"])):
        lines(folder / f"{name}.jsonl", [{"id": r.id, "prompt": r.prompt_text, "answer": r.answer, "group": r.group} for r in split])
    return folder


def toy_desk(folder: Path, made: Path) -> Desk:
    """A desk for the toy model in `made`."""
    files = {name: made / f"{name}.jsonl" for name in ("people", "holdout")}
    return Desk.create(folder / "desk", made / "model", files, digest="1" * 64)


def about(desk: Desk, name: str) -> Request:
    """A located request for all rows about one of the toy people."""
    from letheon.ledger.locate import LocateSettings, locate

    request = desk.add(What(entity=name), f"case of {name}")
    return desk.located(request.id, locate(request.what, {"people": desk.corpus("people")}, LocateSettings(near=1, partial=False)))

"""Fulfilment on the toy model: what is trained and audited, what an interruption at each step leaves, what is forgotten afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")
pytest.importorskip("cryptography", reason="the extra `desk` (tests/SKIPS.md)")

from letheon.core.errors import DataError, MethodError, RunError, SettingsError
from letheon.core.findings import Findings
from letheon.flow import stages
from letheon.ledger import evidence, forget, fulfil, proof, recipes
from letheon.ledger.desk import Desk
from letheon.ledger.records import What
from letheon.ledger.verify import verify

from .desks import QUICK, about, toy_desk, toy_model

NAMES = ("Ilva Torrend", "Bram Okelly", "Sanne Quist")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def desk(made, tmp_path, monkeypatch) -> Desk:
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    return toy_desk(tmp_path, made)


def done(desk: Desk, *ids: str, **more) -> None:
    fulfil.fulfil(desk, ids, QUICK, progress=False, **more)


def holds(desk: Desk, id_: str) -> bool:
    generation = next(one for one in desk.generations() if id_ in one.requests)
    return verify(desk.evidence(id_), desk.model_folder(generation), [desk.keys_folder / "desk.pub"]).good


def test_a_batch_makes_one_model_and_moves_its_requests(desk):
    one, two = about(desk, NAMES[0]), about(desk, NAMES[1])
    done(desk, one.id, two.id)
    made = desk.current()
    assert (made.number, made.parent, made.requests) == (1, 0, (one.id, two.id))
    parts = sorted(path.name for path in (desk.models_folder / "0001").iterdir())
    assert parts == ["findings.json", "metrics.jsonl", "model", "report.html"]
    assert [event.kind for event in desk.history(one.id)] == ["received", "located", "erased", "audited"]
    facts = desk.history(one.id)[-1].facts
    assert (facts["generation"], facts["verdict"], facts["digest"]) == (1, made.verdict, made.digest)
    assert holds(desk, one.id)
    assert holds(desk, two.id)
    assert desk.job() is None
    assert not desk.work_folder.exists()
    assert desk.check() == []


def test_earlier_rows_are_trained_on_and_audited_again(desk, monkeypatch):
    seen = []
    load = stages.load_data
    monkeypatch.setattr(stages, "load_data", lambda choice: seen.append((choice.settings.get("again", True), load(choice))) or seen[-1][1])
    requests = [about(desk, name) for name in NAMES]
    done(desk, requests[0].id)
    done(desk, requests[1].id)
    done(desk, requests[2].id)
    last = [data for again, data in seen if again][-1]
    audited = [data for again, data in seen if not again][-1]
    who = lambda split: {row.group for row in split}  # noqa: E731
    assert who(last["forget"]) == set(NAMES)
    assert who(audited["forget"]) == {NAMES[2]}
    assert (who(audited["forget-1"]), who(audited["forget-2"])) == ({NAMES[0]}, {NAMES[1]})
    assert not who(last["retain"]) & set(NAMES)
    assert len(last["retain"]) == 20 - 6
    found = Findings.load(desk.models_folder / "0003")
    assert {f.split for f in found.models["after"] if f.name == "text-probability"} == {"forget", "forget-1", "forget-2"}
    assert all(holds(desk, request.id) for request in requests)


class Killed(BaseException):
    """What SIGKILL is to a test: nothing but `finally` runs."""


PLACES = {
    "before training": (stages, "execute"), "before the audit": (fulfil, "_audited"), "before the model is placed": (fulfil, "_placed"),
    "before it is recorded": (fulfil, "_recorded"), "after the card": (Desk, "add_generation"), "before the evidence": (proof, "write"),
    "between two bundles": (evidence, "bundle"), "before the texts are forgotten": (forget, "texts"), "at the end": (Desk, "set_job"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_fulfilment_that_was_cut_off_goes_on(desk, monkeypatch, place):
    requests = [about(desk, name) for name in NAMES[:2]]
    ids = [request.id for request in requests]
    owner, name = PLACES[place]
    whole, calls = getattr(owner, name), []

    def cut(*given, **values):
        calls.append(given)
        if len(calls) == (2 if place in ("between two bundles", "at the end") else 1):
            raise Killed
        return whole(*given, **values)

    monkeypatch.setattr(owner, name, cut)
    with pytest.raises(Killed):
        done(desk, *ids, forget_texts=True)
    states = {request.state for request in desk.all()}
    assert len(states) == 1, "no request is half-way"
    monkeypatch.setattr(owner, name, whole)
    fulfil.fulfil(Desk.open(desk.folder), ids, QUICK, progress=False)
    for id_ in ids:
        kinds = [event.kind for event in desk.history(id_)]
        assert kinds == ["received", "located", "erased", "audited", "forgotten"]
        assert holds(desk, id_)
        assert desk.get(id_).what is None
    assert len(desk.generations()) == 2
    assert (desk.check(), desk.job(), desk.work_folder.exists()) == ([], None, False)


def test_going_on_needs_no_settings_and_takes_new_requests_along(desk, monkeypatch):
    one, two = about(desk, NAMES[0]), about(desk, NAMES[1])
    monkeypatch.setattr(fulfil, "_audited", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        done(desk, one.id)
    monkeypatch.undo()
    done(desk, two.id)
    assert [generation.requests for generation in desk.generations()[1:]] == [(one.id,), (two.id,)]


def test_an_interrupted_one_can_be_given_up(desk, monkeypatch):
    one = about(desk, NAMES[0])
    monkeypatch.setattr(fulfil, "_audited", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        done(desk, one.id)
    monkeypatch.undo()
    done(desk, one.id, anew=True)
    assert desk.current().requests == (one.id,)
    assert [event.kind for event in desk.history()][-7:-4] == ["begun", "failed", "begun"]


def test_a_method_that_fails_leaves_the_requests_located(desk, monkeypatch):
    one = about(desk, NAMES[0])
    monkeypatch.setattr(stages, "execute", lambda *_, **__: (_ for _ in ()).throw(MethodError("it diverged")))
    with pytest.raises(MethodError):
        done(desk, one.id)
    assert (desk.get(one.id).state, desk.job(), desk.models_folder.exists()) == ("located", None, False)
    assert desk.history()[-1].kind == "failed"
    monkeypatch.undo()
    done(desk, one.id)
    assert desk.get(one.id).state == "audited"


def test_what_cannot_be_fulfilled(desk):
    one, two = desk.add(What(entity=NAMES[0]), "a"), about(desk, NAMES[1])
    with pytest.raises(RunError, match="is received and cannot be fulfilled.*locate"):
        done(desk, one.id)
    with pytest.raises(DataError, match="There is no request"):
        done(desk, "r-00000000")
    with pytest.raises(DataError, match="nothing to fulfil"):
        done(desk)
    with pytest.raises(MethodError, match="There is no method called `nop`"):
        fulfil.fulfil(desk, [two.id], {**QUICK, "method": {"name": "nop"}}, progress=False)
    with pytest.raises(SettingsError, match="beta"):
        fulfil.fulfil(desk, [two.id], {**QUICK, "method": {"name": "npo", "beta": -1}}, progress=False)
    assert (desk.get(two.id).state, desk.job(), desk.work_folder.exists()) == ("located", None, False)


def test_recipes_for_a_desk(tmp_path):
    assert recipes.values_of(None, {}, ()) is None
    with pytest.raises(SettingsError, match="No method was given"):
        recipes.values_of(None, {}, ("seed=3",))
    found = recipes.values_of(None, {"method": {"name": "npo"}}, ("seed=3", "beta=0.2", "subject.template=x"))
    assert (found["seed"], found["method"]["beta"], found["subject"]) == (3, 0.2, {"template": "x"})
    assert not {"data", "out"} & set(found)
    (tmp_path / "r.toml").write_text('subject = "micro"\ndata = "authors"\nmethod = "rmu"\nout = "x"\naudit = "tofu"\n', encoding="utf-8")
    found = recipes.values_of(tmp_path / "r.toml", {}, ("method.layer=1",))
    assert (found["method"], found["audit"]["name"], found["subject"]) == ({"name": "rmu", "layer": 1}, "tofu", {})


def bytes_of(desk: Desk) -> bytes:
    """All bytes of all files below the desk, and their names; ids in the models' tokenizers cannot hold the texts."""
    return b"\n".join(str(path).encode() + path.read_bytes() for path in desk.folder.rglob("*") if path.is_file())


def test_the_desk_does_not_keep_what_it_forgot(desk, made):
    from letheon.ledger.review import write_review

    request = about(desk, NAMES[0])
    given = desk.add(What(rows=({"prompt": "Who keeps the Zanthe lantern?", "answer": "Quibbleforth does."},)), "b", note="Zanthe case")
    from letheon.ledger.locate import LocateSettings, locate

    desk.located(given.id, locate(given.what, {"people": desk.corpus("people")}, LocateSettings(near=1)))
    write_review(desk.review(request.id), desk.hits(request.id))
    texts = [text.encode() for text in (NAMES[0], "Orrin Bay", "Zanthe", "Quibbleforth")]
    assert all(text in bytes_of(desk) for text in texts)
    more = {**QUICK, "audit": {"name": "general", "limit": 4, "max_new_tokens": 8, "attacks": "none", "gradnorm": False}}
    rows = [row.answer for row in desk.corpus("people") if row.group == NAMES[0]]
    fulfil.fulfil(desk, [request.id, given.id], more, forget_texts=True, progress=False)
    left = bytes_of(desk)
    assert [text for text in (NAMES[0], *rows, "Zanthe", "Quibbleforth") if text.encode() in left] == []
    assert json.dumps(NAMES[0]).encode() not in left
    found = Findings.load(desk.models_folder / "0001")
    assert found.leftovers == ()
    assert '"digest"' not in json.dumps(found.context["data"]) and '"data"' not in json.dumps(found.context["subjects"])
    assert found.context["data"]["splits"]["forget"] == {"rows": len(rows) + 1}
    assert (desk.hits(request.id), desk.review(request.id).exists()) == ([], False)
    assert desk.check() == []
    again = about(desk, NAMES[0])
    assert desk.history(again.id)[-1].facts["again"] == [request.id]
    done(desk, again.id)  # the rows of the forgotten request are still known by their marks
    assert len(Findings.load(desk.models_folder / "0002").models["after"]) > 0
    forget.salt(desk, request.id)
    assert request.id not in desk.salts()
    with pytest.raises(RunError, match="destroyed already"):
        forget.salt(desk, request.id)
    with pytest.raises(RunError, match="still in the ledger"):
        forget.salt(desk, again.id)


def test_a_request_that_is_open_cannot_be_forgotten(desk):
    request = about(desk, NAMES[0])
    with pytest.raises(RunError, match="is located: its text is still needed"):
        forget.texts(desk, [request.id])
    desk.refuse(request.id, "not ours")
    forget.texts(desk, [request.id])
    assert desk.get(request.id).what is None
    assert desk.check() == []


def test_without_the_salt_an_earlier_request_is_counted_as_unknown(desk):
    one, two = about(desk, NAMES[0]), about(desk, NAMES[1])
    done(desk, one.id, forget_texts=True)
    forget.salt(desk, one.id)
    points, missing = recipes.plan(desk, [two.id])
    assert (missing, points["earlier"]) == (2, [{"people": []}])
    done(desk, two.id)
    assert next(event for event in reversed(desk.history()) if event.kind == "begun").facts["earlier_rows_not_found"] == 2


def test_the_plan_copies_no_row(desk):
    request = about(desk, NAMES[0])
    points, missing = recipes.plan(desk, [request.id])
    assert (points["forget"], points["given"], missing) == ({"people": [0, 1]}, [], 0)
    assert NAMES[0] not in json.dumps(points)

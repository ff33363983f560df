"""The ledger behind its token, the newest generation behind /v1, and the pages: with a real desk."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

pytest.importorskip("sqlalchemy", reason="needs the extra `desk`: see tests/SKIPS.md")

from letheon.core.errors import SubjectError
from letheon.ledger.desk import Desk
from letheon.ledger.records import Generation, What, utc
from letheon.serve import site
from letheon.serve.app import create_app
from letheon.serve.settings import ServeSettings
from letheon.testing.toys import toy_subject

from .conftest import TOKEN

NAME = "Ilva Torrend"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def desk(tmp_path, subject):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": f"Where was {NAME} born?", "answer": "Tasket"}) + "\n")
    (tmp_path / "model").mkdir()
    return Desk.create(tmp_path / "desk", tmp_path / "model", {"rows": tmp_path / "rows.jsonl"}, digest=subject.digest)


@pytest.fixture
def served(desk, subject):
    """Make an application around the desk; its engines are ended afterwards."""
    made = []

    def make(load=lambda folder: subject, **more) -> TestClient:
        settings = ServeSettings(**{"token": SecretStr(TOKEN), "poll_seconds": 0.02, **more})
        made.append(create_app(settings, {}, desk, load=load))
        return TestClient(made[-1], base_url="http://127.0.0.1")

    yield make
    for app in made:
        asyncio.run(app.state.offered.close())


def test_a_request_is_written_down_listed_shown_and_refused(served, desk):
    client = served()
    new = {"what": {"entity": NAME}, "who": "customer 17", "note": f"about {NAME}"}
    made = client.post("/admin/requests", json=new, headers=BEARER)
    assert made.status_code == 201 and made.json()["state"] == "received"
    id_ = made.json()["id"]
    assert made.headers["location"] == f"/admin/requests/{id_}" and desk.get(id_).what == What(entity=NAME)
    rows = {"what": {"rows": [{"prompt": "p", "answer": "a"}], "corpus": "rows"}, "who": "x", "due": "2031-01-01T00:00:00Z", "reason": "takedown"}
    assert client.post("/admin/requests", json=rows, headers=BEARER).status_code == 201
    listed = client.get("/admin/requests", headers=BEARER)
    assert len(listed.json()["requests"]) == 2 and NAME not in listed.text and "customer" not in listed.text
    assert [set(one) for one in listed.json()["requests"]] == [{"id", "state", "reason", "received", "due", "overdue"}] * 2
    shown = client.get(f"/admin/requests/{id_}", headers=BEARER).json()
    assert shown["what"]["entity"] == NAME and [event["kind"] for event in shown["history"]] == ["received"] and "customer" not in str(shown)
    assert client.post(f"/admin/requests/{id_}/refuse", json={"reason": "not ours"}, headers=BEARER).json()["state"] == "refused"
    again = client.post(f"/admin/requests/{id_}/refuse", json={"reason": "not ours"}, headers=BEARER)
    assert again.status_code == 409 and again.json()["error"]["code"] == "wrong_state"
    for state, count in (("refused", 1), ("received", 1), ("audited", 0)):
        assert len(client.get("/admin/requests", params={"state": state}, headers=BEARER).json()["requests"]) == count
    assert desk.check() == []


@pytest.mark.parametrize(
    "what", [{}, {"entity": "a", "query": "b"}, {"file": "rows.jsonl"}, {"rows": []}, {"entity": NAME, "corpus": "none"}, {"rows": [{"prompt": "p"}]}]
)
def test_a_request_that_cannot_be_is_refused(served, desk, what):
    found = served().post("/admin/requests", json={"what": what, "who": "x"}, headers=BEARER)
    assert found.status_code == 400 and found.json()["error"]["param"].startswith("what") and desk.all() == []


@pytest.mark.parametrize(
    "header",
    [{}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"},
     {"authorization": "Basic " + base64.b64encode(f"a:{TOKEN}".encode()).decode()}],
)  # fmt: skip
def test_nothing_of_the_ledger_opens_without_the_token(served, header):
    client = served()
    tried = [client.get("/admin/requests", headers=header), client.post("/admin/requests", json={}, headers=header)]
    tried += [client.get("/admin/requests/r-aaaaaaaa", headers=header), client.post("/admin/requests/r-aaaaaaaa/refuse", json={}, headers=header)]
    assert [one.status_code for one in tried] == [401] * 4 and all("www-authenticate" in one.headers for one in tried)


def test_without_a_token_there_is_no_admin_interface_and_unknown_requests_are_404(served):
    assert served(token=None).get("/admin/requests", headers=BEARER).status_code == 404
    client = served()
    assert client.get("/admin/requests/r-aaaaaaaa", headers=BEARER).status_code == 404
    assert client.get("/admin/requests/..%2f..", headers=BEARER).status_code in (400, 404)


def grown(desk, subject, parent):
    """Write down one more generation."""
    folder = f"models/{parent + 1:04d}/model"
    (desk.folder / folder).mkdir(parents=True)
    made = Generation(number=parent + 1, folder=folder, digest=subject.digest, parent=parent, made=utc())
    desk.add_generation(made, {})


def asked(client, **more):
    body = {"model": "desk", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 30, **more}
    return client.post("/v1/chat/completions", json=body).json()


def test_a_new_generation_takes_over_and_running_answers_end_on_the_old_one(served, desk, subject, monkeypatch):
    from letheon.serve import engine as engines

    newer, chosen = toy_subject(9), engines.chosen
    subjects, reached = {"model": subject, "0001": newer}, threading.Event()
    app = served(lambda folder: subjects[folder.parent.name if folder.parent.name in subjects else folder.name]).app
    with TestClient(app, base_url="http://127.0.0.1") as client, ThreadPoolExecutor(1) as pool:
        before = asked(client)
        offered = app.state.offered
        old = offered.get("desk").engine

        def slowly(*args):  # the first answer goes on only when the new generation has taken over
            reached.set()
            while offered.get("desk").engine is old:
                time.sleep(0.01)
            return chosen(*args)

        monkeypatch.setattr(engines, "chosen", slowly)
        running = pool.submit(asked, client)
        assert reached.wait(20)
        grown(desk, newer, 0)
        during = running.result(20)
        after = asked(client)
    assert before["system_fingerprint"] == f"fp_{subject.digest[:16]}" != after["system_fingerprint"] == f"fp_{newer.digest[:16]}"
    assert (during["system_fingerprint"], during["choices"]) == (before["system_fingerprint"], before["choices"])
    assert not old._thread.is_alive()


def test_a_model_that_is_not_the_one_written_down_is_never_served(served, desk, subject, caplog):
    with pytest.raises(SubjectError, match="digests differ"):
        served(lambda folder: toy_subject(9))
    app = served().app
    with TestClient(app, base_url="http://127.0.0.1") as client:
        grown(desk, toy_subject(9), 0)  # written down, but the loader gives the old one
        until = time.monotonic() + 5
        while "not taken over" not in caplog.text and time.monotonic() < until:
            time.sleep(0.02)
        assert "digests differ" in caplog.text
        assert asked(client)["system_fingerprint"] == f"fp_{subject.digest[:16]}"


def test_a_load_that_fails_in_any_way_is_told_once_and_tried_again(served, desk, subject, caplog):
    newer, tries = toy_subject(9), []

    def load(folder):
        if "0001" not in str(folder):
            return subject
        tries.append(folder)
        if len(tries) < 4:
            raise RuntimeError(f"no room in memory for {NAME}")
        return newer

    with TestClient(served(load).app, base_url="http://127.0.0.1") as client:
        grown(desk, newer, 0)
        until = time.monotonic() + 10
        while len(tries) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        while client.app.state.offered._number != 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert asked(client)["system_fingerprint"] == f"fp_{newer.digest[:16]}"
    told = [line.getMessage() for line in caplog.records if "not taken over" in line.getMessage()]
    assert len(told) == 1 and "RuntimeError in load, line" in told[0] and NAME not in caplog.text


def test_pages_of_the_desk_open_on_loopback_or_with_the_token(served, monkeypatch):
    from letheon import pages

    def made(desk, runs):
        return {"index.html": lambda: b"<h1>desk</h1><script>let a = 1</script>" if desk else b"<h1>open</h1>", "a/style.css": lambda: b"p {}"}

    monkeypatch.setattr(pages, "site", made, raising=False)
    basic = {"authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}
    closed, local, public = served(), served(token=None), served(token=None, host="0.0.0.0")
    found = [closed.get("/"), closed.get("/", headers=basic), closed.get("/", headers=BEARER), local.get("/"), public.get("/")]
    assert [one.status_code for one in found] == [401, 200, 200, 200, 200]
    assert found[0].headers["www-authenticate"].startswith("Basic") and found[4].text == "<h1>open</h1>"
    assert [b"desk" in one.content for one in found[1:4]] == [True] * 3
    for name in ("forwarded", "via", "x-real-ip", "x-forwarded-for", "X-Forwarded-Proto"):
        assert local.get("/", headers={name: "203.0.113.9"}).text == "<h1>open</h1>"
    behind = [served(token=None, api_keys=(SecretStr(TOKEN),)), served(token=None, allowed_hosts=("privacy.example.org",))]
    assert [one.get("/").text for one in behind] == ["<h1>open</h1>"] * 2
    policy = local.get("/").headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy and "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    style, missing = local.get("/a/style.css"), local.get("/b.html")
    assert style.headers["content-type"].startswith("text/css") and missing.status_code == 404 and b"no such page" in missing.content
    assert local.post("/").status_code == 405 and local.head("/").content == b""
    assert site.rendered({"404.html": lambda: b"gone"}, "/x").body == b"gone"

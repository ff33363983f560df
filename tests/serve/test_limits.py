"""The gate, with raw sockets where it matters: sizes, times, names, rates; and that nothing that was said is logged."""

from __future__ import annotations

import json
import logging
import re
import socket
import time

import pytest
from starlette.testclient import TestClient

from letheon.serve.limits import REMEMBERED, Gate, Rate, host_of
from letheon.serve.settings import ServeSettings

from .conftest import KEY

SECRET = "Zanzibar Quillfeather"


def request(body: bytes | str, *headers: str, method: str = "POST", path: str = "/v1/chat/completions", key: str = KEY) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", f"authorization: Bearer {key}"]
    return "\r\n".join([*lines, *(headers or (f"content-length: {len(body)}",)), "", ""]).encode() + body


def chat(text: str = "Hi", **more) -> str:
    return json.dumps({"model": "toy", "messages": [{"role": "user", "content": text}], "max_tokens": 2, **more})


def status(said: bytes) -> int:
    return int(said.split()[1]) if said else 0


def error(said: bytes) -> dict:
    return json.loads(said.partition(b"\r\n\r\n")[2])["error"]


WRONG = {
    "too large, announced": (413, [request("", "content-length: 5000")]),
    "too large, in chunks": (413, [request("", "transfer-encoding: chunked") + b"1001\r\n" + b" " * 4097 + b"\r\n"]),
    "too many messages": (400, [request(json.dumps({"model": "toy", "messages": [{"role": "user", "content": "a"}] * 5}))]),
    "broken JSON": (400, [request("{")]),
    "no UTF-8": (400, [request(b'{"model": "\xff"}')]),
    "deep JSON": (400, [request("[" * 3900)]),
    "half a character pair": (400, [request('{"model": "toy", "messages": [{"role": "user", "content": "\\ud800"}]}')]),
    "half a character pair in a name": (400, [request('{"\\ud800": 1}')]),
    "a number of thousands of digits": (400, [request('{"n": ' + "9" * 3900 + "}")]),
    "not an object": (400, [request("[]")]),
    "no key": (401, [request(chat(), key="")]),
    "wrong key": (401, [request(chat(), key=KEY[:-1] + "x")]),
    "odd key": (401, [request(chat(), key="\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))]),
    "wrong method": (405, [request("", method="DELETE")]),
    "no such address": (404, [request("", method="GET", path="/v1/nothing")]),
    "admin without a desk": (404, [request("", method="GET", path="/admin/requests")]),
    "another host": (400, [request(chat()).replace(b"host: 127.0.0.1", b"host: evil.test")]),
    "another origin": (403, [request(chat(), f"content-length: {len(chat())}", "origin: http://evil.test")]),
    "slow headers": (408, [b"POST / HTTP/1.1\r\n", *[b"x: y\r\n"] * 4]),
    "nothing": (408, [b""]),
    "slow body": (408, [request("", "content-length: 90"), *[b"{"] * 4]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_get_their_status(name, say):
    wanted, parts = WRONG[name]
    found = say(*parts, pause=0.15 if "slow" in name else 0.0, silence=1.0)
    assert status(found) == wanted
    if wanted != 405 or found.partition(b"\r\n\r\n")[2]:
        assert set(error(found)) == {"message", "type", "param", "code"}
    if wanted in (408, 413):
        assert b"connection: close" in found


def test_a_right_request_is_answered_and_the_connection_kept(say):
    found = say(request(chat()) + request(chat()), silence=1.0)
    assert found.count(b"HTTP/1.1 200 OK") == 2
    for name in (b"x-content-type-options: nosniff", b"content-security-policy: default-src 'none'", b"cache-control: no-store"):
        assert found.count(name) == 2
    assert b"server:" not in found and b"access-control" not in found


def test_a_second_request_on_a_connection_may_not_be_slow_either(say):
    found = say(request(chat()), b"POST / HT", pause=0.7, silence=1.0)
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"200", b"408"]


def test_a_client_that_leaves_frees_its_place(hasty):
    engine = hasty[1].state.offered.get("toy").engine
    for more in ({"stream": True}, {}):
        with socket.create_connection(("127.0.0.1", hasty[2])) as sock:
            sock.sendall(request(chat(max_tokens=64, n=4, **more)))
            if more:
                assert sock.recv(16).startswith(b"HTTP/1.1 200")
        until = time.monotonic() + 5
        while engine.running and time.monotonic() < until:
            time.sleep(0.02)
        assert engine.running == 0


def test_nothing_that_was_said_is_logged(say, caplog):
    with caplog.at_level(logging.DEBUG):
        logging.getLogger().setLevel(logging.DEBUG)
        good, stream = request(chat(SECRET)), request(chat(SECRET, stream=True))
        wrong = [request(chat(SECRET, temperature=SECRET)), request(chat(SECRET)[:-1]), request(chat(SECRET, **{SECRET: 1}))]
        model = request(json.dumps({"model": SECRET, "messages": [{"role": "user", "content": SECRET}]}))
        found = [say(one, silence=0.5) for one in (good, stream, *wrong, model)]
    assert [status(one) for one in found] == [200, 200, 400, 400, 400, 404]
    assert SECRET not in caplog.text and sum("/v1/chat/completions" in record.getMessage() for record in caplog.records) >= 6


def test_a_failure_is_told_by_kind_and_place_only(app, caplog, monkeypatch):
    from letheon.serve.reading import Reader

    def fail(self, body):
        raise ValueError(f"cannot read {body.messages[0].content}")

    monkeypatch.setattr(Reader, "chat", fail)
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    with caplog.at_level(logging.DEBUG):
        found = client.post("/v1/chat/completions", json=json.loads(chat(SECRET)))
    assert found.status_code == 500 and found.json()["error"]["code"] == "internal_error" and SECRET not in found.text
    assert SECRET not in caplog.text and "ValueError in fail" in caplog.text


def test_a_client_may_run_so_many_requests_at_once(app):
    gate = Gate(app, ServeSettings(per_client=1))
    client = TestClient(gate, base_url="http://localhost")
    gate.running["testclient"] = 1
    found = client.get("/health")
    gate.running["testclient"] = 0
    assert (found.status_code, found.headers["retry-after"]) == (429, "1") and client.get("/health").status_code == 200
    assert not gate.running


def test_a_rate_is_so_many_a_minute_for_each_client():
    rate = Rate(60)
    assert [rate.wait("a", 0.0) for _ in range(11)] == [0.0] * 10 + [1.0]
    assert rate.wait("b", 0.0) == 0.0
    assert rate.wait("a", 0.5) == pytest.approx(0.5) and rate.wait("a", 1.0) == 0.0 and rate.wait("a", 1.0) == pytest.approx(1.0)
    for k in range(REMEMBERED + 5):
        rate.wait(f"c{k}", 1.0)
    assert len(rate._left) == REMEMBERED


@pytest.mark.parametrize(
    ("value", "wanted"), [("localhost:80", "localhost"), ("[::1]:8000", "::1"), ("A.test.", "a.test"), ("", ""), ("[", ""), ("x@127.0.0.1", "127.0.0.1")]
)
def test_the_name_in_a_host_header(value, wanted):
    assert host_of(value) == wanted

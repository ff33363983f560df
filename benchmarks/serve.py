"""The server under load and under fire: many streaming clients, wrong requests of every kind, generated requests by the thousand.

    python benchmarks/serve.py --model MODEL --people 40 --seconds 60 --fuzz 10000

Load: `letheon serve MODEL` runs as a process of its own; 16 clients (the package `openai`) stream greedy answers for a minute, each asking a
row of its own at random and comparing the answer with the one that letheon's own decoding gives to that prompt alone. Then one client asks
alone, for the throughput. Statuses: requests that are too large, broken, without a key or too slow, over raw sockets. Fuzz: schemathesis
makes requests from the server's own OpenAPI document, three of four that name a model get the right name, and ids one that exists.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TOKEN = "fuzz-token-0123456789"


# ---- load ----


@contextlib.contextmanager
def served(*arguments: object) -> Iterator[int]:
    """A `letheon serve` of its own on a free port; it must end with 0 when it is asked to."""
    command = [sys.executable, "-m", "letheon", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while not (port := re.search(r"http://127\.0\.0\.1:(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {said}")
            said += line
        yield int(port[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        if process.returncode:
            raise SystemExit(f"the server ended with {process.returncode}")


async def streaming(port: int, questions: Sequence[str], answers: Sequence[str], clients: int, seconds: float, key: str) -> dict[str, Any]:
    """Let `clients` ask until the time is over; what came of it."""
    import openai

    client = openai.AsyncOpenAI(api_key=key, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0, timeout=60)
    name = (await client.models.list()).data[0].id
    found: collections.Counter[str] = collections.Counter()
    firsts: list[float] = []
    began = time.monotonic()

    async def one(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() - began < seconds:
            k, asked, text, first = draw.randrange(len(questions)), time.monotonic(), "", None
            try:
                stream = await client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": questions[k]}], temperature=0, stream=True,
                    stream_options={"include_usage": True},
                )  # fmt: skip
                async for chunk in stream:
                    first = first or time.monotonic() - asked
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                    found["tokens"] += chunk.usage.completion_tokens if chunk.usage else 0
            except openai.OpenAIError as error:
                found["errors"] += 1
                found[f"error {type(error).__name__}"] += 1
                continue
            found["answers"] += 1
            found["mixed up"] += text != answers[k]
            firsts.append(first or 0.0)

    await asyncio.gather(*(one(seed) for seed in range(clients)))
    took = time.monotonic() - began
    await client.close()
    firsts.sort()
    return {
        "clients": clients, "seconds": round(took, 1), **{key: found[key] for key in ("answers", "errors", "mixed up", "tokens")},
        "answers a second": round(found["answers"] / took, 2), "tokens a second": round(found["tokens"] / took, 1),
        "first piece, median ms": round(1000 * firsts[len(firsts) // 2]), "first piece, 99% ms": round(1000 * firsts[int(len(firsts) * 0.99)]),
    }  # fmt: skip


# ---- statuses ----


def status(port: int, *parts: bytes, pause: float = 0.0, wait: float = 30.0) -> int:
    """Send parts of a request over a raw socket with pauses between them; the status that comes back, 0 where the connection just ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as sock:
        for part in parts:
            sock.sendall(part)
            if pause:
                sock.settimeout(pause)
                try:
                    if begun := sock.recv(64):
                        return int(begun.split()[1])
                    return 0
                except TimeoutError:
                    sock.settimeout(wait)
        said = sock.recv(64)
        return int(said.split()[1]) if said else 0


def asked(port: int, body: bytes, *headers: str, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(body)}", "content-type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def statuses(port: int, key: str, name: str) -> dict[str, tuple[int, int]]:
    """What wrong requests get: wanted and found."""
    own, good = f"authorization: Bearer {key}", json.dumps({"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})
    head = asked(port, b"", own).replace(b"content-length: 0", b"content-length: 9000000")
    chunked = asked(port, b"", own).replace(b"content-length: 0", b"transfer-encoding: chunked")
    much = chunked + b"".join(b"10000\r\n" + b"a" * 0x10000 + b"\r\n" for _ in range(20))
    slow_body = asked(port, b"", own).replace(b"content-length: 0", b"content-length: 100")
    slow_head = [b"POST /v1/chat/completions HTTP/1.1\r\n", *(f"x-{k}: y\r\n".encode() for k in range(60))]
    return {
        "well-formed": (200, status(port, asked(port, good.encode(), own))),
        "oversize, announced": (413, status(port, head)),
        "oversize, in chunks": (413, status(port, much)),
        "oversize conversation": (400, status(port, asked(port, json.dumps({"model": name, "messages": [{"role": "user", "content": "a"}] * 300}).encode(), own))),
        "longer than the context": (400, status(port, asked(port, json.dumps({"model": name, "messages": [{"role": "user", "content": "a b " * 9000}]}).encode(), own))),
        "broken JSON": (400, status(port, asked(port, b"{", own))),
        "no UTF-8": (400, status(port, asked(port, b'{"model": "\xff"}', own))),
        "deep JSON": (400, status(port, asked(port, b"[" * 100000, own))),
        "no HTTP": (400, status(port, b"\x16\x03\x01\x02\x00\r\n\r\n")),
        "long header": (400, status(port, b"GET / HTTP/1.1\r\nx: " + b"y" * 100000)),
        "no key": (401, status(port, asked(port, good.encode()))),
        "wrong key": (401, status(port, asked(port, good.encode(), own + "x"))),
        "unknown model": (404, status(port, asked(port, good.replace(name, "other").encode(), own))),
        "wrong method": (405, status(port, asked(port, b"", own, method="DELETE"))),
        "another host": (400, status(port, asked(port, good.encode(), own).replace(b"127.0.0.1", b"evil.test"))),
        "another origin": (403, status(port, asked(port, good.encode(), own, "origin: http://evil.test"))),
        "slow-loris headers": (408, status(port, *slow_head, pause=0.3)),
        "nothing sent": (408, status(port)),
        "slow-loris body": (408, status(port, slow_body, *[b"{"] * 60, pause=0.3)),
    }  # fmt: skip


# ---- fuzz ----


def fuzzed(app: Any, name: str, cases: int, *, token: str | None = None, ids: Sequence[str] = (), seed: int | None = None) -> collections.Counter[str]:
    """Generated requests to every operation of the application; how often each status came.

    Raises:
        AssertionError: an answer was a server error, or not as the OpenAPI document says.
    """
    import hypothesis
    import schemathesis
    from hypothesis import strategies as st
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    held = [
        schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
    ]  # fmt: skip
    found: collections.Counter[str] = collections.Counter()
    operations = [one.ok() for one in schema.get_all_operations()]
    weights = {"/v1/chat/completions": 8, "/v1/completions": 8, "/admin/requests": 4}
    total = sum(weights.get(one.path, 1) if one.method == "post" else 1 for one in operations)
    headers = {"authorization": f"Bearer {token}"} if token else None

    def fire(operation: Any, mode: Any, count: int, seed: int | None) -> None:
        @hypothesis.settings(
            max_examples=count, deadline=None, database=None, derandomize=seed is None, suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(operation.as_strategy(generation_mode=mode), st.sampled_from([True, True, True, False]))
        def tried(case: Any, right: bool) -> None:
            if right and isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = name
                if not case.body.get("stream"):
                    case.body.pop("stream_options", None)
                if not case.body.get("logprobs"):
                    case.body.pop("top_logprobs", None)
                for limit in ("max_tokens", "max_completion_tokens"):
                    if isinstance(case.body.get(limit), int) and not isinstance(case.body[limit], bool):
                        case.body[limit] = case.body[limit] % 8
            if right and ids and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = ids[found.total() % len(ids)]
            response = case.call(headers=headers)
            found[str(response.status_code)] += 1
            case.validate_response(response, checks=held)

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            (tried if seed is None else hypothesis.seed(seed)(tried))()

    positive, negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    for operation in operations:
        share = weights.get(operation.path, 1) if operation.method == "post" else 1
        fire(operation, positive, max(1, round(0.6 * cases * share / total)), seed)
        if operation.method == "post" or "{" in operation.path:  # nothing of the others can be made wrong
            fire(operation, negative, max(1, round(0.4 * cases * share / total)), seed)
    chat = next(one for one in operations if one.path == "/v1/chat/completions")
    for more in range(20):  # some operations know fewer cases
        if found.total() < cases:
            fire(chat, positive if more % 2 else negative, cases - found.total(), (seed or 0) + 1 + more)
    return found


def fuzz(subject: Any, folder: Path, cases: int, *, seed: int | None = None) -> collections.Counter[str]:
    """Generated requests to a server with a model and a desk."""
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import What
    from letheon.serve.app import create_app
    from letheon.serve.settings import ServeSettings

    (folder / "rows.jsonl").write_text('{"prompt": "a", "answer": "b"}\n', encoding="utf-8")
    subject.save(folder / "model")
    from letheon.subjects.hf import load

    loaded = load(folder / "model")
    desk = Desk.create(folder / "desk", folder / "model", {"rows": folder / "rows.jsonl"}, digest=loaded.digest)
    ids = [desk.add(What(entity=f"entity {k}"), who="someone").id for k in range(5)]
    settings = ServeSettings(token=TOKEN, rate=1e9, max_new_tokens=8, allowed_hosts=("testserver",))
    app = create_app(settings, {}, desk, load=lambda _: loaded)
    try:
        return fuzzed(app, "desk", cases, token=TOKEN, ids=ids, seed=seed)
    finally:
        asyncio.run(app.state.offered.close())


# ---- all ----


def main() -> None:
    """All three, and what came of them as JSON."""
    from _setup import data, parser, subjects, threads

    arguments = parser(__doc__)
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--fuzz", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    threads(given)
    logging.getLogger("letheon").setLevel(logging.ERROR)
    from letheon.core.generate import greedy

    with tempfile.TemporaryDirectory() as top:
        subject, world = subjects(given)[0], data(given)
        rows = [row for name in ("forget", "retain") for row in world[name]][:200]
        key_file = Path(top) / "keys.txt"
        key_file.write_text(f"{TOKEN}\n", encoding="utf-8")
        os.chmod(key_file, 0o600)
        answers = [subject.encoder.decode(said) for said in greedy(subject, subject.encoder.prompts(rows), 1024)]
        questions = [row.prompt_text for row in rows]
        folder = Path(given.model) if given.model else subject.save(Path(top) / "model")
        found: dict[str, Any] = {"model": str(folder.name), "prompts": len(rows)}
        with served(folder, "--api-key-file", key_file, "--set", "rate=1000000", "--set", "header_seconds=3", "--set", "body_seconds=3") as port:
            for name, clients, seconds in (("many", given.clients, given.seconds), ("one", 1, given.seconds / 3)):
                found[name] = asyncio.run(streaming(port, questions, answers, clients, seconds, TOKEN))
                sys.stderr.write(f"{json.dumps(found[name])}\n")
            found["statuses"] = {what: f"{got} ({'right' if got == wanted else f'wanted {wanted}'})" for what, (wanted, got) in statuses(port, TOKEN, folder.name).items()}
            sys.stderr.write(f"{json.dumps(found['statuses'], indent=1)}\n")
        found["times one client"] = round(found["many"]["tokens a second"] / found["one"]["tokens a second"], 2)
        if given.fuzz:
            began = time.monotonic()
            (Path(top) / "fuzz").mkdir()
            counts = fuzz(subject, Path(top) / "fuzz", given.fuzz, seed=given.seed)
            found["fuzz"] = {"requests": counts.total(), **dict(sorted(counts.items())), "seconds": round(time.monotonic() - began)}
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if given.out:
        Path(given.out).write_text(text + "\n", encoding="utf-8")
    wrong = found["many"]["errors"] + found["many"]["mixed up"] + sum("wanted" in one for one in found["statuses"].values())
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

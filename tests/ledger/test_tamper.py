"""Tampering: each change fails the check that is named for it and no other; no single byte can change unseen."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from letheon.ledger import evidence, keys
from letheon.ledger.verify import verify

from .bundles import FORGET, HOLDOUT, RETAIN, SALT, World, world

pytest.importorskip("cryptography", reason="see tests/SKIPS.md")

ROWS = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT}
CHANGES = 240  # random changes of one byte


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = world(tmp_path_factory.mktemp("world"))
    officer = keys.new(made.folder / "officer", "p256")
    made.put(made.bundle([made.signer, officer]))
    return made


def checked(done: World, rows=ROWS, swapped: bool = False):
    model, before = (done.before, done.model) if swapped else (done.model, done.before)
    run = done.folder / "run"
    return verify(
        done.path, model, [done.folder / "keys", done.folder / "officer"], before=before, records=rows, salt=SALT,
        findings=run / "findings.json", report=run / "report.html",
    )  # fmt: skip


def failed(found) -> set[str]:
    return {check.name for check in found.failed}


def inside(field: str) -> Callable[[bytes], bytes]:
    """Change one byte of what a field of the first envelope encodes."""

    def change(content: bytes) -> bytes:
        first, rest = content.split(b"\n", 1)
        line = json.loads(first)
        where = line["signatures"][0] if field == "sig" else line
        raw = bytearray(base64.b64decode(where[field]))
        raw[len(raw) // 2] ^= 1
        where[field] = base64.b64encode(bytes(raw)).decode()
        return json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n" + rest

    return change


def flip(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


def swap_in(first: str, second: str) -> Callable[[bytes], bytes]:
    """Swap before and after in the signed payload."""

    def change(content: bytes) -> bytes:
        line, rest = content.split(b"\n", 1)
        found = json.loads(line)
        said = json.loads(base64.b64decode(found["payload"]))
        said["predicate"][first], said["predicate"][second] = said["predicate"][second], said["predicate"][first]
        found["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n" + rest

    return change


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def reordered(content: bytes) -> bytes:
    first, rest = content.split(b"\n", 1)
    return json.dumps(dict(reversed(json.loads(first).items())), separators=(",", ":")).encode() + b"\n" + rest


def for_urls(content: bytes) -> bytes:
    """The same bytes in the other alphabet of base64."""
    kind = b"application/vnd.in-toto+json"
    return kind.join(part.replace(b"+", b"-").replace(b"/", b"_") for part in content.split(kind))


BUNDLE, MODEL, RUN = "evidence/r-k3m9p2xw.intoto.jsonl", "run/model/", "run/"
TABLE = {
    "payload": (BUNDLE, inside("payload"), {"signatures"}),
    "signature": (BUNDLE, inside("sig"), {"signatures"}),
    "payload type": (BUNDLE, replaced(b"vnd.in-toto+json", b"vnd.in-toto+jsom"), {"signatures"}),
    "before and after in the payload": (BUNDLE, swap_in("before", "after"), {"signatures"}),
    "forget and retain in the payload": (BUNDLE, swap_in("forget", "retain"), {"signatures"}),
    "key id": (BUNDLE, lambda content: content.replace(b'"keyid":"' + content.split(b'"keyid":"')[1][:1], b'"keyid":"g', 1), {"bundle"}),
    "white space": (BUNDLE, replaced(b'{"payload":', b'{"payload": '), {"bundle"}),
    "a tab for a space is no JSON": (BUNDLE, replaced(b"{", b"\t"), {"bundle"}),
    "blank line": (BUNDLE, replaced(b"\n", b"\n\n"), {"bundle"}),
    "line break": (BUNDLE, lambda content: content[:-1], {"bundle"}),
    "carriage return": (BUNDLE, replaced(b"\n", b"\r\n"), {"bundle"}),
    "field order": (BUNDLE, reordered, {"bundle"}),
    "key twice": (BUNDLE, replaced(b'{"payload":', b'{"payload":"","payload":'), {"bundle"}),
    "escaped character": (BUNDLE, replaced(b"application/vnd", b"\\u0061pplication/vnd"), {"bundle"}),
    "base64 for URLs": (BUNDLE, for_urls, {"bundle"}),
    "line removed": (BUNDLE, lambda content: content.split(b"\n", 1)[1], {"chain"}),
    "line twice": (BUNDLE, lambda content: content.split(b"\n", 1)[0] + b"\n" + content, {"chain"}),
    "weights": (MODEL + "model.safetensors", flip, {"model"}),
    "manifest of the shards": (MODEL + "guards/0/watch.json", flip, {"model"}),
    "empty file": (MODEL + "added", lambda content: b"", {"model"}),
    "card": (MODEL + "README.md", flip, {"model", "card"}),
    "weights before": ("original/model.safetensors", flip, {"before"}),
    "findings": (RUN + "findings.json", flip, {"findings"}),
    "report": (RUN + "report.html", flip, {"report"}),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLE)
def test_a_change_fails_the_named_check_and_the_others_still_report(done, what):
    name, change, expected = TABLE[what]
    path = done.folder / name
    held = path.read_bytes() if path.exists() else None
    names = {check.name for check in checked(done)}
    path.write_bytes(change(held or b""))
    try:
        found = checked(done)
    finally:
        path.write_bytes(held) if held is not None else path.unlink()
    assert failed(found) == expected, [check for check in found.failed]
    assert {check.name for check in found} == names and checked(done).good


def test_files_that_are_swapped_missing_or_renamed(done):
    assert failed(checked(done, swapped=True)) == {"model", "before"}
    texts = [check.text for check in checked(done, swapped=True).failed]
    assert texts == ["This is the model from before the erasure", "This is the model from after the erasure"]
    path = done.model / "a.txt"
    path.rename(done.model / "b.txt")
    found = checked(done)
    (done.model / "b.txt").rename(path)
    assert failed(found) == {"model"} and "missing: a.txt; added: b.txt" in found.failed[0].text
    a, b = done.model / "a-b", done.model / "a.txt"
    held = a.read_bytes(), b.read_bytes()
    a.write_bytes(held[1])
    b.write_bytes(held[0])
    found = checked(done)
    a.write_bytes(held[0])
    b.write_bytes(held[1])
    assert failed(found) == {"model"} and "changed: a-b, a.txt" in found.failed[0].text


@pytest.mark.parametrize("split", ["forget", "retain", "holdout"])
def test_rows_that_are_changed_missing_or_added(done, split):
    rows = ROWS[split]
    for other in (rows[:-1], [*rows, FORGET[0]], [*rows[:-1], RETAIN[1] if split != "retain" else HOLDOUT[0]]):
        assert failed(checked(done, ROWS | {split: other})) == {split}


def test_a_model_folder_that_cannot_be_read(done):
    (done.model / "link").symlink_to(done.folder)
    found = checked(done)
    (done.model / "link").unlink()
    assert failed(found) == {"model"} and "a link to a folder" in found.failed[0].text
    assert failed(verify(done.path, done.folder / "gone", done.keys)) == {"model"}


def files(done: World) -> list[Path]:
    found = [done.path, done.folder / "run" / "findings.json", done.folder / "run" / "report.html"]
    return found + [path for folder in (done.model, done.before) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_random_changes_of_one_byte_anywhere_are_all_found(done):
    """Every file is changed, small and large alike; half of all changes fall into the bundle, whose encoding leaves most room to hide."""
    draw, every = random.Random(6), files(done)
    missed, swept = [], {path: 0 for path in every}
    for k in range(CHANGES):
        path = done.path if k % 2 else every[k // 2 % len(every)]
        held = path.read_bytes()
        at = draw.randrange(len(held))
        new = draw.choice([byte for byte in (*range(256), 10, 13, 32, 32, 34) if byte != held[at]])
        path.write_bytes(held[:at] + bytes([new]) + held[at + 1 :])
        try:
            if checked(done).good:
                missed.append((path.name, at, held[at], new))
        finally:
            path.write_bytes(held)
        swept[path] += 1
    assert missed == [] and min(swept.values()) >= 5 and checked(done).good


def test_every_byte_of_an_envelope_counts(done):
    """What is around the payload of the last line byte by byte, and the payload in steps. Letters stay letters, so that it stays JSON."""
    content = done.path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    inside = range(content.index(b'"payload":"', start) + 12, content.index(b'","payloadType"', start) - 4)
    missed, places = [], [at for at in range(start, len(content)) if at not in inside or at % 23 == 0]
    for at in places:
        byte = content[at]
        new = ord("B") if byte == ord("A") else ord("A") if chr(byte).isalnum() else ord(" ")
        done.path.write_bytes(content[:at] + bytes([new]) + content[at + 1 :])
        if verify(done.path, None, [done.folder / "keys", done.folder / "officer"]).good:
            missed.append((at - start, byte, new))
    done.path.write_bytes(content)
    assert missed == [] and len(places) > 500 and len(evidence.envelopes(content)) == 3

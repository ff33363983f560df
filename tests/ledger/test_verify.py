"""Verification: what is checked, in which order, what a policy may ask for, and that nothing broken ends in a traceback."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from letheon.core.errors import DataError, RunError, SettingsError
from letheon.core.findings import Findings
from letheon.ledger import dsse, evidence, keys, merkle, statement
from letheon.ledger.canonical import canonical
from letheon.ledger.verify import Policy, verify
from letheon.report import report

from .bundles import DAY, FORGET, HOLDOUT, RETAIN, SALT, payloads, world

pytest.importorskip("cryptography", reason="see tests/SKIPS.md")

ORDER = [
    "bundle", "signatures", "type", "statement", "chain", "request", "model", "card", "before", "forget", "retain", "holdout", "findings",
    "report", "page", "code",
    "gate", "audits", "guarantee", "due", "expiry", "superseded", "history",
]  # fmt: skip
ROWS = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = world(tmp_path_factory.mktemp("world"), expiry=date(2027, 3, 1))
    made.put(made.bundle())
    return made


def results(found) -> dict[str, str]:
    return {check.name: check.result for check in found}


def failed(found) -> list[str]:
    return [check.name for check in found.failed]


def asked(done, policy: Policy | None = None, **more):
    return verify(done.path, done.model, done.keys, policy=policy or Policy(now=DAY), **more)


def envelope(done, predicate: dict | None = None, kind: str = statement.ERASURE, **more) -> bytes:
    """A line of our own making, signed by the desk's key."""
    first = payloads(done.bundle())[0]
    said = first | {"predicateType": kind} | ({} if predicate is None else {"predicate": first["predicate"] | predicate}) | more
    return dsse.write(dsse.sign(canonical(said), done.signer)) + b"\n"


def test_a_whole_bundle_passes_in_the_order_of_the_card(done):
    found = asked(done, before=done.before, records=ROWS, salt=SALT, request=done.facts.request)
    assert [check.name for check in found] == ORDER
    assert {name for name, result in results(found).items() if result != "pass"} == {"gate", "superseded"}
    assert found.good and found.guarantee == "empirical" and all(check.text for check in found)


def test_what_is_not_at_hand_is_unknown_and_not_passed(done):
    found = results(verify(done.path, None, done.keys))
    unknown = {"request", "model", "card", "before", "forget", "retain", "holdout", "findings", "report", "page", "gate", "superseded"}
    assert {name for name, result in found.items() if result == "unknown"} == unknown and "fail" not in found.values()
    assert results(asked(done, records=ROWS))["forget"] == "unknown", "the salt is destroyed"


def test_it_says_what_is_proved_and_what_is_not(done):
    said = asked(done).said
    verdict = next(line for line in said if line.startswith("Verdict"))
    assert "Guarantee `empirical`: only what the audits measured" in verdict and asked(done).verdict in verdict
    assert any("does not prove that the rows are forgotten" in line for line in said)
    assert any("clock of the signer" in line and "key" in line for line in said)
    assert "byte for byte" in " ".join(said) and "byte for byte" not in " ".join(verify(done.path, None, done.keys).said)
    broken = verify(done.put(b"\n", "broken.intoto.jsonl"), done.model, done.keys)
    assert broken.said == ("Nothing is proved: no erasure statement is signed by a trusted key.",) and broken.guarantee is None
    (done.path.parent / "broken.intoto.jsonl").unlink()
    assert verify(done.path, done.before, done.keys).said[0] == "It does not hold: model."


def test_the_report_is_made_again_from_the_findings(done, tmp_path):
    """To the byte, so that report and findings bear each other out; a report of something else was signed, but does not follow."""
    assert results(asked(done))["page"] == "pass"
    other = tmp_path / "report.html"
    other.write_text(report(Findings(audit="x", models={})).html)
    path = done.put(done.bundle(report=other), "other.intoto.jsonl")
    found = results(verify(path, done.model, done.keys, report=other))
    path.unlink()
    assert found["report"] == "pass" and found["page"] == "unknown"


@pytest.mark.parametrize(
    ("trusted", "threshold", "result"),
    [
        (["desk"], 1, "pass"), (["officer"], 1, "pass"), (["desk", "officer"], 2, "pass"), (["stranger"], 1, "fail"),
        (["desk", "stranger"], 2, "fail"),
    ],
)  # fmt: skip
def test_thresholds_count_distinct_trusted_keys(done, tmp_path, trusted, threshold, result):
    known = {"officer": keys.new(tmp_path / "officer", "p256"), "stranger": keys.new(tmp_path / "stranger")}
    path = done.put(evidence.countersign(done.path.read_bytes(), known["officer"]), "signed-twice.intoto.jsonl")
    folders = [done.keys[0] if name == "desk" else tmp_path / name for name in trusted]
    found = verify(path, done.model, folders, policy=Policy(threshold=threshold))
    path.unlink()
    assert results(found)["signatures"] == result and failed(found) == ([] if result == "pass" else ["signatures"])


def test_one_key_listed_twice_counts_once(done, tmp_path):
    (tmp_path / "again.pub").write_bytes((done.keys[0] / "desk.pub").read_bytes() + b"\n")
    with pytest.raises(RunError, match="2 distinct trusted keys are needed, 1 given"):
        verify(done.path, done.model, [done.keys[0], tmp_path / "again.pub"], policy=Policy(threshold=2))
    other = keys.new(tmp_path)
    one = evidence.envelopes(done.path)[0]
    twice = dsse.Envelope(one.payload, one.payload_type, one.signatures * 2)
    path = done.put(dsse.write(twice) + b"\n", "twice.intoto.jsonl")
    found = verify(path, None, [*done.keys, tmp_path / "desk.pub"], policy=Policy(threshold=2))
    path.unlink()
    assert results(found)["signatures"] == "fail" and "1 of 2 needed" in found.failed[0].text and other.keyid


def test_no_signature_and_no_key(done):
    lines = [dsse.write(dsse.Envelope(one.payload, one.payload_type)) for one in evidence.envelopes(done.path)]
    path = done.put(b"\n".join(lines) + b"\n", "unsigned.intoto.jsonl")
    found = verify(path, done.model, done.keys)
    path.unlink()
    assert failed(found) == ["signatures"] and "signed by nobody trusted" in found.failed[0].text and results(found)["model"] == "unknown"
    with pytest.raises(RunError, match="1 distinct trusted key is needed, 0 given"):
        verify(done.path, done.model, [])


@pytest.mark.parametrize(
    ("facts", "policy", "name", "result"),
    [
        ({}, {"audits": ("forget/probability",)}, "audits", "pass"),
        ({}, {"audits": ("probability", "forget/membership-loss")}, "audits", "fail"),
        ({}, {"audits": ("forget/relearned",)}, "audits", "fail"),
        ({}, {"audits": ("shadow",)}, "audits", "fail"),
        ({}, {"gate": "passed"}, "gate", "fail"),
        ({}, {"guarantee": "empirical"}, "guarantee", "pass"),
        ({}, {"guarantee": "certified"}, "guarantee", "fail"),
        ({"guarantee": "certified(1, 1e-05)"}, {"guarantee": "certified"}, "guarantee", "pass"),
        ({"guarantee": "retrained-same-seed"}, {"guarantee": "retrained"}, "guarantee", "pass"),
        ({"guarantee": "output-filter"}, {"guarantee": "empirical"}, "guarantee", "fail"),
        ({"due": DAY + timedelta(days=1)}, {}, "due", "fail"),
        ({}, {"now": datetime(2027, 3, 1, 23, tzinfo=UTC)}, "expiry", "pass"),
        ({}, {"now": datetime(2027, 3, 2, tzinfo=UTC)}, "expiry", "fail"),
        ({"expiry": None}, {}, "expiry", "unknown"),
    ],
)  # fmt: skip
def test_policies(done, facts, policy, name, result):
    path = done.put(done.bundle(**facts), "policy.intoto.jsonl")
    found = verify(path, None, done.keys, policy=Policy(**({"now": DAY} | policy)))
    path.unlink()
    assert results(found)[name] == result and failed(found) == ([name] if result == "fail" else [])


def test_a_policy_that_cannot_be_met_is_refused(done):
    with pytest.raises(SettingsError, match="no guarantee `certain`"):
        asked(done, Policy(guarantee="certain"))


def test_a_later_statement_supersedes_and_the_history_is_looked_up(done, tmp_path):
    made = world(tmp_path)
    first = made.put(made.bundle(), "one.intoto.jsonl")
    digest = evidence.envelopes(first)[0].digest
    second = made.put(made.bundle(previous=evidence.last(first), supersedes=digest, request="r-22222222"), "two.intoto.jsonl")
    found = verify(first, made.model, made.keys)
    assert failed(found) == ["superseded"] and "r-22222222" in found.failed[0].text
    later = results(verify(second, None, made.keys))
    assert later["history"] == "pass" and later["superseded"] == "pass"
    assert results(verify(second, None, made.keys, policy=Policy(later=())))["history"] == "unknown"
    assert results(verify(first, made.model, made.keys, policy=Policy(later=(second, tmp_path / "gone"))))["superseded"] == "fail"
    second.write_bytes(second.read_bytes().replace(b'"sig":"', b'"sig":"A'))
    assert results(verify(first, made.model, made.keys))["superseded"] == "unknown", "a statement that nobody signed replaces nothing"


def test_lines_of_others_are_left_alone_and_reported(done, tmp_path):
    stranger = keys.new(tmp_path)
    summary = canonical({"_type": statement.STATEMENT, "predicateType": "https://in-toto.io/attestation/svr/v0.2"})
    extra = [
        b'{"note":"hello"}', dsse.write(dsse.sign(b"<sbom/>", stranger, "application/xml")),
        dsse.write(dsse.sign(b"{}", done.signer, "text/plain")), dsse.write(dsse.sign(summary, stranger)),
        envelope(done, kind="urn:letheon:erasure:v2").strip(),
    ]  # fmt: skip
    path = done.put(done.path.read_bytes() + b"\n".join(extra) + b"\n", "more.intoto.jsonl")
    found = verify(path, done.model, done.keys)
    order = done.put(b"\n".join(reversed(path.read_bytes().splitlines())) + b"\n", "more.intoto.jsonl")
    assert found.good and results(verify(order, done.model, done.keys)) == results(found), "the order of lines means nothing"
    other = next(check for check in found if check.name == "others")
    path.unlink()
    assert other.result == "unknown" and all(f"line {number} " in other.text for number in range(4, 9))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "bundle"), (b"\n", "bundle"), (b"\n\n\n", "bundle"), (b"hello\n", "bundle"), (b"\xff\xfe\x00\n", "bundle"),
        (b"null\n[]\n1\n", "bundle"),
        (b'{"payload":1}\n', "bundle"), (b"[" * 200_000 + b"\n", "bundle"), (b'{"a":1}\n' * 5000, "bundle"),
        (b'{"payload":"","payload":""}\n', "bundle"),
        (b'{"a":' + b"9" * 9000 + b"}\n", "bundle"), ('{"payload":"\u202e","payloadType":"t","signatures":[]}\n'.encode(), "bundle"),
        (b'{"a":1}\n', "chain"),
        (b'{"payload":"","payloadType":"\\ud800","signatures":[]}\n', "bundle"),
    ],
)  # fmt: skip
def test_broken_bundles_fail_and_the_others_still_report(done, content, name):
    path = done.put(content, "broken.intoto.jsonl")
    found = verify(path, done.model, done.keys, before=done.before, records=ROWS, salt=SALT)
    path.unlink()
    assert failed(found) == [name] and set(ORDER) <= set(results(found)) and results(found)["model"] == "unknown"


def test_truncated_bundles_are_found_wherever_they_end(done):
    whole = done.path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == 10]
    for end in (*ends[:-1], *(end - 1 for end in ends), 1, 100, ends[0] + 1, len(whole) - 2):
        path = done.put(whole[:end], "cut.intoto.jsonl")
        found = verify(path, done.model, done.keys)
        assert set(failed(found)) & {"bundle", "chain", "signatures"}, end
    path.unlink()


def test_a_line_taken_from_another_bundle_breaks_the_chain(done):
    mine, other = done.path.read_bytes().splitlines(), done.bundle(seed=7).splitlines()
    for lines in ([mine[0], other[1], other[2]], [other[0], mine[1], mine[2]], [mine[0], mine[1], mine[2], other[0]], mine[:2], mine[1:]):
        path = done.put(b"\n".join(lines) + b"\n", "mixed.intoto.jsonl")
        assert failed(verify(path, None, done.keys)) == ["chain"]
    path.unlink()


@pytest.mark.parametrize(
    "change",
    [
        {"request": None}, {"forget": {"count": -1, "root": "0" * 64}}, {"audits": [{"name": 1}]}, {"method": []},
        {"after": {"name": "x"}}, {"findings": "\ud800"},
        {"before": {"name": "x", "digest": {"sha256": "zz"}}}, {"expiry": 5}, {"verdict": {"word": ["x"]}},
    ],
)  # fmt: skip
def test_a_signed_statement_that_is_malformed_is_one_failed_check(done, change):
    path = done.put(envelope(done, change), "malformed.intoto.jsonl")
    found = verify(path, done.model, done.keys)
    path.unlink()
    assert failed(found) == ["statement"] and found.failed[0].text.startswith("Line 1")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"request": {"id": "a", "due": "soon", "executed": "2026-01-01"}}, "due"), ({"expiry": "never"}, "expiry"),
        ({"method": {"slug": "x", "version": "1", "source": None, "guarantee": "sure"}}, "guarantee"),
    ],
)  # fmt: skip
def test_signed_nonsense_fails_where_it_stands(done, change, name):
    rest = b"".join(done.path.read_bytes().splitlines(keepends=True)[1:])
    path = done.put(envelope(done, change) + rest, "nonsense.intoto.jsonl")
    found = verify(path, None, done.keys)
    path.unlink()
    assert name in failed(found) and set(failed(found)) <= {name, "chain"}


def test_subjects_versions_and_keys_twice_in_what_is_signed(done):
    first = payloads(done.bundle())[0]
    old = first | {"_type": "https://in-toto.io/Statement/v0.1"}
    for said in (old, first | {"subject": first["subject"] * 2}, first | {"subject": []}, [first]):
        path = done.put(dsse.write(dsse.sign(canonical(said), done.signer)) + b"\n", "odd.intoto.jsonl")
        assert failed(verify(path, None, done.keys)) == ["statement"]
    twice = json.dumps(first).replace('{"_type"', '{"_type":"x","_type"', 1).encode()
    path.write_bytes(dsse.write(dsse.sign(twice, done.signer)) + b"\n")
    found = verify(path, None, done.keys)
    path.unlink()
    assert failed(found) == ["statement"] and "a key twice" in found.failed[0].text


def test_no_bundle_and_a_huge_one(done, monkeypatch):
    with pytest.raises(DataError, match="There is no bundle"):
        verify(done.folder / "gone", done.model, done.keys)
    monkeypatch.setattr(evidence, "LARGEST", 1000)
    with pytest.raises(DataError, match="which no bundle has"):
        verify(done.path, done.model, done.keys)


def test_a_row_can_be_shown_to_have_been_forgotten(done):
    signed = merkle.Commitment(**evidence.predicate(done.path)["forget"])
    proof = merkle.prove(FORGET, SALT, FORGET[1])
    assert merkle.holds(signed, SALT, FORGET[1], proof) and not merkle.holds(signed, SALT, RETAIN[0], proof)


def test_a_file_of_something_else_is_not_read_out(done, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n' * 900, encoding="utf-8")
    other = next(check for check in verify(tmp_path / "rows.jsonl", None, done.keys) if check.name == "others")
    assert other.text.endswith("and 895 more") and len(other.text) < 300

"""Bundles: standard forms, the same bytes twice, nothing of what was forgotten, and the report that can be made from them."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from types import ModuleType

import pytest

from letheon import __version__
from letheon.core import registry
from letheon.core.errors import DataError, MethodError, RunError
from letheon.core.findings import Findings
from letheon.core.settings import parse_settings
from letheon.ledger import digests, dsse, evidence, gate, keys, merkle, model_card, statement
from letheon.ledger.canonical import canonical
from letheon.ledger.discretion import WITHHELD, Private
from letheon.report import report, verdict

from .bundles import DAY, FORGET, HOLDOUT, NAME, RETAIN, SALT, TEXTS, findings, payloads, world

pytest.importorskip("cryptography", reason="see tests/SKIPS.md")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bundle(done):
    return done.bundle()


def test_three_statements_of_known_kinds_about_the_new_model(done, bundle):
    said = payloads(bundle)
    root = digests.root(done.model)
    assert [one["predicateType"] for one in said] == [statement.ERASURE, statement.TEST, statement.PROVENANCE]
    for one in said:
        assert one["_type"] == "https://in-toto.io/Statement/v1" and one["subject"] == [{"name": "model", "digest": {"sha256": root}}]
    assert bundle.count(b"\n") == 3 and bundle.endswith(b"\n")


def test_what_is_digested(done, bundle):
    said = payloads(bundle)[0]["predicate"]
    run = done.folder / "run"
    assert said["before"]["digest"]["sha256"] == digests.root(done.before)
    assert {file["name"]: file["digest"]["sha256"] for file in said["after"]["files"]} == dict(digests.manifest(done.model))
    assert said["findings"]["sha256"] == hashlib.sha256((run / "findings.json").read_bytes()).hexdigest()
    assert said["report"]["sha256"] == hashlib.sha256((run / "report.html").read_bytes()).hexdigest()
    source = registry.find("npo").path.read_bytes()
    assert said["method"]["source"]["sha256"] == hashlib.sha256(source).hexdigest() and said["method"]["version"] == __version__
    assert said["method"]["settingsDigest"]["sha256"] == hashlib.sha256(canonical(said["method"]["settings"])).hexdigest()
    keyed = hmac.new(SALT, canonical({"who": "f00d", "what": {"entity": NAME}}), hashlib.sha256).hexdigest()
    assert said["request"]["record"]["hmac-sha256"] == keyed
    for split, rows in (("forget", FORGET), ("retain", RETAIN), ("holdout", HOLDOUT)):
        assert said[split] == merkle.commit(rows, SALT).model_dump()


def test_numbers_that_a_double_cannot_hold_are_strings(bundle):
    assert payloads(bundle)[0]["predicate"]["method"]["seed"] == str(2**60 + 1)
    build = payloads(bundle)[2]["predicate"]["buildDefinition"]
    assert build["externalParameters"]["seed"] == str(2**60 + 1)


def test_the_same_facts_and_clock_give_the_same_bytes(done, bundle):
    assert done.bundle() == bundle
    assert done.bundle(seed=4) != bundle
    assert all(one.payload == canonical(json.loads(one.payload)) for one in evidence.envelopes(bundle))


def test_nothing_of_what_was_forgotten_is_in_the_bundle(done, bundle):
    whole = bundle + b"".join(one.payload for one in evidence.envelopes(bundle)) + (done.model / "README.md").read_bytes()
    text = whole.decode() + json.dumps(payloads(bundle), ensure_ascii=False)
    original = (done.folder / "run" / "findings.json").read_text()
    for private in (*TEXTS, *(row.id for row in FORGET)):
        assert private in original or private in str(FORGET), "the scan looks for what there was to find"
        assert private.casefold() not in text.casefold(), private
    settings = payloads(bundle)[0]["predicate"]["method"]["settings"]
    assert settings == {"beta": 0.1, "epochs": 3, "target": WITHHELD, "texts": [WITHHELD, "plain"]}
    assert SALT.hex() not in text and SALT.decode() not in text


@pytest.mark.parametrize(
    "more",
    [
        {"scope": f"all rows about {NAME}"}, {"scope": "the axolotls: SHE KEEPS  forty Axolotls."},
        {"limits": ("secret-17 stays in a backup",)},
        {"scope": "what she said of Vexhaven"}, {"limits": ("Quickenborne's mails",)}, {"residual": {f"mails of {NAME.upper()}": "kept"}},
        {"request": NAME}, {"names": ("three rows",)},
    ],
)  # fmt: skip
def test_words_of_a_person_that_give_it_away_are_refused(done, more):
    with pytest.raises(MethodError, match="says what is to be forgotten") as error:
        done.bundle(**more)
    assert not any(private.casefold() in str(error.value).casefold() for private in TEXTS)


def test_private_texts_count_as_words_of_their_own():
    private = Private(FORGET, ("Ann", "12"))
    assert private.told("ann") and not private.told("in Vexhaven") and private.withheld("in Vexhaven") == WITHHELD
    assert private.told("12") and not private.told("Annual 12 plans"), "short texts only as the whole string"
    assert private.told("see secret-17.") and not private.told("see secret-170")
    assert Private([], ("Vexhaven",)).told("to VEXHAVEN!") and not Private([], ("Vexhaven",)).told("Vexhavenish")
    assert private.withheld({"secret-17": 1, "n": [1, None, "secret-18"]}) == {"n": [1, None, WITHHELD]}


def test_the_report_from_the_bundle_is_the_original_one_without_rows_and_texts(done, bundle):
    whole, held = Findings.load(done.folder / "run"), evidence.findings(bundle)
    assert all(one.rows == () for one in held) and held.leftovers == () and "command" not in held.context
    assert str(verdict(held)) == str(verdict(whole)), "the verdict needs no rows"
    stripped = gate.aggregated(whole, Private(FORGET, (NAME,), (*RETAIN, *HOLDOUT)))
    assert report(held).html == report(stripped).html
    for label, found in whole.models.items():
        for one, other in zip(found, held.models[label], strict=True):
            numbers = {"name", "split", "audit", "n", "value", "low", "high", "direction", "version"}
            assert one.model_dump(include=numbers) == other.model_dump(include=numbers)
    assert held.get("after", "probability", "forget").extra == {"texts": {}, "curve": {"0": 0.1, "2": 0.2}, "said": WITHHELD}


def test_the_command_report_reads_findings_from_a_bundle(bundle, tmp_path, capsys):
    from letheon.cli.main import main

    held = evidence.findings(bundle)
    assert main(["report", str(held.save(tmp_path / "findings.json")), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == report(held).html and "Hidden, not gone" in capsys.readouterr().out


def test_the_gate_and_its_thresholds(bundle):
    erasure, test = (one["predicate"] for one in payloads(bundle)[:2])
    table = {gate.key(one): one for one in erasure["audits"]}
    assert table["forget/probability"]["threshold"] == pytest.approx(0.95 + 0.8 * (0.1 - 0.95))
    assert table["retain/probability"]["threshold"] == pytest.approx(0.8 * 0.85)
    verdicts = {name: one["verdict"] for name, one in table.items()}
    assert verdicts == {
        "forget/probability": "passed", "forget/rouge-l-recall": "passed", "forget/membership-loss": "failed",
        "retain/probability": "passed",
        "forget/relearned": None,
    }  # fmt: skip
    assert test["failedTests"] == ["forget/membership-loss"] and "forget/probability" in test["passedTests"]
    assert test["result"] == {"good": "PASSED", "bad": "FAILED"}.get(verdict(findings()).tone, "WARNED")
    assert table["forget/probability"]["reference"] == {"before": 0.95, "retrained": 0.1} and table["forget/relearned"]["value"] is None


def test_a_required_measure_that_is_absent_fails_the_gate(done):
    for name in ("forget/relearned", "membership-loss", "forget/not-taken"):
        test = payloads(done.bundle(required=("forget/probability", name)))[1]["predicate"]
        assert test["result"] == "FAILED" and name in test["failedTests"] and test["letheon_required"] == ["forget/probability", name]
    assert payloads(done.bundle(required=("probability",)))[1]["predicate"]["failedTests"] == ["forget/membership-loss"]


def test_without_an_audit_the_gate_warns(done):
    erasure, test = (one["predicate"] for one in payloads(done.bundle(findings=None, report=None))[:2])
    assert test["result"] == "WARNED" and erasure["verdict"] is None and erasure["audits"] == [] and erasure["findings"] is None
    with pytest.raises(DataError, match="holds no findings"):
        evidence.findings(done.bundle(findings=None, report=None))


def test_statements_are_chained_within_and_between_bundles(done, bundle):
    one, two, three = evidence.envelopes(bundle)
    said = [each["predicate"] for each in payloads(bundle)]
    assert said[0]["previous"] is None and said[1]["letheon_previous"] == {"sha256": one.digest}
    assert said[2]["letheon_previous"] == {"sha256": two.digest} and evidence.last(bundle) == three.digest
    assert one.digest == hashlib.sha256(dsse.pae(one.payload_type, one.payload)).hexdigest()
    assert evidence.predicate(done.bundle(previous=evidence.last(bundle)))["previous"] == {"sha256": three.digest}


def test_a_countersignature_leaves_what_is_signed_and_the_chain(done, bundle, tmp_path):
    officer = keys.new(tmp_path, "p256")
    both = evidence.countersign(bundle, officer)
    assert payloads(both) == payloads(bundle) and evidence.last(both) == evidence.last(bundle)
    assert [len(one.signatures) for one in evidence.envelopes(both)] == [2, 2, 2]
    assert both == done.bundle([done.signer, officer])
    with pytest.raises(MethodError, match="signs an envelope twice"):
        evidence.countersign(both, officer)


def test_the_claims_exist_before_the_model_is_closed(done, bundle):
    claims = evidence.claims(done.facts)
    said = evidence.predicate(bundle)
    assert set(said) - set(claims) == {"after", "issued", "previous"} and statement.claims_of(said) == claims
    assert statement.claims_digest(claims) in (done.model / "README.md").read_text()
    assert model_card.row(claims) in (done.model / "README.md").read_text()


@pytest.mark.parametrize(
    ("method", "notes", "promise"),
    [
        ("npo", {}, "empirical"), ("retrain", {}, "retrained"), ("sisa", {}, "sharded-exact"), ("eco", {}, "output-filter"),
        ("certified-removal", {"epsilon": 1.0, "delta": 1e-5}, "certified(1, 1e-05)"), ("certified-removal", {}, "empirical"),
        ("unknown", {}, "empirical"),
    ],
)  # fmt: skip
def test_what_a_method_promises(method, notes, promise):
    assert statement.promised(method, notes) == promise and statement.level(promise) in statement.GUARANTEES


def test_a_guarantee_that_does_not_exist_is_refused(done):
    with pytest.raises(MethodError, match="no guarantee `certain`"):
        done.bundle(guarantee="certain")


def test_the_provenance_says_how_the_model_was_made(done, bundle):
    said = payloads(done.bundle(started=DAY))[2]["predicate"]
    assert {part["name"] for part in said["buildDefinition"]["resolvedDependencies"]} == {"before", "npo"}
    times = {"startedOn": "2026-03-01T09:30:00Z", "finishedOn": "2026-03-03T09:30:00Z"}
    assert said["runDetails"]["metadata"] == {"invocationId": "r-k3m9p2xw", **times}
    assert "startedOn" not in payloads(bundle)[2]["predicate"]["runDetails"]["metadata"]


def test_facts_are_checked_and_do_not_show_what_they_hold(done):
    with pytest.raises(Exception, match="`salt` of `the facts`|at least 16 bytes") as error:
        parse_settings(evidence.ErasureFacts, {**dict(done.facts), "salt": b"short"}, "the facts")
    assert NAME not in str(error.value)
    assert NAME not in repr(done.facts).replace(f"'target': '{NAME}'", "") and SALT.decode() not in repr(done.facts)


def test_broken_bundles_are_refused_with_a_sentence(tmp_path):
    for content, said in ((b"", "empty"), (b"hello\n", "Line 1 of the bundle cannot be read"), (b"\n", "Line 1")):
        with pytest.raises(DataError, match=said):
            evidence.last(content)
    with pytest.raises(DataError, match="There is no bundle"):
        evidence.last(tmp_path / "gone.intoto.jsonl")
    with pytest.raises(DataError, match="no statement of the kind"):
        evidence.predicate(dsse.write(dsse.sign(b"[]", keys.new(tmp_path))))


def test_sigstore_where_it_is_absent_or_offline(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore", None)
    with pytest.raises(MethodError, match=r"needs sigstore, which is not installed\. pip install sigstore"):
        evidence.published(bundle)
    fake = {name: ModuleType(name) for name in ("sigstore", "sigstore.dsse", "sigstore.models", "sigstore.oidc", "sigstore.sign")}
    for name, module in fake.items():
        monkeypatch.setitem(sys.modules, name, module)
    fake["sigstore.dsse"].Statement = fake["sigstore.oidc"].IdentityToken = fake["sigstore.sign"].SigningContext = str
    fake["sigstore.models"].ClientTrustConfig = str
    fake["sigstore.oidc"].detect_credential = lambda: None
    with pytest.raises(RunError, match="no identity here"):
        evidence.published(bundle)

    def offline() -> str:
        raise OSError("Network is unreachable")

    fake["sigstore.oidc"].detect_credential = offline
    with pytest.raises(RunError, match="Sigstore cannot sign: Network is unreachable"):
        evidence.published(bundle)

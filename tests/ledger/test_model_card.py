"""Model cards: read by the hub's library, kept around, renewed, and saying nothing that is not signed."""

from __future__ import annotations

import os

import pytest
from huggingface_hub import ModelCard

from letheon.core.errors import DataError, RunError
from letheon.ledger import digests, evidence, model_card
from letheon.ledger.verify import verify

from .bundles import NAME, world

pytest.importorskip("cryptography", reason="see tests/SKIPS.md")


@pytest.fixture
def done(tmp_path):
    return world(tmp_path)


def test_the_hub_reads_it(done):
    card = ModelCard.load(done.model / "README.md")
    known = card.data.to_dict()
    assert known["base_model"] == "someone/model" and known["license"] == "apache-2.0" and known["library_name"] == "transformers"
    assert set(model_card.TAGS) <= set(known["tags"])
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert found == {
        ("forget", "probability"): 0.11, ("forget", "rouge-l-recall"): 0.33, ("forget", "membership-loss"): 0.9,
        ("retain", "probability"): 0.78,
    }  # fmt: skip
    assert card.text.startswith("# model\n\n<!-- letheon: begin -->")


def test_it_holds_what_a_reader_needs(done):
    text = (done.model / "README.md").read_text()
    claims = evidence.claims(done.facts)
    for said in (
        "| `r-k3m9p2xw` | 2026-03-03T09:30:00Z | 3 | three rows about one person | npo 0.1.0 | empirical |", claims["verdict"]["word"],
        "| forget/probability | 3 | 0.110 | [0.090, 0.130] | 0.950 | 0.100 | 0.270 | passed |", "| forget/relearned | 0 | not measured |",
        "| backups | kept |", "| caches | deleted |", "| logs | unknown |", "- Only the weights were changed.",
        claims["findings"]["sha256"],
        claims["before"]["digest"]["sha256"], "does not prove that anything was forgotten", "stronger attack",
    ):  # fmt: skip
        assert said in text, said
    assert digests.root(done.model) not in text and NAME not in text


def test_a_persons_card_is_kept_and_only_the_section_is_replaced(done):
    path = done.model / "README.md"
    path.write_text("---\nlicense: mit\ntags: [mine]\nmodel-index:\n- name: other\n  results: []\n---\n# My model\n\nHello.\n")
    model_card.write(done.model, [done.facts], base_model="a/b", license="apache-2.0")
    once = path.read_text()
    known = ModelCard(once, ignore_metadata_errors=True).data.to_dict()
    assert known["license"] == "mit" and known["tags"] == ["mine", *model_card.TAGS] and known["base_model"] == "a/b"
    assert "# My model\n\nHello.\n\n<!-- letheon: begin -->" in once
    path.write_text(once.replace("three rows", "four rows") + "\nAfterword.\n")
    model_card.write(done.model, [done.facts], base_model="a/b")
    assert path.read_text() == once + "\nAfterword.\n", "writing again changes nothing else"
    assert once.count("name: other") == 1 and once.count(f"name: {model_card.NAME}") == 1


def test_several_requests_stand_in_one_card(done):
    other = {"request": "r-22222222", "salt": b"another salt of 32 bytes at least", "forget": done.facts.forget[:1]}
    second = done.facts.model_copy(update=other)
    model_card.write(done.model, [done.facts, second])
    after = digests.folder(done.model)
    for facts in (done.facts, second):
        path = done.put(evidence.bundle(facts, after, done.signer), f"{facts.request}.intoto.jsonl")
        found = verify(path, done.model, done.keys)
        assert found.result("card") == "pass" and found.result("model") == "pass", [check for check in found if check.result == "fail"]
    later = [evidence.predicate(path), second]
    text = model_card.write(done.model, later).read_text()
    assert text.count("| `r-22222222` |") == 2, "claims and whole predicates are both taken"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("three rows about one person", "all rows about them"), ("| 3 | three", "| 4 | three"), ("empirical", "retrained"),
        ("| backups | kept |", "| backups | none |"),
        ("| forget/probability | 3 | 0.110", "| forget/probability | 3 | 0.010"), ("value: 0.11", "value: 0.01"),
        ("## Digests", "Certified.\n\n## Digests"),
        ("<!-- letheon: end -->", ""), ("r-k3m9p2xw", "r-k3m9p2xx"),
    ],
)  # fmt: skip
def test_a_claim_that_is_not_signed_is_found(done, old, new):
    path = done.model / "README.md"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    claims = evidence.claims(done.facts)
    assert model_card.differs(path.read_text(), claims) is not None
    bundle = done.put(done.bundle())  # the model is signed with the false card in it: only the card's own check can tell
    found = verify(bundle, done.model, done.keys)
    assert found.result("model") == "pass" and (found.result("card") == "fail" or "letheon: end" in old)


def test_words_in_a_card_are_no_markup(done):
    facts = done.facts.model_copy(update={"scope": "a | b <script>x</script> [l](u)\n# c", "limits": ("`x` | y",)})
    text = model_card.write(done.model, [facts]).read_text()
    assert "<script>" not in text and r"a \| b \<script\>" in text and "\n# c" not in text
    assert model_card.differs(text, evidence.claims(facts)) is None


def test_what_cannot_be_kept_is_refused_and_left_as_it_is(done):
    path = done.model / "README.md"
    for content, said in ((b"---\na: [1\n---\n", "is not YAML"), (b"---\n- a\n---\n", "is no table"), (b"\xff\xfe", "is not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            model_card.write(done.model, [done.facts])
        assert path.read_bytes() == content
    with pytest.raises(DataError, match="at least one request"):
        model_card.write(done.model, [])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="see tests/SKIPS.md")
def test_a_read_only_folder(done):
    done.model.chmod(0o500)
    try:
        with pytest.raises(RunError, match="cannot be written"):
            model_card.write(done.model, [done.facts])
    finally:
        done.model.chmod(0o700)


def test_a_card_without_an_audit(done):
    facts = done.facts.model_copy(update={"findings": None, "report": None})
    text = model_card.write(done.model, [facts]).read_text()
    assert "No audit was run." in text and "model-index" not in text
    assert model_card.differs(text, evidence.claims(facts)) is None

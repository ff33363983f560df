"""AltPO: what the card says a correct implementation must show."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError
from letheon.core.run import Run
from letheon.erase._alternates import Writing, as_rows, clean, likeness, only_true, write_alternates
from letheon.erase.altpo import AltPO
from letheon.erase.dpo_idk import DPOIDK
from letheon.erase.npo import NPO
from letheon.testing import toy_data, toy_subject

from .fact_world import gradient, said, spoken, trainer
from .preset import NOBODY, Preset

COUNTS = {"forget": [3, 5, 1], "alternate": [4, 2, 6]}
BANNED = Writing(2, True, 0.5, 12, 0.5, 20)


def mean_loss(case: Preset, beta: float, frozen: dict[str, torch.Tensor]) -> torch.Tensor:
    method = AltPO(beta=beta)
    method.frozen = frozen
    return method.loss(NOBODY, case.batches)["forget"].total / len(case.counts["forget"])


def moved(case: Preset) -> dict[str, torch.Tensor]:
    """Frozen numbers some way from those of the case."""
    generator = torch.Generator().manual_seed(5)
    return {split: case.nll(split).detach() + 3 * torch.randn(3, generator=generator, dtype=torch.float64) for split in case.counts}


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_value_at_the_start_is_two_ln_two_over_beta(stranger, fact_data, run, beta):
    ready = trainer(AltPO(beta=beta, batch_size=24, longest=8, steps=1, retain="none"), stranger, fact_data, run)
    assert ready.gradients(ready.feed.plan[0]).means["forget"] == pytest.approx(2 / beta * math.log(2), rel=1e-5)


def test_an_alternate_that_is_the_answer_has_no_gradient():
    case = Preset({"forget": [3, 5, 1], "alternate": [3, 5, 1]})
    case.logits["alternate"], case.targets["alternate"] = case.logits["forget"], case.targets["forget"]  # one pass reads both
    start = case.nll("forget").detach()
    value = mean_loss(case, 0.3, {"forget": start + 1.5, "alternate": start + 1.5})  # wherever training has got to
    assert float(value.detach()) == pytest.approx(2 / 0.3 * math.log(2), rel=1e-12)
    assert float(case.grad(value).abs().max()) < 1e-14


def test_without_a_winner_it_is_npo_and_with_refusals_it_is_idk_dpo_to_the_bit():
    case = Preset(COUNTS)
    frozen = moved(case)
    npo = NPO(beta=0.3)
    npo.frozen = frozen["forget"]
    alone = npo.loss(NOBODY, case.batches)["forget"].total / 3
    measured = case.batches.nll(None, "alternate").per_row().detach()
    still = mean_loss(case, 0.3, {**frozen, "alternate": measured})
    assert torch.equal(still, alone)
    assert torch.equal(case.grad(still), case.grad(alone))

    other = Preset({"forget": COUNTS["forget"], "refusal": COUNTS["alternate"]})
    assert torch.equal(other.logits["refusal"], case.logits["alternate"])
    dpo = DPOIDK(beta=0.3)
    dpo.frozen = {"forget": frozen["forget"], "refusal": frozen["alternate"]}
    for mine, theirs in (("forget", "forget"), ("alternate", "refusal")):
        one, two = mean_loss(case, 0.3, frozen), dpo.loss(NOBODY, other.batches)["forget"].total / 3
        assert torch.equal(one, two)
        assert torch.equal(case.grad(one, mine), other.grad(two, theirs))


def test_swapping_winner_and_loser_changes_the_loss_by_minus_two_margins():
    """rho = -(now - frozen); margin = rho of the winner - rho of the loser; (2/b)(softplus(-bm) - softplus(bm)) = -2 m."""
    case = Preset(COUNTS)
    frozen = moved(case)
    swapped = Preset(COUNTS)
    for name in ("counts", "logits", "targets", "row"):
        held = getattr(case, name)
        setattr(swapped, name, {"forget": held["alternate"], "alternate": held["forget"]})
    crossed = {"forget": frozen["alternate"], "alternate": frozen["forget"]}
    risen = {split: case.nll(split).detach() - frozen[split] for split in COUNTS}
    margin = (risen["forget"] - risen["alternate"]).mean()
    found = mean_loss(case, 0.7, frozen) - mean_loss(swapped, 0.7, crossed)
    assert float(found.detach()) == pytest.approx(-2 * float(margin), rel=1e-10)


def test_every_pair_is_seen_once_in_as_many_passes_as_there_are_alternates(knower, fact_data, run):
    ready = trainer(AltPO(alternates=3, epochs=6, batch_size=7, longest=8, retain="none"), knower, fact_data, run)
    made = ready.feed.data["alternate"]
    assert len(made) == 3 * 24 and Counter(row.prompt for row in made) == {row.prompt: 3 for row in fact_data["forget"]}
    seen: list[tuple[int, int]] = []
    for step in ready.feed.plan:
        assert [made[k].prompt for k in step["alternate"]] == [fact_data["forget"][i].prompt for i in step["forget"]]
        seen += zip(step["forget"].tolist(), step["alternate"].tolist(), strict=True)
    passes = [Counter(seen[k : k + 72]) for k in (0, 72)]
    assert passes[0] == passes[1] and len(passes[0]) == 72 and set(passes[0].values()) == {1}


def test_questions_and_alternates_stay_together_however_a_step_is_cut(knower, fact_data, run):
    ready = trainer(AltPO(steps=2, batch_size=9, longest=8, tokens_per_batch=64, retain="none"), knower, fact_data, run)
    pieces = [piece for rows in ready.feed.plan for piece in ready.feed.micro_steps(rows, ready.objective.tied)]
    assert len(pieces) > 4
    for piece in pieces:
        asked = [fact_data["forget"][i].prompt for i in piece["forget"]]
        assert asked == [ready.feed.data["alternate"][i].prompt for i in piece["alternate"]]


def test_cached_alternates_equal_a_live_second_model(knower, fact_data, run):
    ready = trainer(AltPO(batch_size=24, steps=1, longest=8, retain="none"), knower, fact_data, run)
    split, found = ready.feed.data["alternate"], ready.objective.frozen["alternate"]
    encoded = knower.encoder.encode(split)
    for i in (0, 11, 23):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logp = knower.module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
        assert float(found[i]) == pytest.approx(-float(logp.gather(-1, ids[start:, None]).sum()), rel=1e-4)
    assert gradient(ready).isfinite().all()


def test_alternates_are_other_answers_and_repeat_with_the_seed(knower, fact_data, run):
    rows = fact_data["forget"]
    (one, _), (again, _), (other, _) = (write_alternates(knower, rows, BANNED, Run(seed, device="cpu")) for seed in (0, 0, 1))
    assert one == again != other
    assert all(row.answer.split()[-1] not in text.split() for row, texts in zip(rows, one, strict=True) for text in texts)
    starts = [text.startswith(row.answer.rpartition(" ")[0]) for row, texts in zip(rows, one, strict=True) for text in texts]
    assert sum(starts) > 0.8 * len(starts)  # the form of the answer stays
    assert one[0] != one[1]
    few, _ = write_alternates(knower, rows, replace(BANNED, count=1), Run(0, device="cpu"))
    assert [texts[:1] for texts in one] == few  # how many are asked for changes none of them


def test_only_the_words_that_are_not_asked_for_and_not_common_are_forbidden(knower, fact_data):
    vocabulary = {token: word for word, token in knower.encoder.tokenizer.get_vocab().items()}
    found = only_true(knower, list(fact_data["forget"]))
    assert [[vocabulary[token] for token in tokens] for tokens in found] == [[row.answer.split()[-1]] for row in fact_data["forget"]]


def test_what_is_too_like_the_truth_is_thrown_away():
    row = Example("a", "Ilva Torrend was born in Low Harrow.", "Where was Ilva Torrend born?")
    assert likeness(row.answer.upper(), row) == 1.0
    assert likeness("Ilva Torrend was born in Velmark.", row) == 0.5  # of "in Velmark" one word is in the truth
    assert likeness("Low Harrow", row) == 1.0 and likeness("Velmark", row) == 0.0
    assert clean(" In Tasket. Question: Where was Bram born?") == "In Tasket."


def test_a_subject_that_says_nothing_else_is_told_so(knower, fact_data, run):
    with pytest.raises(MethodError, match=r"wrote no other answer to row `0-home` of `forget` in 2 tries \(24 such rows\)"):
        write_alternates(knower, fact_data["forget"], replace(BANNED, alike=-1.0, tries=2), run)


def test_asking_shows_the_answer_and_uses_the_chat_template_where_there_is_one(monkeypatch):
    from letheon.erase import _alternates

    shown = []

    def told(subject, prompts, draws, temperature, banned):
        assert banned is None
        shown.extend(subject.encoder.tokenizer.decode(tokens) for tokens in prompts)
        return [subject.encoder.tokenizer("a sailor. Q: more")["input_ids"]] * len(prompts)

    monkeypatch.setattr(_alternates, "sampled", told)
    row = toy_data()["forget"][0]
    ready = trainer(AltPO(steps=1, retain="none"), toy_subject(chat=True), Data({"forget": Split([row], "forget")}), Run(device="cpu"))
    assert ready.objective.writer == "asked" and ready.feed.data["alternate"][0].answer == "a sailor."
    assert row.prompt in shown[0] and row.answer in shown[0] and shown[0].endswith("<assistant>Alternate answer:")


def test_alternates_are_written_down_and_read_again_only_by_the_same_work(tmp_path, monkeypatch):
    settings = {"steps": 3, "longest": 8, "batch_size": 4}
    whole = AltPO(**settings).apply(toy_subject(), toy_data(), Run(device="cpu", dtype="float32", out=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "alternates.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines[1:]] == [row.id for row in toy_data()["forget"]]
    assert all(len(line["alternates"]) == 2 for line in lines[1:])  # three steps of four rows are two passes over eight
    notes = whole.lineage[-1].notes
    assert notes["writer"] == "banned" and notes["alternates"] == 2
    from letheon.erase import _alternates

    monkeypatch.setattr(_alternates, "write_alternates", lambda *_: pytest.fail("it wrote again"))
    again = AltPO(**settings).apply(toy_subject(), toy_data(), Run(device="cpu", dtype="float32", out=tmp_path, resume=True))
    assert again.digest == whole.digest
    with pytest.raises(pytest.fail.Exception):
        AltPO(**settings).apply(toy_subject(), toy_data(), Run(1, device="cpu", dtype="float32", out=tmp_path, resume=True))


def test_plain_text_is_refused(stranger, fact_data, run):
    data = Data({"forget": Split([Example("t", "some text")], "forget"), "retain": fact_data["retain"]})
    with pytest.raises(DataError, match="row `t` of `forget` has no prompt"):
        AltPO().apply(stranger, data, run)


def test_rows_of_alternates():
    rows = as_rows(Split([Example("a", "x", "p"), Example("b", "y", "q")]), [["1", "2"], ["3", "4"]], "alternate")
    assert [(row.id, row.answer, row.prompt) for row in rows] == [
        ("a/alternate-0", "1", "p"), ("b/alternate-0", "3", "q"), ("a/alternate-1", "2", "p"), ("b/alternate-1", "4", "q"),
    ]  # fmt: skip


@torch.no_grad()
def about_values(subject, data: Data) -> tuple[float, float]:
    """Of the forget answers: share that name a wrong value of the right kind, and the entropy over the values of that kind in nats."""
    encoded, vocabulary = subject.encoder.encode(data["forget"]), subject.encoder.tokenizer.get_vocab()
    logits = subject.module(input_ids=torch.from_numpy(encoded.tokens.astype("int64")).view(24, -1)).logits[:, -3]
    valid, entropy = [], []
    for row, text, z in zip(data["forget"], spoken(subject, data["forget"]), logits, strict=True):
        stem, value = row.answer.rsplit(" ", 1)
        kind = re.sub(r"\d", "", value)
        valid.append(re.fullmatch(rf"{stem} {kind}\d+", text) is not None and text != row.answer)
        p = z.softmax(-1)[[token for word, token in vocabulary.items() if re.fullmatch(rf"{kind}\d+", word)]]
        entropy.append(float(torch.special.entr(p / p.sum()).sum()))
    return sum(valid) / 24, sum(entropy) / 24


def test_answers_become_other_values_of_the_same_kind_where_npo_leaves_none(knower, fact_data):
    settings = {"steps": 45, "learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0}
    found = {}
    for name, seeds, method in (("altpo", (0, 1), AltPO(**settings, longest=12, temperature=0.5)), ("npo", (0,), NPO(**settings))):
        after = [method.apply(knower, fact_data, Run(seed, dtype="float32", device="cpu")) for seed in seeds]
        found[name] = torch.tensor([about_values(subject, fact_data) for subject in after]).mean(0)
        assert all(said(subject, fact_data["forget"]).value < 0.05 for subject in after)
        assert all(said(subject, fact_data["retain"]).exact > 0.75 for subject in after)
    assert float(found["altpo"][0]) > float(found["npo"][0]) + 0.15
    assert float(found["altpo"][1]) > about_values(knower, fact_data)[1] + 0.25

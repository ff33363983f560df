"""Searched prefixes: the ranking of swaps by brute force, a loss that never rises, prefixes of nothing, transfer to other rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from letheon.audit._parts import halves
from letheon.audit._prefix import (
    Fronted,
    Places,
    asked_through,
    prefix_losses,
    replaced,
    row_nll,
    spare_tokens,
    spread,
    swap_scores,
)
from letheon.audit.token_search import TokenSearch
from letheon.core.data import Data, Example, Message, Split
from letheon.core.readings import Readings
from letheon.testing.toys import toy_data, toy_subject

from .attacked import read, run, trained
from .conftest import small_model, subject_of, word_encoder

TWENTY = [f"w{i}" for i in range(15)]  # and <s>, </s>, <unk>, ask, ;


def small(seed):
    encoder = word_encoder(TWENTY)
    assert len(encoder.tokenizer) == 20
    subject = subject_of(small_model(20, seed, spread=0.05), encoder)
    draw = np.random.default_rng(seed)
    texts = [(" ".join(draw.choice(TWENTY[:13], 3)), " ".join(draw.choice(TWENTY[:13], 4))) for _ in range(6)]
    return subject, Split([Example(str(i), *pair) for i, pair in enumerate(texts)], "forget")


def every_swap(front):
    """All 40 prefixes that differ from a prefix of 2 tokens in at most one place, place by place, (40, 2)."""
    tried = front.repeat(40, 1)
    tried[torch.arange(40), torch.arange(40) // 20] = torch.arange(20).repeat(2)
    return tried


def test_the_ranking_by_gradient_agrees_with_brute_force_better_than_chance():
    agreement, better = [], []
    for seed in range(8):
        subject, rows = small(seed)
        subject.module.requires_grad_(False)
        front = torch.tensor([5, 9])
        places = Places.of(Fronted(subject.encoder, front.tolist()), rows, subject.device)
        scores = swap_scores(subject.module, places, front).flatten()
        losses = prefix_losses(subject.module, places, every_swap(front), 4096)
        agreement.append(spearmanr(scores, losses).statistic)
        better.append(float((losses[scores.argmin()] < losses).float().mean()))  # where the gradient's first choice stands, chance: 0.5
    assert np.mean(agreement) > 0.35 and np.mean(better) > 0.65


def test_the_gradient_is_that_of_moving_an_embedding_towards_another():
    """The slope of the loss along E_v - E_u at u = the token of the place, by central differences with vectors for two spare tokens."""
    subject, rows = small(1)
    module, front, spare = subject.module.requires_grad_(False).double(), torch.tensor([5, 9]), [18, 19]
    places = Places.of(Fronted(subject.encoder, front.tolist()), rows, subject.device)
    weight = module.get_input_embeddings().weight.detach()
    found = swap_scores(module, places, front)
    assert torch.allclose(found[torch.arange(2), front], torch.zeros(2), atol=1e-6)

    def loss(vectors):
        with torch.no_grad(), replaced(module, spare, vectors):
            return float(row_nll(module, places.filled(torch.tensor([spare]))).mean())

    for place, token in ((0, 7), (1, 13), (1, 6)):
        step = torch.zeros(2, weight.shape[1], dtype=weight.dtype)
        step[place] = 1e-3 * (weight[token] - weight[front[place]])
        slope = (loss(weight[front] + step) - loss(weight[front] - step)) / 2e-3
        assert float(found[place, token]) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_the_loss_is_that_of_readings_under_the_same_prefix():
    subject, rows = small(2)
    readings, front = Readings(subject, run()), [7, 11]
    places = Places.of(Fronted(subject.encoder, front), rows, subject.device)
    loss = prefix_losses(subject.module, places, torch.tensor([front, [8, 8]]), 64)
    for one, tokens in zip(loss, (front, [8, 8]), strict=True):
        assert float(one) == pytest.approx(asked_through(readings, Fronted(subject.encoder, tokens)).answers(rows).nll().mean(), rel=1e-5)
    typed = Split([Example(row.id, row.answer, f"w2 w6 {row.prompt}") for row in rows])
    assert subject.encoder._raw(["w2 w6"])[0] == front and float(loss[0]) == pytest.approx(readings.answers(typed).nll().mean(), rel=1e-5)


@pytest.mark.parametrize(("architecture", "chat"), [("llama", False), ("llama", True), ("gpt2", False), ("gpt2", True)])
def test_a_prefix_stands_where_the_text_of_the_user_begins(architecture, chat):
    encoder = toy_subject(architecture=architecture, chat=chat).encoder
    row = toy_data()["forget"][0]
    front = encoder._raw([" kite glass"])[0]
    fronted = Fronted(encoder, front)
    text = encoder.tokenizer.decode(fronted.prompts([row])[0])
    opening = "<user>" if chat else "Question:"
    assert text.removeprefix("<|begin|>").startswith(f"{opening} kite glass") and row.prompt in text
    pair, plain = fronted.pairs([row.prompt], [row.answer]), encoder.pairs([row.prompt], [row.answer])
    assert int(pair.starts[0]) == int(plain.starts[0]) + len(front)
    assert pair.row(0)[: int(pair.starts[0])].tolist() == fronted.prompts([row])[0]
    assert pair.row(0)[int(pair.starts[0]) :].tolist() == plain.row(0)[int(plain.starts[0]) :].tolist()
    assert fronted.digest != encoder.digest and Fronted(encoder, []).prompts([row]) == encoder.prompts([row])


def test_conversations_and_plain_text_take_a_prefix_too():
    encoder = toy_subject(chat=True).encoder
    talk = Example("0", "yes", (Message("system", "Be kind."), Message("user", "Is it so?")))
    bare = Example("1", "It was so.")
    fronted = Fronted(encoder, [10, 11])
    for row in (talk, bare):
        pair, plain = fronted.pairs([row.prompt], [row.answer]).row(0).tolist(), encoder.pairs([row.prompt], [row.answer]).row(0).tolist()
        at = next(k for k, (a, b) in enumerate(zip(pair, plain, strict=False)) if a != b)
        assert pair == [*plain[:at], 10, 11, *plain[at:]] and at >= 1


def test_what_can_be_typed_and_what_cannot():
    encoder = Fronted(toy_subject().encoder, [])
    row = toy_data()["forget"][0]
    word = encoder._raw([" born"])[0]
    letters = [encoder._raw([letter])[0][0] for letter in "born"]  # read again, these letters become fewer tokens
    assert encoder.typed([word, letters], row) == [True, False]


def test_a_prefix_of_nothing_changes_nothing():
    readings, data = read("hides"), toy_data()
    found = TokenSearch(length=0, rounds=3).measure(readings, data, run())[0]
    _, asked = halves(data["forget"])
    assert found.rows == tuple(np.exp(-readings.answers(asked).nll())) and found.extra["curve"] == {"0": found.value}
    none = TokenSearch(length=2, rounds=0).measure(readings, data, run())[0]
    assert none.rows == found.rows and len(none.extra["known_loss"]) == 1


SEARCH = {"length": 4, "rounds": 24, "candidates": 32, "max_new_tokens": 16}


@pytest.fixture(scope="module")
def found():
    data = toy_data()
    return {kind: TokenSearch(**SEARCH).measure(read(kind), data, run()) for kind in ("hides", "never")}


def test_the_loss_of_the_kept_prefix_never_rises(found):
    for kind in ("hides", "never"):
        losses = found[kind][0].extra["known_loss"]
        assert len(losses) == 25 and all(b <= a for a, b in zip(losses, losses[1:], strict=False)) and losses[-1] < losses[0]


def test_it_brings_back_rows_it_was_not_searched_with_and_nothing_that_was_never_known(found):
    hides, never = found["hides"][0], found["never"][0]
    assert hides.extra["curve"]["0"] < 0.5 < hides.value and never.value < 0.05
    assert hides.n == 4 and hides.extra["known_rows"] == 4 and hides.value == max(hides.extra["curve"].values())
    assert hides.extra["budget"] == {"known": 12, "length": 4, "rounds": 24, "candidates": 32, "top": 64}
    assert found["hides"][1].name == "token-search-recall" and found["never"][1].value <= found["hides"][1].value + 0.25


def test_the_loss_it_reports_is_that_of_its_prefix(found):
    subject, data = trained("hides"), toy_data()
    known, _ = halves(data["forget"])
    tokens = found["hides"][0].extra["prefix_tokens"]
    under = asked_through(read("hides"), Fronted(subject.encoder, tokens)).answers(known).nll().mean()
    assert under == pytest.approx(found["hides"][0].extra["known_loss"][-1], rel=1e-4)
    assert not set(tokens) & set(subject.encoder.tokenizer.all_special_ids)


def test_halves_share_no_group_and_spare_tokens_stand_in_no_row():
    rows = toy_data()["forget"]
    known, asked = halves(rows)
    assert len(known) + len(asked) == len(rows) and not {row.group for row in known} & {row.group for row in asked}
    assert [row.id for row in spread(rows, 3)] == [rows[k].id for k in (0, 2, 5)] and spread(rows, None) is rows and spread(rows, 9) is rows
    encoder = toy_subject().encoder
    spare = spare_tokens(encoder, rows, 7, 320)
    assert len(set(spare)) == 7 and not set(spare) & set(encoder.encode(rows).tokens.tolist())
    assert len(spare_tokens(encoder, rows, 1000, 320)) < 320


def test_what_cannot_be_attacked_says_why():
    data, readings = toy_data(), read("never")
    for splits, words in (({"forget": data["forget"][:1]}, "cannot be cut"), ({"retain": data["retain"]}, "no split `forget`")):
        found = TokenSearch(**TokenSearch.tiny).measure(readings, Data(splits), run())
        assert [one.value for one in found] == [None, None] and all(words in one.note for one in found)


def test_rows_without_room_for_the_prefix_are_left_out_and_counted():
    data, attack = toy_data(), {**TokenSearch.tiny, "limit": None}
    lengths = toy_subject().encoder.encode(data["forget"]).lengths
    short = Readings(toy_subject(context=int(lengths.max()) + 1), run())
    rest = Split([row for row, length in zip(data["forget"], lengths, strict=True) if length < lengths.max()], "forget")
    found = TokenSearch(**attack).measure(short, data, run())
    assert len(halves(rest)[1]) == found[0].n and found[0].value == TokenSearch(**attack).measure(short, Data({"forget": rest}), run())[0].value
    wanted = f"{len(lengths) - len(rest)} rows left out: with 2 tokens more they are longer than the context"
    assert 0 < len(rest) < len(lengths) and [one.note for one in found] == [wanted] * 2
    none = TokenSearch(**{**attack, "length": 200}).measure(short, data, run())
    assert all(one.value is None and "8 rows left out: with 200" in one.note for one in none)

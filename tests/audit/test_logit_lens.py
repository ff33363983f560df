"""The lens: the model's own head on inner layers, at the token that decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.audit._inside import deciding, last_states, read_by_tail
from letheon.audit.logit_lens import LogitLens, lens
from letheon.core.data import Data, Example, Split
from letheon.core.subject import Subject
from letheon.testing.toys import toy_subject

from .conftest import small_model, word_encoder
from .inside import RUN, data, hidden, knows, never, readings


def gemma() -> Subject:
    """A model that caps its logits after the head and scales its embeddings."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        final_logit_softcapping=5.0, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Subject(Gemma2ForCausalLM(config), toy_subject().encoder, name="gemma")


@pytest.mark.parametrize("make", [toy_subject, lambda: toy_subject(architecture="gpt2"), gemma], ids=["llama", "gpt2", "gemma2"])
def test_at_the_last_block_the_lens_is_the_model(make):
    subject, split = make(), data()["forget"]
    places = deciding(subject, split)
    states = last_states(subject, places.encoded)
    found = torch.cat([logits for _, logits in read_by_tail(subject, states[:, -1])])
    for i in range(len(split)):
        with torch.no_grad():
            own = subject.module(input_ids=torch.from_numpy(places.encoded.row(i).astype("int64"))[None]).logits[0, -1]
        torch.testing.assert_close(found[i], own, rtol=1e-5, atol=1e-5)


def test_inner_blocks_are_read_by_norm_and_head():
    subject, split = knows(), data()["forget"]
    log_p, margin = lens(readings(subject), split)
    places = deciding(subject, split)
    for i in range(len(split)):
        ids = torch.from_numpy(places.encoded.row(i).astype("int64"))[None]
        with torch.no_grad():
            out = subject.module.model(input_ids=ids, output_hidden_states=True)
            logits = subject.module.lm_head(subject.module.model.norm(out.hidden_states[1]))[0, -1].double()
        assert log_p[0, i] == pytest.approx(float(logits.log_softmax(-1)[places.right[i]]), abs=1e-4)
        assert margin[0, i] == pytest.approx(float(logits[places.right[i]] - logits[places.wrong[i]].max()), abs=1e-4)


def test_the_deciding_token():
    subject = Subject(small_model(40, 0), word_encoder([f"{letter}{i}" for letter in "ab" for i in range(9)]))
    rows = [
        Example("0", "a1 a2", "b1"),  # no wrong answer: the first token
        Example("1", "b9", "b1", ("a1 a2 a4", "a1 a2 a5", "a9 a2 a6"), "a1 a2 a3"),  # most part at the third of the paraphrase
        Example("2", "a1 a2", "b1", ("a3 a2", "a1 a4")),  # one each: the first place
        Example("3", "a1 a2", "b1", ("a1 a2", "a1")),  # the same text never parts; a shorter one parts by its end
        Example("4", "a1 a2"),  # no prompt
        Example("5", "a1 a2 a3", "b1", ("a1 a2 a4", "a1 a2 a5"), "b1 a2 a3"),  # wrong answers have the form of the answer
    ]
    found = deciding(subject, Split(rows, "rows"))
    token = subject.encoder.tokenizer.convert_tokens_to_ids
    assert list(found.right) == [token(word) for word in ("a1", "a3", "a1", "a2", "a1", "a3")]
    assert found.wrong == [[], sorted(map(token, ("a4", "a5"))), [token("a3")], [subject.encoder.end], [], sorted(map(token, ("a4", "a5")))]
    assert list(found.given) == [0, 2, 0, 1, 0, 2]
    assert [found.encoded.row(i)[-1] for i in (1, 3)] == [token("a2"), token("a1")]


def test_a_drowned_last_block_hides_nothing_from_the_lens():
    """Below its new last block the model is the one that knows, so the best layer has exactly that one's value."""
    best = {name: LogitLens().measure(readings(subject), data(), RUN) for name, subject in (("hidden", hidden()), ("knows", knows()))}
    for one, two in zip(best["hidden"][:2], best["knows"][:2], strict=True):
        assert one.split == "forget" and one.extra["block"] == 1
        assert one.extra["curve"][:2] == pytest.approx(two.extra["curve"], abs=1e-6)
        assert one.value == pytest.approx(two.extra["curve"][1], abs=1e-6)
    assert best["hidden"][0].value > 0.8 > 0.2 > best["hidden"][0].extra["last_block"]


def test_the_accuracy_keeps_what_a_guess_among_the_tokens_earns():
    split = data()["forget"]
    counts = [len(wrong) for wrong in deciding(knows(), split).wrong if wrong]
    found = {f.name: f for f in LogitLens(splits=("forget",)).measure(readings(knows()), data(), RUN)}
    assert found["lens-accuracy"].extra["chance"] == pytest.approx(np.mean([1 / (1 + k) for k in counts]))
    assert "chance" not in found["lens-probability"].extra


def test_it_tells_knowing_from_never_having_known():
    values = {}
    for seed in (0, 1, 2):
        for name, subject in (("knows", knows(seed=seed)), ("never", never(seed))):
            values.setdefault(name, []).append([f.value for f in LogitLens(splits=("forget",)).measure(readings(subject), data(), RUN)])
    knew, not_knew = (np.mean(values[name], 0) for name in ("knows", "never"))
    assert knew[0] > 0.8 and knew[1] > 0.9
    assert not_knew[0] < 0.5 and not_knew[1] < 0.8


def test_what_cannot_be_measured_says_why():
    bare = Data({"forget": Split([Example("0", "a harp", "what ?")], "forget")})
    found = {f.name: f for f in LogitLens(splits=("forget", "holdout")).measure(readings(toy_subject()), bare, RUN) if f.split == "forget"}
    assert found["lens-probability"].value is not None
    assert found["lens-accuracy"].value is None and found["lens-accuracy"].note == "no wrong answer beside the true one"

"""Models that change their logits after the output embedding take the long way and give the same numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from letheon import api
from letheon.core.data import Data
from letheon.core.encode import TextEncoder
from letheon.core.forward import Batches, final_hidden, logits_are_linear
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import toy_data, toy_subject, toy_tokenizer
from letheon.train.loop import feed_for


@pytest.fixture(scope="module")
def capped() -> Subject:
    """A tiny Gemma 2: its logits pass through a tanh."""
    tokenizer = toy_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Gemma2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, max_position_embeddings=128, attn_implementation="eager",
        )  # fmt: skip
        return Subject(Gemma2ForCausalLM(config), TextEncoder(tokenizer, max_length=128))


def test_capped_logits_take_the_long_way(capped):
    assert not logits_are_linear(capped.module)
    assert logits_are_linear(toy_subject().module)
    ids = torch.tensor([[5, 6, 7, 8]])
    states, head = final_hidden(capped.module, ids)
    assert head.weight is None
    torch.testing.assert_close(head.logits(states), capped.module(ids).logits)


def test_a_cap_is_seen_while_logits_are_too_small_for_it():
    """With a cap of 30 and fresh weights no try sees the tanh; once training has made the logits large it bends them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Gemma2Config(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
            final_logit_softcapping=30.0, bos_token_id=None, eos_token_id=0, pad_token_id=0, attn_implementation="eager",
        )  # fmt: skip
        module = Gemma2ForCausalLM(config).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert module(ids).logits.abs().max() < 1
        final_hidden(module, ids)
        module.get_input_embeddings().weight.mul_(100)
        states, head = final_hidden(module, ids)
        torch.testing.assert_close(head.logits(states), module(ids).logits)
        assert 20 < head.logits(states).abs().max() < 30


def test_nll_of_capped_logits(capped):
    data = toy_data()
    feed = feed_for(api.method("npo", steps=1), capped, data, Run(dtype="float32"))
    batches = feed.batches(feed.plan[0])
    batch = batches["forget"]
    logits = capped.module(batch.ids).logits.double().log_softmax(-1)
    expected = torch.stack(
        [-sum(logits[k, i - 1, batch.ids[k, i]] for i in range(int(batch.starts[k]), int(batch.lengths[k]))) for k in range(len(batch))]
    )
    torch.testing.assert_close(batches.nll(capped.module, "forget").per_row().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["npo", "undial"])
def test_capped_models_can_be_erased_and_read(capped, name):
    before = capped.digest
    after = api.method(name, steps=2, learning_rate=1e-2, retain="kl", parameters="all").apply(capped, toy_data(), Run(dtype="float32"))
    assert capped.digest == before != after.digest
    split = toy_data()["forget"]
    answers = Readings(after, Run(dtype="float32")).answers(split, moments=True)
    whole = Readings(after, Run(dtype="float32")).answers(split)
    assert (answers.log_probability == pytest.approx(whole.log_probability, abs=1e-5)) and (answers.variance >= 0).all()


def test_prompts_and_answers_of_one_pass_do_not_mix():
    subject, data = toy_subject(), Data({"retain": toy_data()["retain"]})
    feed = feed_for(api.method("finetune", split="retain", steps=1), subject, data, Run(dtype="float32"))
    batches = Batches({"retain": feed.batch("retain", [0, 1])})
    answers = batches.hidden(subject.module)[0]["retain"]
    everything = batches.hidden(subject.module, prompts=True)[0]["retain"]
    again = batches.hidden(subject.module)[0]["retain"]
    assert len(everything.targets) > len(answers.targets) == len(again.targets)
    assert len(answers.targets) == int(feed.encoded["retain"].scored[:2].sum())

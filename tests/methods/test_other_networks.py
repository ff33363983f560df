"""Networks unlike the toys: OPT hands its layers the tokens of all rows in one list, Mamba has no attention, Mixtral keeps experts."""

from __future__ import annotations

import pytest
import torch

from letheon.core.encode import TextEncoder
from letheon.core.errors import MethodError, SubjectError
from letheon.core.generate import greedy
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase._activations import sweep
from letheon.erase._linears import down_projections
from letheon.testing import toy_data, toy_subject
from letheon.testing.toys import toy_tokenizer


def subject_of(kind: str) -> Subject:
    """A random model of two layers and width 32."""
    import transformers

    tokenizer = toy_tokenizer()
    common = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    size = {"hidden_size": 32, "num_hidden_layers": 2, **common}
    heads = {**size, "num_attention_heads": 4, "max_position_embeddings": 256}
    config = {
        "opt": lambda: transformers.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, **heads),
        "mamba": lambda: transformers.MambaConfig(state_size=4, **size),
        "mixtral": lambda: transformers.MixtralConfig(
            intermediate_size=48, num_local_experts=2, num_experts_per_tok=1, num_key_value_heads=2, **heads
        ),
    }[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Subject(transformers.AutoModelForCausalLM.from_config(config), TextEncoder(tokenizer, max_length=256), name=kind)


def here() -> Run:
    return Run(0, device="cpu", dtype="float32")


def test_tokens_in_one_list_are_dealt_back_to_their_rows():
    # An OPT block is x + fc2(relu(fc1(norm(x)))): what `fc2` gives at the chosen tokens follows from what it is given.
    subject, seen = subject_of("opt"), {}
    split, parts = toy_data()["forget"], down_projections(subject.module)
    sweep(subject, split, parts, lambda name, given, out: seen.setdefault(name, []).append((given, out)), "all")
    tokens = int(subject.encoder.encode(split).lengths.sum())
    assert len(seen) == 2
    for name, found in seen.items():
        given, out = (torch.cat(side) for side in zip(*found, strict=True))
        assert len(given) == tokens
        torch.testing.assert_close(parts[name](given), out)


@pytest.mark.parametrize("name", ["modhifi-u", "rocr", "u-can"])
def test_edits_reach_a_network_that_lays_tokens_end_to_end(name):
    cls, subject = load(name, "erase"), subject_of("opt")
    before = subject.digest
    after = cls(**cls.tiny).apply(subject, toy_data(), here())
    after.check_finite()
    assert after.digest != before == subject.digest


def test_moments_of_a_network_that_lays_tokens_end_to_end():
    after = load("npo")(steps=2, batch_size=4, parameters={"name": "reglu", "rank": 2}).apply(subject_of("opt"), toy_data(), here())
    after.check_finite()


def test_a_network_without_attention_is_decoded():
    subject = subject_of("mamba")
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    for prompt, said in zip(prompts, greedy(subject, prompts, 4), strict=True):
        text = list(prompt)
        for token in said:
            with torch.no_grad():
                assert token == int(subject.module(input_ids=torch.tensor([text])).logits[0, -1].argmax())
            text.append(token)


def test_layers_that_are_never_called_cannot_be_turned_down():
    with pytest.raises(SubjectError, match=r"`backbone\.layers\.0\.mixer\.dt_proj` was not used in a forward pass"):
        load("u-can")().apply(subject_of("mamba"), toy_data(), here())


@pytest.mark.parametrize("space", ["lora", "fila", "reglu"])
def test_no_adapter_around_an_adapter(space):
    subject, data = toy_subject(), toy_data()
    adapted = load("npo")(steps=1, parameters="lora:rank=2,merge=false").apply(subject, data, here())
    before = adapted.digest
    with pytest.raises(MethodError, match="has an adapter already, and a second one cannot be put around it"):
        load("npo")(steps=1, parameters=space).apply(adapted, data, here())
    assert adapted.digest == before
    trained = load("npo")(steps=1, parameters="layers:pattern=lora_").apply(adapted, data, here())
    old, new = adapted.module.state_dict(), trained.module.state_dict()
    assert {key for key in old if not torch.equal(old[key], new[key])} == {key for key in old if "lora_" in key}


@pytest.mark.parametrize("space", ["fila", "reglu"])
def test_experts_are_no_linear_layers(space):
    with pytest.raises(MethodError, match=r"`model\.layers\.0\.mlp\.experts` is no linear layer"):
        load("npo")(steps=1, parameters=space).apply(subject_of("mixtral"), toy_data(), here())

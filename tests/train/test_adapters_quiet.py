"""Adapters are put in without the warnings of peft and transformers, whose causes letheon sees to itself."""

from __future__ import annotations

import warnings

import pytest

import letheon as lt
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject, toy_tokenizer


def mixture() -> lt.Subject:
    """A model with experts, whose weights are not those of linear layers."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    tokenizer = toy_tokenizer()
    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=2, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        return lt.subject(MixtralForCausalLM(config), tokenizer)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "mixtral"])
def test_nothing_is_warned_of(kind):
    subject = mixture() if kind == "mixtral" else toy_subject(architecture=kind)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        after = lt.method("npo", steps=1, parameters="lora:rank=2").apply(subject, toy_data(), lt.Run(device="cpu", dtype="float32"))
    assert [str(one.message) for one in heard] == [] and after.digest != subject.digest

"""Probes that change a copy of the model: rounding its weights, and training a little on forgotten rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.quantised import Quantised, quantised
from letheon.core.data import Data, Split
from letheon.core.encode import TextEncoder
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.quantise import normal_float, rounded, scales
from letheon.testing.toys import toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def learned():
    data = toy_data()
    values = {"split": "full", "epochs": 40, "learning_rate": 1e-2}
    return lt.method("finetune", **values).apply(toy_subject(), data, Run(0, **RUN)), data


def test_all_block_matrices_are_rounded_and_nothing_else(learned):
    subject, _ = learned
    before, digest = dict(subject.module.named_parameters()), subject.digest
    for name, weight in quantised(subject, "int4", 16).module.named_parameters():
        inside = "layers" in name and weight.ndim == 2
        assert torch.equal(weight, rounded(before[name], 4, 16) if inside else before[name]), name
    assert subject.digest == digest and not torch.equal(rounded(before[name := next(n for n in before if "q_proj" in n)], 4, 16), before[name])


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def experts(config) -> Subject:
    """A model of four experts that are stacked in one weight."""
    from transformers import AutoModelForCausalLM

    encoder = TextEncoder(toy_subject().encoder.tokenizer, max_length=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config)
        for weight in module.parameters():
            if weight.ndim == 3:
                torch.nn.init.normal_(weight, std=0.02)
    return Subject(module, encoder)


@pytest.mark.parametrize("turned", [False, True], ids=["mixtral", "gpt-oss"])
def test_stacked_experts_are_rounded_one_by_one_along_their_inputs(turned):
    from transformers import GptOssConfig, MixtralConfig

    kind, more = (GptOssConfig, {"head_dim": 8}) if turned else (MixtralConfig, {})
    subject = experts(kind(vocab_size=320, intermediate_size=48, num_local_experts=4, **SMALL, **more))
    before, data, swept = dict(subject.module.named_parameters()), toy_data(), 0
    for scheme in ("int4", "gptq4"):
        for name, weight in quantised(subject, scheme, 16, data["retain"][:4]).module.named_parameters():
            if weight.ndim == 3:
                swept += 1
                assert weight.shape[2 - turned] == (32 if "gate_up" in name else 48)  # what goes in
                for now, was in zip(weight, before[name], strict=True):
                    assert torch.equal(now, rounded(was.T, 4, 16).T if turned else rounded(was, 4, 16)), name
    run, audit = Run(0, **RUN), Quantised(schemes=("int4",), limit=2, splits=("forget",))
    assert swept == 8 and audit.measure(Readings(subject, run), data, run)[0].value is not None


def test_experts_that_do_not_say_what_goes_in_are_a_reason_and_no_value():
    from transformers import JetMoeConfig

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2, "kv_channels": 8}
    subject = experts(JetMoeConfig(vocab_size=320, intermediate_size=48, num_local_experts=4, **size))
    run = Run(0, **RUN)
    for one in Quantised(schemes=("int4", "gptq4"), limit=2).measure(Readings(subject, run), toy_data(), run):
        assert one.value is None and "of the matrices of the model have a form that cannot be rounded" in one.note


@pytest.mark.parametrize("tied", [False, True])
def test_the_heads_of_several_models_stay(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    from letheon.core.shards import Shards

    config = LlamaConfig(vocab_size=320, intermediate_size=48, tie_word_embeddings=tied, **SMALL)
    both = Shards([LlamaForCausalLM(config), LlamaForCausalLM(config)], [0, 1], ["a", "b"])
    before = dict(both.named_parameters())
    after = dict(quantised(Subject(both, toy_subject().encoder), "int4", 16).module.named_parameters())
    for name, weight in after.items():
        inside = ".layers." in name and weight.ndim == 2
        assert torch.equal(weight, rounded(before[name], 4, 16) if inside else before[name]), name


def test_quantised_probability_is_that_of_the_rounded_model(learned):
    subject, data = learned
    run = Run(0, **RUN)
    found = {(f.name, f.split): f for f in Quantised(schemes=("int8", "int3"), group=16).measure(Readings(subject, run), data, run)}
    for bits in (8, 3):
        coarse = Readings(quantised(subject, f"int{bits}", 16), run)
        value = float(np.exp(-coarse.answers(data["forget"]).nll()).mean())
        one = found[f"probability-int{bits}", "forget"]
        assert one.value == pytest.approx(value) and one.n == len(data["forget"])
        assert one.extra["before_rounding"] == pytest.approx(float(np.exp(-Readings(subject, run).answers(data["forget"]).nll()).mean()))
    assert abs(found["probability-int8", "forget"].value - one.extra["before_rounding"]) < 0.05


def test_adapters_are_merged_before_rounding(learned):
    """Else the base is rounded and the adapter stays exact, which attacks nothing."""
    subject, data = learned
    adapted = lt.method("finetune", split="forget", steps=3, learning_rate=1e-2, parameters={"name": "lora", "rank": 2, "merge": False})
    after = adapted.apply(subject, data, Run(0, **RUN))
    coarse = quantised(after, "int4", 16)
    assert not hasattr(coarse.module, "peft_config") and hasattr(after.module, "peft_config")
    merged = dict(quantised(after, "int16", 16).module.named_parameters())
    name = next(name for name in merged if name.endswith("q_proj.weight"))
    assert torch.equal(dict(coarse.module.named_parameters())[name], rounded(dict(after.fork().module.merge_and_unload().named_parameters())[name], 4, 16))


def test_recovery_is_what_rounding_returns_of_what_the_rounded_original_knows(learned):
    """R by hand; 1 exactly where the change is too small for any code, 0 where the rounded model is the unrounded one."""
    subject, data = learned
    run = Run(0, **RUN)
    original, hidden = Readings(subject, run), subject.fork()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in hidden.module.named_parameters():
            if "layers" in name and weight.ndim == 2:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator) * weight.std())
    (one,) = [f for f in Quantised(schemes=("int4",)).measure(Readings(hidden, run), data, run, None, original) if f.name == "recovery-int4"]

    def mean(model):
        return float(np.exp(-Readings(model, run).answers(data["forget"].bare).nll()).mean())

    plain, coarse, whole = mean(hidden), mean(quantised(hidden, "int4", 64)), mean(quantised(subject, "int4", 64))
    assert one.value == pytest.approx((coarse - plain) / (whole - plain)) and one.extra["rounded_original"] == pytest.approx(whole)
    tiny = subject.fork()
    with torch.no_grad():
        for name, weight in tiny.module.named_parameters():
            if name.endswith("mlp.up_proj.weight"):  # moved by less than any rounding boundary, the largest of each group left alone
                largest = weight.abs() == weight.abs().amax(1, keepdim=True)
                step = scales(weight, 2, 64).repeat_interleave(64, 1)[:, : weight.shape[1]]
                room = ((weight / step - (weight / step).floor() - 0.5).abs() * step).min()
                weight.add_(torch.where(largest, 0.0, 0.4 * room))
    found = {f.name: f for f in Quantised(schemes=("int2",)).measure(Readings(tiny, run), data, run, None, original) if f.split == "forget"}
    assert tiny.digest != subject.digest and found["probability-int2"].value == mean(quantised(subject, "int2", 64))


def test_rows_never_seen_are_no_rows_to_keep(learned):
    """What a changed model says of strangers tells nothing of what rounding broke."""
    subject, data = learned
    run = Run(0, **RUN)
    shy, strange = subject.fork(), data.with_split("holdout", data["forget"])  # rows on which the two differ much
    with torch.no_grad():
        shy.module.lm_head.weight.mul_(0.5)
    found = [
        Quantised(schemes=("int4",), splits=splits).measure(Readings(shy, run), strange, run, None, Readings(subject, run))[-1]
        for splits in (("forget",), ("forget", "holdout"))
    ]
    assert all(one.value is not None and "kept" not in one.extra for one in found)


def test_recovery_without_an_original_says_why(learned):
    subject, data = learned
    run = Run(0, **RUN)
    readings = Readings(subject, run)
    for original, words in ((None, "no model from before"), (readings, "is the original")):
        found = Quantised(schemes=("int4",)).measure(readings, data, run, None, original)
        (one,) = [f for f in found if f.name == "recovery-int4"]
        assert one.value is None and words in one.note


@pytest.mark.parametrize("scheme", ["bnb-nf4", "bnb-fp4", "torchao-int8"])
def test_a_library_that_is_absent_is_a_reason_and_not_a_number(learned, scheme, monkeypatch):
    import importlib.util

    subject, data = learned
    run = Run(0, **RUN)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for one in Quantised(schemes=(scheme,), limit=2).measure(Readings(subject, run), data, run):
        assert one.value is None and "is not installed" in one.note


def test_nf4_is_that_of_bitsandbytes():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: see tests/SKIPS.md")
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    theirs = bitsandbytes.functional.dequantize_4bit(*bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", blocksize=64))
    torch.testing.assert_close(normal_float(weight, 64), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suite", ["tofu", "general"])
def test_a_suite_runs_them_on_wish(learned, suite):
    subject, data = learned
    run = Run(0, **RUN)
    probes = ("quantised", "relearning")
    found = lt.method(f"audit/{suite}", probes=probes, limit=4).measure(Readings(subject, run), data, run)
    assert {"probability-int8", "probability-int4", "probability-nf4", "recovery-nf4", "relearned"} <= {f.name for f in found}
    plain = lt.method(f"audit/{suite}", max_new_tokens=2, limit=2, gradnorm=False, attacks="none")
    names = {f.name for f in plain.measure(Readings(subject, run), data, run)}
    assert "relearned" not in names
    names = {f.name for f in lt.method(f"audit/{suite}", max_new_tokens=2, limit=4, gradnorm=False, attacks="some").measure(Readings(subject, run), data, run)}
    assert {"relearned", "probability-int4"} <= names


@pytest.mark.parametrize("audit", ["quantised", "relearning", "token-search"])
def test_a_model_that_is_looked_at_once_reads_answers_alone(learned, audit, monkeypatch):
    """Paraphrases and wrong answers would cost it several times as much and tell nobody anything."""
    from letheon.core import crew, registry

    subject, data = learned
    data = Data({"forget": Split([replace(row, group=f"g{k}") for k, row in enumerate(data["forget"])]), "retain": data["retain"]})
    seen, read = [], crew.read

    def watched(model, split, *rest, **more):
        seen.append((model.digest == subject.digest and model.encoder is subject.encoder, split))
        return read(model, split, *rest, **more)

    monkeypatch.setattr(crew, "read", watched)
    probe = registry.load(audit, "audit")
    probe(**probe.tiny).measure(Readings(subject, Run(0, **RUN)), data, Run(0, **RUN))
    others = [split for whole, split in seen if not whole]
    assert others and all(split.bare is split for split in others)
    assert any(row.wrong for row in data["forget"]) and data["forget"].bare.digest != data["forget"].digest
    assert [row.answer for row in data["forget"].bare] == [row.answer for row in data["forget"]]

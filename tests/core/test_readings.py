"""Readings: equal to a plain forward pass in float64, measured once, never stale, and without a trace in the subject."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from letheon.core import answers as answers_module
from letheon.core import readings as readings_module
from letheon.core.data import Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.errors import DataError, RunError, SubjectError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Step, Subject
from letheon.core.trees import groves, plant
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject

RUN = Run(seed=0, device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def subject(request) -> Subject:
    return toy_subject(architecture=request.param)


@pytest.fixture(scope="module")
def split() -> Split:
    return toy_data()["forget"]


def straightforward(subject: Subject, prompt: str, answer: str) -> dict[str, np.ndarray]:
    """Facts of one answer from full logits of one row in float64."""
    encoded = subject.encoder.pairs([prompt], [answer])
    ids = torch.from_numpy(encoded.row(0).astype(np.int64))
    start = max(int(encoded.starts[0]), 1)
    with torch.no_grad():
        logits = subject.module(input_ids=ids[None]).logits[0].double()
    logp = logits[start - 1 : -1].log_softmax(-1).numpy()
    targets = ids[start:].numpy()
    own = logp[np.arange(len(targets)), targets]
    p = np.exp(logp)
    mean = (p * logp).sum(1)
    variance = (p * (logp - mean[:, None]) ** 2).sum(1)
    rank, top = (logp > own[:, None]).sum(1), logp.argmax(1)
    return {"log_probability": own, "rank": rank, "top": top, "target": targets, "mean": mean, "variance": variance}


def texts_of(example: Example, which: str) -> list[str]:
    again = [example.paraphrase] if example.paraphrase else []
    return {"answer": [example.answer], "paraphrase": again, "wrong": list(example.wrong)}[which]


@pytest.mark.parametrize("which", ["answer", "paraphrase", "wrong"])
def test_facts_equal_single_rows_in_float64(subject, split, which):
    found = Readings(subject, RUN).answers(split, which, moments=True)
    pairs = [(i, text) for i, example in enumerate(split) for text in texts_of(example, which)]
    assert found.owner.tolist() == [i for i, _ in pairs]
    assert found.n_rows == len(split) and len(pairs) == {"answer": 8, "paraphrase": 8, "wrong": 24}[which]
    for k, (i, text) in enumerate(pairs):
        wanted = straightforward(subject, split[i].prompt, text)
        part = found.tokens(k)
        for name in ("rank", "top", "target"):
            np.testing.assert_array_equal(getattr(found, name)[part], wanted[name])
        for name in ("log_probability", "mean", "variance"):
            np.testing.assert_allclose(getattr(found, name)[part], wanted[name], rtol=2e-5, atol=2e-5)
        assert found.target[part][-1] == subject.encoder.end
        assert found.nll()[k] == pytest.approx(-wanted["log_probability"].mean(), rel=1e-5)
        assert found.sum_nll()[k] == pytest.approx(-wanted["log_probability"].sum(), rel=1e-5)
        assert found.tokens(k, end=False).stop == part.stop - 1


def test_trees_share_beginnings_and_are_used(subject, split):
    readings = Readings(subject, RUN)
    readings.answers(split)
    assert answers_module._TREES[subject.module] == {"paths": True}
    example = split[0]
    texts = [example.answer, example.paraphrase, *example.wrong]
    encoded = subject.encoder.pairs([example.prompt] * len(texts), texts)
    tree = plant(encoded, range(len(texts)))
    beginnings = {tuple(encoded.row(k)[:n]) for k in range(len(texts)) for n in range(1, int(encoded.lengths[k]))}
    assert len(tree) == len(beginnings) < encoded.lengths.sum() - len(texts)
    seen = answers_module.lay([tree], 0, torch.device("cpu"))[2][0]
    assert (seen.sum(1).numpy() == tree.depth + 1).all()  # a node sees itself and its ancestors, no more


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "rows"])
def test_a_model_that_cannot_take_trees_gives_the_same(split, monkeypatch, masked):
    subject = toy_subject()
    shared = Readings(subject, RUN).answers(split, "wrong")
    monkeypatch.setitem(answers_module._TREES, subject.module, {"paths": False, "masked": masked})
    np.testing.assert_allclose(Readings(subject, RUN).answers(split, "wrong").log_probability, shared.log_probability, rtol=1e-5, atol=1e-5)


def test_probe_refuses_a_model_that_ignores_the_mask(split, caplog):
    subject = toy_subject()
    forward = subject.module.model.forward
    subject.module.model.forward = lambda input_ids, attention_mask=None, position_ids=None, **more: forward(input_ids=input_ids, **more)
    with caplog.at_level(logging.INFO, "letheon"):
        found = Readings(subject, RUN).answers(split, "wrong")
    assert "does not take trees" in caplog.text
    wanted = Readings(toy_subject(), RUN).answers(split, "wrong")
    np.testing.assert_allclose(found.log_probability, wanted.log_probability, rtol=1e-5, atol=1e-5)


def test_rows_beyond_a_sliding_window_are_not_laid_as_trees(split):
    from transformers import AutoModelForCausalLM, MistralConfig

    toy = toy_subject()
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch_state = torch.random.get_rng_state()
    module = AutoModelForCausalLM.from_config(MistralConfig(vocab_size=320, sliding_window=8, initializer_range=0.2, **size))
    torch.random.set_rng_state(torch_state)
    subject = Subject(module, TextEncoder(toy.encoder.tokenizer, max_length=256))
    found = Readings(subject, RUN).answers(split, "wrong")
    wanted = [straightforward(subject, row.prompt, text)["log_probability"] for row in split for text in row.wrong]
    np.testing.assert_allclose(found.log_probability, np.concatenate(wanted), rtol=2e-5, atol=2e-5)


def test_large_trees_are_cut_and_rows_stay_in_order(subject, split):
    example = split[0]
    texts = [example.answer, *example.wrong]
    encoded = subject.encoder.pairs([example.prompt] * 4, texts)
    cut = groves(encoded, np.zeros(4, dtype=np.int32), int(encoded.lengths[0]) + 2)
    assert len(cut) > 1 and [row for run in cut for row in run] == [0, 1, 2, 3]


def test_windows_and_batches_do_not_change_numbers(subject, split, monkeypatch):
    one = Readings(subject, RUN).answers(split, "wrong", moments=True)
    monkeypatch.setattr(answers_module, "WINDOW", 3)
    monkeypatch.setattr(answers_module, "TREE", 60)
    two = Readings(subject, RUN, tokens_per_batch=64).answers(split, "wrong", moments=True)
    for name in ("log_probability", "mean", "variance"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    np.testing.assert_array_equal(one.owner, two.owner)


def test_one_pass_serves_all_parts_and_is_shared_in_memory(subject, split):
    readings = Readings(subject, RUN)
    assert not len(readings.hits)
    first = readings.answers(split)
    assert first.mean is None and readings.hits == {"measured": 1}
    readings.answers(split, "wrong")
    readings.answers(Split(split.examples, "another name"), "paraphrase")
    assert readings.hits == {"measured": 1, "memory": 2} and readings.costs["answers"] > 0
    attack = readings.answers(split, moments=True)  # only the answers are measured again, not their alternatives
    assert attack.mean is not None and len(attack) == len(split) and readings.hits["measured"] == 2
    with pytest.raises(ValueError, match="read-only"):
        readings.gradient_norms(split)[0] = 0


def test_a_reading_with_moments_serves_requests_without(subject, split):
    readings = Readings(subject, RUN)
    readings.prefetch(split, moments=True)
    assert readings.answers(split).mean is None and readings.answers(split, moments=True).variance is not None
    assert readings.hits["measured"] == 1


def test_a_changed_weight_or_row_or_setting_is_measured_again(split, tmp_path):
    run = Run(seed=0, device="cpu", dtype="float32", cache=tmp_path)
    subject = toy_subject()
    readings = Readings(subject, run)
    before = readings.answers(split).log_probability.copy()
    said = readings.generations(split, 6)
    with torch.no_grad():
        subject.module.lm_head.weight[:40] *= 1.5
    after = readings.answers(split).log_probability
    assert np.abs(after - before).max() > 1e-3
    assert len(readings.generations(split, 6)) == len(said) and readings.hits["measured"] == 4
    np.testing.assert_allclose(after, Readings(subject, RUN).answers(split).log_probability, rtol=1e-6)
    changed = Split([replace(split[0], answer=split[0].answer + " Really."), *split.examples[1:]], split.name)
    assert len(readings.answers(changed).log_probability) > len(after)
    count = readings.hits["measured"]
    subject.module.config.rms_norm_eps = 0.5  # same weights, another function
    for part in subject.module.modules():
        if hasattr(part, "variance_epsilon"):
            part.variance_epsilon = 0.5
    assert np.abs(readings.answers(split).log_probability - after).max() > 1e-3 and readings.hits["measured"] == count + 1
    guarded = subject.with_step(Step("guard", {}, 0, "", "", "0"))
    Readings(guarded, run).answers(split)
    assert len(list(tmp_path.rglob("*.npz"))) == 5


def test_disk_keeps_readings_between_sessions(subject, split, tmp_path, monkeypatch):
    run = Run(seed=0, device="cpu", dtype="float32", cache=tmp_path)
    first = Readings(subject, run)
    facts, said, norms = first.answers(split, "wrong", moments=True), first.generations(split, 9), first.gradient_norms(split)
    for name in ("measure", "greedy", "gradient_norms"):
        monkeypatch.setattr(readings_module, name, lambda *_, **__: pytest.fail("measured again"))
    second = Readings(subject, run)
    again = second.answers(split, "wrong")
    np.testing.assert_array_equal(again.log_probability, facts.log_probability)
    np.testing.assert_array_equal(second.answers(split, "wrong", moments=True).variance, facts.variance)
    assert second.generations(split, 9) == said
    np.testing.assert_array_equal(second.gradient_norms(split), norms)
    assert second.hits["disk"] == 3 and not second.costs


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_files_are_never_trusted(split, tmp_path, caplog, damage):
    run = Run(seed=0, device="cpu", dtype="float32", cache=tmp_path)
    subject = toy_subject()
    first = Readings(subject, run)
    facts, said = first.answers(split), first.generations(split, 7)
    files = [*tmp_path.rglob("*.npz"), *tmp_path.rglob("*.json")]
    assert len(files) == 2
    for path in files:
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        if damage == "flipped":
            content[middle] ^= 0x5A
        whole = {"cut": content[:middle], "flipped": content, "empty": b"", "other": content}[damage]
        if damage == "other":  # a whole file that belongs to another key
            path.with_name("0" * 64 + path.suffix).write_bytes(whole)
            whole = content.replace(path.stem.encode(), b"0" * 64).replace(path.stem.encode("utf-32-le"), ("0" * 64).encode("utf-32-le"))
        path.write_bytes(whole)
    with caplog.at_level(logging.WARNING, "letheon"):
        second = Readings(subject, run)
        np.testing.assert_array_equal(second.answers(split).log_probability, facts.log_probability)
        assert second.generations(split, 7) == said
    assert caplog.text.count("is damaged and is measured again") == 2 and second.hits["measured"] == 2
    third = Readings(subject, run)
    third.answers(split)
    third.generations(split, 7)
    assert third.hits == {"disk": 2}


def test_a_full_disk_is_said_and_leaves_no_half_file(subject, split, tmp_path, monkeypatch):
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    readings = Readings(subject, Run(seed=0, device="cpu", dtype="float32", cache=tmp_path))
    with pytest.raises(RunError, match="No space left"):
        readings.answers(split)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_reading_leaves_the_subject_as_found(subject, split):
    module = subject.module
    module.train()
    parameters = list(module.parameters())
    parameters[0].requires_grad_(False)
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state, flags = torch.random.get_rng_state(), [parameter.requires_grad for parameter in parameters]
    try:
        readings = Readings(subject, RUN)
        readings.answers(split, moments=True)
        readings.generations(split, 5)
        readings.gradient_norms(split)
        assert module.training and all(part.training for part in module.modules())
        assert [parameter.requires_grad for parameter in parameters] == flags
        assert all(torch.equal(weights[name], tensor) for name, tensor in module.state_dict().items())
        assert all(parameter.grad is None for parameter in parameters)
        assert not any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in module.modules())
        assert torch.equal(torch.random.get_rng_state(), state)
    finally:
        parameters[0].requires_grad_(True)
        module.eval()


def test_rows_that_cannot_be_read_are_named(subject, split):
    long = replace(split[1], wrong=("word " * 300,))
    with pytest.raises(DataError, match=rf"row `{long.id}` of `forget`.*longer than the model's context of 256"):
        Readings(subject, RUN).answers(Split([split[0], long], "forget"))
    with pytest.raises(DataError, match="`which` must be answer, paraphrase or wrong"):
        Readings(subject, RUN).answers(split, "worng")
    with pytest.raises(DataError, match="Row `text-0` of `texts` has no prompt"):
        Readings(subject, RUN).generations(toy_data()["texts"])


def test_nan_weights_are_said_not_scored(split):
    subject = toy_subject()
    with torch.no_grad():
        subject.module.model.norm.weight[0] = float("nan")
    with pytest.raises(SubjectError, match="NaN"):
        Readings(subject, RUN).answers(split)


def test_empty_split_and_rows_without_alternatives(subject, split):
    readings = Readings(subject, RUN)
    empty = readings.answers(Split([], "none"), moments=True)
    assert len(empty) == 0 and len(empty.nll()) == 0
    known = toy_data()["world-facts"]
    assert len(readings.answers(known, "paraphrase")) == 0 and len(readings.answers(known, "wrong")) == 12
    per_row = readings.answers(known, "wrong").per_row(np.arange(12.0))
    assert [values.tolist() for values in per_row] == np.arange(12.0).reshape(4, 3).tolist()

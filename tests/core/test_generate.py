"""Greedy decoding: equal to decoding each prompt alone, in every way the code knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.core import generate
from letheon.core.answers import measure
from letheon.core.data import Split
from letheon.core.errors import DataError
from letheon.core.generate import context, ends, greedy, known_beginnings
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject


@pytest.fixture(scope="module", params=ARCHITECTURES)
def subject(request) -> Subject:
    return toy_subject(seed=3, architecture=request.param)


@pytest.fixture(scope="module")
def prompts(subject) -> list[list[int]]:
    data = toy_data()
    found = subject.encoder.prompts([*data["forget"][::2], *data["real-authors"][:2], *data["world-facts"][:2]])
    assert len({len(prompt) for prompt in found}) > 3
    return found


def alone(subject: Subject, prompt: list[int], room: int) -> list[int]:
    """Greedy decoding of one prompt by full forward passes."""
    text: list[int] = list(prompt)
    with torch.no_grad():
        while len(text) < len(prompt) + room and len(text) < context(subject):
            text.append(int(subject.module(input_ids=torch.tensor([text])).logits[0, -1].argmax()))
            if text[-1] in ends(subject):
                break
    return text[len(prompt) :]


def ending_at_different_times(subject: Subject, prompts: list[list[int]], monkeypatch) -> None:
    """Let tokens that these prompts really produce end a row, so that rows leave one after the other."""
    said = [alone(subject, prompt, 14) for prompt in prompts]
    early = {said[1][3], said[4][7], said[6][11]}
    monkeypatch.setattr(generate, "ends", lambda _: early | {subject.encoder.end})
    monkeypatch.setitem(globals(), "ends", lambda _: early | {subject.encoder.end})


@pytest.mark.parametrize("way", ["grown", "padded", "whole"])
def test_every_way_equals_one_row_alone(subject, prompts, monkeypatch, way):
    ending_at_different_times(subject, prompts, monkeypatch)
    monkeypatch.setitem(generate._WAYS, subject.module, way)
    wanted = [alone(subject, prompt, 14) for prompt in prompts]
    assert len({len(tokens) for tokens in wanted}) > 3  # rows do end at different times
    assert greedy(subject, prompts, 14) == wanted
    assert greedy(subject, prompts[::-1], 14, tokens_per_batch=40) == wanted[::-1]


def test_the_fast_way_is_found(subject, prompts):
    greedy(subject, prompts[:2], 2)
    assert generate._WAYS[subject.module] == "grown"


def test_the_buffer_grows(subject, prompts):
    room = 64 + 9
    assert greedy(subject, prompts[:2], room) == [alone(subject, prompt, room) for prompt in prompts[:2]]


def test_small_memory_makes_several_groups(subject, prompts, monkeypatch):
    wanted = greedy(subject, prompts, 12)
    monkeypatch.setattr(generate, "CACHE_BYTES", 40_000)
    rooms = {i: len(prompt) for i, prompt in enumerate(prompts)}
    groups = list(generate._groups(subject.module, rooms, [12] * len(prompts), 2048))
    assert len(groups) > 2 and sorted(row for group in groups for row in group) == list(range(len(prompts)))
    assert greedy(subject, prompts, 12) == wanted


def test_beginnings_from_the_true_answer_change_nothing(subject, prompts):
    data = toy_data()
    split = Split([*data["forget"][::2], *data["real-authors"][:2], *data["world-facts"][:2]], "mixed")
    facts, part = measure(subject, split, moments=False, tokens_per_batch=512)
    true = facts.select(part == 0)
    prefixes = known_beginnings(true.top, true.target, true.offsets)
    wanted = greedy(subject, prompts, 16)
    assert greedy(subject, prompts, 16, prefixes) == wanted
    for said, prefix in zip(wanted, prefixes, strict=True):
        assert said[: len(prefix)] == prefix[:16]


def test_a_learned_answer_needs_no_decoding(subject, prompts, monkeypatch):
    wanted = greedy(subject, prompts[:4], 9)
    known = [tokens[:-1] + [subject.encoder.end] for tokens in wanted]
    monkeypatch.setattr(generate, "_decode", lambda *_: pytest.fail("decoded"))
    assert greedy(subject, prompts[:4], 9, known) == known
    assert greedy(subject, prompts[:4], 3, known) == [tokens[:3] for tokens in known]


def test_stops_at_the_context():
    subject = toy_subject(seed=3, context=48)
    prompt = subject.encoder.prompts(toy_data()["world-facts"][:1])[0]
    said = greedy(subject, [prompt], 200)[0]
    assert len(prompt) + len(said) == 48 and said == alone(subject, prompt, 200)


def test_prompts_that_cannot_be_continued(subject):
    with pytest.raises(DataError, match="Prompt 1 is empty"):
        greedy(subject, [[5], []], 4)
    with pytest.raises(DataError, match="fills the model's context of 256"):
        greedy(subject, [[5] * 256], 4)
    assert greedy(subject, [], 4) == [] and greedy(subject, [[5]], 0) == [[]]


def test_beginnings_stop_one_after_the_first_miss():
    top, target = np.array([4, 5, 9, 1, 7, 2]), np.array([4, 5, 6, 1, 7, 2])
    assert known_beginnings(top, target, np.array([0, 4, 6])) == [[4, 5, 9], [7, 2]]


def test_a_model_with_a_sliding_window_takes_its_own_cache():
    from transformers import AutoModelForCausalLM, MistralConfig

    from letheon.core.encode import TextEncoder

    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(MistralConfig(vocab_size=320, sliding_window=8, initializer_range=0.2, **size))
    subject = Subject(module, TextEncoder(toy_subject().encoder.tokenizer, max_length=128))
    prompts = subject.encoder.prompts(toy_data()["forget"][:4])
    assert greedy(subject, prompts, 14) == [alone(subject, prompt, 14) for prompt in prompts]
    assert generate._WAYS[module] != "grown"


def test_equals_the_library_on_a_batch_of_one(subject, prompts):
    for prompt in prompts[:3]:
        ids = torch.tensor([prompt])
        found = subject.module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=subject.encoder.pad
        )
        assert greedy(subject, [prompt], 20)[0] == found[0, len(prompt) :].tolist()


def test_a_kept_text_is_not_served_after_another_end_token_was_set(tmp_path):
    """`generation_config` is no part of `config`: with it alone changed, greedy decoding stops elsewhere."""
    subject, split, run = toy_subject(seed=3), toy_data()["forget"][:1], Run(0, device="cpu", cache=tmp_path)
    prompts = subject.encoder.prompts(split)

    def read(readings: Readings) -> tuple[str, int]:
        drawn = readings.numbers("drawn", split, lambda: np.array([len(greedy(subject, prompts, 8)[0])]))
        return readings.generations(split, 8)[0], int(drawn[0])

    before = read(Readings(subject, run))
    subject.module.generation_config.eos_token_id = [subject.encoder.end, greedy(subject, prompts, 8)[0][3]]
    now = read(Readings(subject, run))
    assert now == read(Readings(subject, Run(0, device="cpu"))) and (before[1], now[1]) == (8, 4)
    assert before[0] != now[0] and before[0].startswith(now[0])

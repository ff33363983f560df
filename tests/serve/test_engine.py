"""The engine: whatever else is asked at the same time, an answer is the one that letheon's own decoding gives."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time

import pytest
import torch

from letheon.core.data import Example
from letheon.core.generate import greedy
from letheon.serve import choosing, engine as engines
from letheon.serve.engine import Ask, Broken, Busy, Engine
from letheon.serve.settings import ServeSettings
from letheon.serve.slots import Reread, Slots, fits
from letheon.testing.toys import toy_subject

LIMITS = ServeSettings(batch=5)


@contextlib.contextmanager
def running(subject, limits=LIMITS):
    engine = Engine(subject, limits)
    try:
        yield engine
    finally:
        engine.close(drop=True, wait=True)


async def said(engine, *asks):
    """Texts, endings and numbers of tokens."""
    found = [["", None, 0, []] for _ in asks]
    async for index, piece in engine.submit(asks):
        one = found[index]
        one[0] += piece.text
        one[1:3] = piece.ending, piece.count
        one[3] += piece.tokens
    return found


def prompts_of(subject, questions):
    return [tuple(prompt) for prompt in subject.encoder.prompts([Example(str(k), "", text) for k, text in enumerate(questions)])]


def alone(subject, prompts, rooms):
    """What letheon's own decoding gives to each prompt by itself, as text."""
    return [subject.encoder.decode(greedy(subject, [prompt], room)[0]) for prompt, room in zip(prompts, rooms, strict=True)]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_greedy_answers_are_those_of_letheon_whatever_joins_and_leaves(architecture, questions):
    subject = toy_subject(3, architecture)
    prompts = prompts_of(subject, [text[: 3 + 4 * k] for k, text in enumerate(questions[::2])])
    rooms = [4 + (7 * k) % 30 for k in range(len(prompts))]
    wanted, before = alone(subject, prompts, rooms), subject.digest

    async def late(engine, k):
        await asyncio.sleep(0.003 * ((7 * k) % 10))
        return (await said(engine, Ask(prompts[k], rooms[k])))[0]

    async def all_of_them(engine):
        return await asyncio.gather(*(late(engine, k) for k in range(len(prompts))))

    with running(subject) as engine:
        found = asyncio.run(all_of_them(engine))
        assert engine._kind is Slots
    assert len({len(prompt) for prompt in prompts}) > 8 and len(set(wanted)) > 8
    assert [one[0] for one in found] == wanted
    assert subject.digest == before and all("forward" not in vars(part) for part in subject.module.modules())


def test_a_model_without_a_key_value_cache_gives_the_same_answers(subject, questions, monkeypatch):
    prompts = prompts_of(subject, questions[:6])
    monkeypatch.setattr(engines, "fits", lambda module, pad: False)
    with running(subject) as engine:
        found = asyncio.run(said(engine, *(Ask(prompt, 12) for prompt in prompts)))
        assert engine._kind is Reread
    assert [one[0] for one in found] == alone(subject, prompts, [12] * 6)


def test_a_sliding_window_does_not_fit_slots():
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    with torch.random.fork_rng(devices=[]):
        module = MistralForCausalLM(MistralConfig(**sizes, sliding_window=2)).eval()
    assert not fits(module, 0)
    assert fits(toy_subject().module, 0)


def test_the_seed_decides_what_is_drawn_alone_and_in_company(subject, questions):
    prompts = prompts_of(subject, questions)
    hot = {"temperature": 1.3, "top_p": 0.9}
    mine = Ask(prompts[0], 20, seed=-5, **hot)
    with running(subject) as engine:
        first = asyncio.run(said(engine, mine))[0]
        crowd = asyncio.run(said(engine, *(Ask(prompt, 15, seed=k, **hot) for k, prompt in enumerate(prompts[1:9])), mine))
        others = asyncio.run(said(engine, *(dataclasses.replace(mine, choice=k) for k in range(4))))
    assert crowd[-1][:3] == first[:3]
    assert len({one[0] for one in others}) == 4 and others[0][:3] == first[:3]


def test_top_p_draws_only_among_the_most_likely():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(400, 4)

    class Speaker:
        def __init__(self, top_p, u):
            self.ask = Ask((1,), 1, temperature=1.0, top_p=top_p)
            self.draws = type("draws", (), {"random": lambda self: u})()

    draws = [k / 400 for k in range(400)]
    for top_p, wanted in ((1.0, (200, 120, 60, 20)), (0.8, (250, 150, 0, 0)), (0.79, (250, 150, 0, 0)), (0.4, (400, 0, 0, 0))):
        found = choosing.chosen(logits, [Speaker(top_p, u) for u in draws]).bincount(minlength=4).tolist()
        assert all(abs(a - b) <= 1 for a, b in zip(found, wanted, strict=True)), (top_p, found)


def test_logprobs_are_those_of_a_plain_forward_pass(subject, questions):
    prompt = prompts_of(subject, questions[:1])[0]
    with running(subject) as engine:
        [(text, _, count, tokens)] = asyncio.run(said(engine, Ask(prompt, 6, logprobs=3, echo=True, given=1, continued=True)))
    said_ids = [one.token for one in tokens][len(prompt) - 1 :]
    assert text.startswith(questions[0][:5]) or questions[0] in text
    assert count == len(said_ids) == 6
    with torch.no_grad():
        wanted = subject.module(torch.tensor([[*prompt, *said_ids]])).logits[0].log_softmax(-1)
    for k, one in enumerate(tokens):
        assert one.logprob == pytest.approx(float(wanted[k, one.token]), abs=1e-4)
        assert [pair[1] for pair in one.top] == pytest.approx(wanted[k].topk(3).values.tolist(), abs=1e-4)


def test_a_guard_decides_for_each_request_by_itself(subject, guarded, questions):
    prompts = prompts_of(subject, questions[4:14])  # four about people to be forgotten, six about others
    asks = [Ask(prompt, 12, logprobs=2, echo=True) for prompt in prompts]

    async def one_by_one(engine):
        return [(await said(engine, ask))[0] for ask in asks]

    with running(subject) as plain, running(guarded) as watched:
        free, held = (asyncio.run(one_by_one(engine)) for engine in (plain, watched))
        crowd = asyncio.run(said(watched, *asks))
    caught = guarded.module.letheon_guards[0].caught(prompts)
    assert caught == [True] * 4 + [False] * 6
    for flag, a, b, c in zip(caught, free, held, crowd, strict=True):
        assert (a == b) is not flag  # to the bit: the log-probabilities of all tokens are compared too
        assert b[:3] == c[:3]


def test_text_behind_the_template_does_not_slip_past_a_guard(subject, guarded, questions):
    """A bare forward pass takes what follows the template for an answer; a server knows that the client wrote it."""
    text = subject.encoder.prompt_text("What is two and two?") + f"Four. {questions[0]}"
    prompt = (*subject.encoder.begin, *subject.encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
    with running(subject) as plain, running(guarded) as watched:
        free, held = (asyncio.run(said(engine, Ask(prompt, 4, logprobs=1)))[0] for engine in (plain, watched))
    assert free[3] != held[3]


def test_an_answer_that_nobody_reads_is_given_up(subject, questions):
    prompts = prompts_of(subject, questions)

    async def leave(engine):
        pieces = aiter(engine.submit([Ask(prompts[0], 200)]))
        await anext(pieces)
        await pieces.aclose()
        other = await said(engine, Ask(prompts[1], 3))
        for _ in range(200):
            if not engine.running:
                break
            await asyncio.sleep(0.01)
        return other, engine.running

    with running(subject) as engine:
        other, left = asyncio.run(leave(engine))
    assert other[0][2] == 3 and left == 0


@pytest.fixture
def held(monkeypatch):
    """No token is chosen before the second of these events; the first says that one is due."""
    reached, go, chosen = threading.Event(), threading.Event(), engines.chosen

    def wait(*args):
        reached.set()
        go.wait(10)
        return chosen(*args)

    monkeypatch.setattr(engines, "chosen", wait)
    return reached, go


def test_a_full_queue_and_an_ending_engine_refuse(subject, questions, held):
    prompt, (reached, go) = prompts_of(subject, questions[:1])[0], held

    async def crowd(engine):
        first = engine.submit([Ask(prompt, 200)])
        assert await asyncio.to_thread(reached.wait, 10)
        second = engine.submit([Ask(prompt, 200)])
        with pytest.raises(Busy, match="1 answers are waiting, and no more than 1 may"):
            engine.submit([Ask(prompt, 200)])
        engine.close(drop=True)
        with pytest.raises(Busy, match="ending"):
            engine.submit([Ask(prompt, 1)])
        go.set()
        for answers in (first, second):
            with pytest.raises(Busy, match="ending"):
                async for _ in answers:
                    pass

    with running(subject, ServeSettings(batch=1, queue=1)) as engine:
        asyncio.run(crowd(engine))


def test_answers_that_nobody_reads_any_more_take_no_place_in_the_queue(subject, questions, held):
    prompt, (reached, go) = prompts_of(subject, questions[:1])[0], held

    async def crowd(engine):
        first = asyncio.create_task(said(engine, Ask(prompt, 2)))
        assert await asyncio.to_thread(reached.wait, 10)
        gone = asyncio.create_task(said(engine, Ask(prompt, 2)))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        second = asyncio.create_task(said(engine, Ask(prompt, 2)))
        await asyncio.sleep(0)
        go.set()
        return await first, await second

    with running(subject, ServeSettings(batch=1, queue=1)) as engine:
        first, second = asyncio.run(crowd(engine))
    assert first == second


def test_time_cuts_an_answer_and_a_failure_reaches_only_its_own(subject, questions, monkeypatch):
    prompt = prompts_of(subject, questions[:1])[0]
    with running(subject, ServeSettings(request_seconds=2)) as engine:
        chosen = engines.chosen
        monkeypatch.setattr(engines, "chosen", lambda *args: (time.sleep(0.2), chosen(*args))[1])
        found = asyncio.run(said(engine, Ask(prompt, 200)))[0]
        assert found[1] == "length" and 0 < found[2] < 20
        monkeypatch.setattr(engines, "chosen", lambda *args: 1 / 0)
        with pytest.raises(Broken, match="ZeroDivisionError"):
            asyncio.run(said(engine, Ask(prompt, 2)))
        monkeypatch.setattr(engines, "chosen", chosen)
        assert asyncio.run(said(engine, Ask(prompt, 2)))[0][2] == 2

"""Answers are written while another thread changes or audits models: serving takes no turn, and both come out as they do alone."""

from __future__ import annotations

import asyncio
import threading

import letheon as lt
from letheon.core.data import Example
from letheon.core.generate import greedy
from letheon.core.turns import TURN
from letheon.serve.engine import Ask, Engine
from letheon.serve.settings import ServeSettings
from letheon.testing.toys import toy_data, toy_subject


async def said(engine: Engine, ask: Ask) -> str:
    return "".join([piece.text async for _, piece in engine.submit([ask])])


def test_answers_do_not_wait_for_a_turn():
    subject = toy_subject(3)
    prompt = tuple(subject.encoder.prompts([Example("0", "", "Where was Ilva born?")])[0])
    wanted = subject.encoder.decode(greedy(subject, [prompt], 12)[0])
    engine = Engine(subject, ServeSettings())
    heard: list[str] = []

    def ask() -> None:
        heard.append(asyncio.run(said(engine, Ask(prompt, 12))))

    try:
        with TURN:  # as long as a change holds it
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(60)
        assert heard == [wanted]
    finally:
        engine.close(drop=True, wait=True)


def test_another_subject_may_be_changed_and_audited_meanwhile():
    subject, served, data = toy_subject(4), toy_subject(3), toy_data()
    run = lt.Run(device="cpu", dtype="float32")
    prompt = tuple(served.encoder.prompts([Example("0", "", "Where was Ilva born?")])[0])

    def work() -> tuple[str, float | None]:
        after = lt.method("npo", steps=3).apply(subject, data, run)
        return after.digest, lt.audit("perplexity", subject, data, run).value("after", "perplexity")

    alone, wanted = work(), served.encoder.decode(greedy(served, [prompt], 40)[0])
    engine = Engine(served, ServeSettings())
    heard: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            heard.append(asyncio.run(said(engine, Ask(prompt, 40))))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        assert work() == alone
    finally:
        done.set()
        asking.join(60)
        engine.close(drop=True, wait=True)
    assert heard and set(heard) == {wanted}

"""Threads take turns: what they make and measure is what one after another makes and measures."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import letheon as lt
from letheon.core.quiet import quiet
from letheon.core.readings import Readings
from letheon.core.turns import TURN, in_turn
from letheon.testing.toys import toy_data, toy_subject


def at_once(work: Any, n: int) -> list[Any]:
    """What `work(k)` gives in n threads that begin together."""
    ready = threading.Barrier(n)

    def one(k: int) -> Any:
        ready.wait()
        return work(k)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(one, range(n)))


def run() -> lt.Run:
    return lt.Run(3, device="cpu", dtype="float32")


@pytest.mark.parametrize("parameters", ["all", "lora:rank=2"])
def test_a_seed_gives_the_same_bits_in_every_thread(parameters):
    subject, data = toy_subject(), toy_data()
    before, state = subject.digest, torch.random.get_rng_state()

    def erase(_: int = 0) -> str:
        return lt.method("npo", steps=4, parameters=parameters).apply(subject, data, run()).digest

    alone = erase()
    assert at_once(erase, 4) == [alone] * 4 and alone != before
    assert subject.digest == before and torch.equal(torch.random.get_rng_state(), state)


def test_audits_of_one_subject_in_threads_find_what_they_find_one_after_the_other():
    subject, data = toy_subject(), toy_data()

    def audit(_: int = 0) -> Any:
        return lt.audit("general", subject, data, run(), retrained=subject, limit=4, max_new_tokens=4, attacks="none").models

    alone = audit()
    assert at_once(audit, 2) == [alone] * 2 and len(alone["after"]) > 10
    norms = at_once(lambda _: Readings(subject, run()).gradient_norms(data["forget"]), 3)
    assert all((one == norms[0]).all() for one in norms) and not any(part._forward_hooks for part in subject.module.modules())


def test_a_turn_is_held_by_one_thread_which_may_take_it_again_and_is_given_back_after_an_error():
    inside, most = 0, 0

    @in_turn
    def work(k: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        with TURN, quiet():
            threading.Event().wait(0.001)
        inside -= 1
        if k % 2:
            raise ValueError("odd")
        return k

    def tried(k: int) -> int | None:
        try:
            return work(k)
        except ValueError:
            return None

    assert at_once(tried, 4) == [0, None, 2, None] and (inside, most) == (0, 1)
    assert at_once(lambda _: TURN.acquire(blocking=False) and TURN.release() is None, 1) == [True]

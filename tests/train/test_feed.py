"""The feed: counts, micro-steps under a budget, tied splits, and what is drawn at all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from letheon.core.data import Data
from letheon.core.encode import Encoded
from letheon.core.registry import make
from letheon.core.settings import Choice
from letheon.testing._cases import quiet_run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.feed import Feed
from letheon.train.frozen import frozen_nll
from letheon.train.loop import feed_for
from letheon.train.samplers.cyclic import Cyclic
from letheon.train.samplers.paired import Paired


def encoded(lengths, starts=None) -> Encoded:
    rows = [list(range(100 * i, 100 * i + length)) for i, length in enumerate(lengths)]
    return Encoded.from_rows(rows, [1] * len(lengths) if starts is None else starts)


def feed(budget: int, plan=(), **lengths) -> Feed:
    splits = {name: each if isinstance(each, Encoded) else encoded(each) for name, each in lengths.items()}
    return Feed(Data({}), splits, list(plan), 0, torch.device("cpu"), budget)


def test_counts_are_scored_tokens_and_rows():
    one = feed(100, forget=encoded([5, 3, 4], starts=[2, 0, 3]), retain=[9])
    counts = one.counts({"forget": np.array([0, 1, 2, 1]), "retain": np.array([0])})
    assert counts["forget", "sequence"] == 4
    assert counts["forget", "token"] == (5 - 2) + (3 - 1) + (4 - 3) + (3 - 1)  # a first token is never scored
    assert counts["retain", "token"] == 8 and counts["retain", "sequence"] == 1


def test_a_row_that_comes_up_twice_in_a_step_is_measured_once(monkeypatch):
    """Each of two processes measures its batches, and the numbers of both are added up."""
    subject, data = toy_subject(), toy_data()
    one = feed_for(make(Choice(name="npo", steps=2, tokens_per_batch=64), "erase"), subject, data, quiet_run())
    rows = np.array([3, 0, 1, 2, 3, 0, 1, 2, 3, 4])
    wanted, both = frozen_nll(subject, one, "forget", quiet_run(), np.arange(5)), []
    for rank in (0, 1):
        monkeypatch.setattr("letheon.train.feed.processes", SimpleNamespace(size=lambda: 2, rank=lambda rank=rank: rank))
        both.append(frozen_nll(subject, one, "forget", quiet_run(), rows))
    assert all(float(found[:5].abs().max()) > 0 for found in both), "both have some"
    torch.testing.assert_close(sum(both), wanted, rtol=1e-5, atol=0, equal_nan=True)


def padded(one: Feed, piece) -> int:
    longest = max(int(one.encoded[split].lengths[rows].max()) for split, rows in piece.items())
    return longest * sum(len(rows) for rows in piece.values())


lists = st.lists(st.integers(2, 30), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(forget=lists, retain=lists, budget=st.integers(16, 400), least=st.integers(1, 4))
def test_micro_steps_cut_a_step_without_losing_or_doubling_a_row(forget, retain, budget, least):
    one = feed(budget, forget=forget, retain=retain)
    step = {"forget": np.arange(len(forget)), "retain": np.arange(len(retain))}
    micro = one.micro_steps(step, ("forget",), least)
    assert len(micro) >= least
    for split, rows in step.items():
        assert sorted(i for piece in micro for i in piece.get(split, ())) == rows.tolist()
    if len(micro) < max(len(forget), len(retain)):
        assert all(padded(one, piece) <= budget for piece in micro if piece)
    if len(micro) > least:
        whole = {split: rows[np.argsort(-one.encoded[split].lengths[rows], kind="stable")] for split, rows in step.items()}
        fewer = [{s: np.array_split(r, len(micro) - 1)[k] for s, r in whole.items()} for k in range(len(micro) - 1)]
        assert any(padded(one, {s: r for s, r in piece.items() if len(r)}) > budget for piece in fewer), "no more pieces than needed"


def test_tied_splits_stay_aligned_and_are_sorted_by_their_longer_row():
    one = feed(40, forget=[3, 9, 4, 8], idk=[9, 2, 3, 3], retain=[5, 5, 5, 5])
    step = {"forget": np.array([0, 1, 2, 3]), "idk": np.array([0, 1, 2, 3]), "retain": np.array([3, 2, 1, 0])}
    micro = one.micro_steps(step, ("forget", "idk"))
    assert len(micro) > 1
    for piece in micro:
        assert piece["forget"].tolist() == piece["idk"].tolist()
    assert [i for piece in micro for i in piece["forget"]] == [0, 1, 3, 2]  # longer of the two: 9, 9, 4, 8


def test_used_and_sweep_hold_what_the_plan_draws_and_nothing_else():
    plan = [{"forget": np.array([3, 1])}, {"forget": np.array([1]), "retain": np.array([0])}]
    one = feed(8, plan, forget=[4, 5, 6, 7], retain=[3, 3])
    assert one.used("forget").tolist() == [1, 3] and one.used("retain").tolist() == [0] and one.used("none").tolist() == []
    swept = [row for batch in one.sweep("forget") for row in batch.rows.tolist()]
    assert swept == [3, 1], "longest first"


def test_a_batch_holds_the_rows_it_names():
    one = feed(100, forget=[4, 2])
    batch = one.batches({"forget": np.array([1, 0])})["forget"]
    assert batch.ids.tolist() == [[100, 101, 0, 0], [0, 1, 2, 3]]
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.scored_mask.tolist() == [[False, True, False, False], [False, True, True, True]]


def test_cyclic_gives_every_retain_row_its_turn():
    """8 leading rows, 12 partners: after 3 epochs of 8 draws each partner has come exactly twice."""
    drawn = [i for epoch in range(3) for step in Cyclic().epoch({"f": 8, "r": 12}, "f", 3, quiet_run(), epoch) for i in step["r"].tolist()]
    assert np.bincount(drawn, minlength=12).tolist() == [2] * 12
    first = drawn[:12]
    assert sorted(first) == list(range(12)) and first != list(range(12))


@pytest.mark.parametrize("fixed", [True, False])
def test_paired_keeps_partners_only_where_it_is_told_to(fixed):
    def partners(epoch):
        steps = Paired(fixed=fixed).epoch({"f": 30, "r": 50}, "f", 4, quiet_run(), epoch)
        return {int(f): int(r) for step in steps for f, r in zip(step["f"], step["r"], strict=True)}

    assert (partners(0) == partners(1)) is fixed
    assert len(set(partners(0).values())) == 30, "no partner twice while others are left"

"""Fine-tuning on refusals: the joint mean, and what it does with and without retain rows."""

from __future__ import annotations

import pytest
import torch

from letheon.erase.idk import IDK

from .fact_world import gradient, refused, said, trainer

FACTS = {"steps": 60, "learning_rate": 2e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0}


def sums(ready, rows) -> dict[str, tuple[float, int]]:
    """split -> summed nll and number of answer tokens, one row at a time."""
    found = {}
    for split in ("refusal", "retain"):
        encoded, total, tokens = ready.feed.encoded[split], 0.0, 0
        for i in rows[split]:
            ids, start = torch.from_numpy(encoded.row(int(i)).astype("int64")), int(encoded.starts[i])
            with torch.no_grad():
                logp = ready.subject.module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
            total -= float(logp.gather(-1, ids[start:, None]).sum())
            tokens += len(ids) - start
        found[split] = total, tokens
    return found


@pytest.mark.parametrize("budget", [48, 1 << 20])
def test_the_loss_is_one_mean_over_the_tokens_of_both_parts(stranger, fact_data, run, budget):
    ready = trainer(IDK(batch_size=6, tokens_per_batch=budget), stranger, fact_data, run)
    rows = ready.feed.plan[0]
    assert sorted(rows) == ["refusal", "retain"]  # forget answers are never read
    measured, meant = ready.gradients(rows), sums(ready, rows)
    assert measured.loss == pytest.approx(sum(s for s, _ in meant.values()) / sum(n for _, n in meant.values()), rel=1e-5)


def test_each_part_can_have_its_own_mean(stranger, fact_data, run):
    ready = trainer(IDK(batch_size=6, joint=False), stranger, fact_data, run)
    rows = ready.feed.plan[0]
    measured, meant = ready.gradients(rows), sums(ready, rows)
    assert measured.loss == pytest.approx(sum(s / n for s, n in meant.values()), rel=1e-5)
    joint = gradient(trainer(IDK(batch_size=6), stranger, fact_data, run))
    assert float((gradient(ready) - joint).abs().max()) > 1e-3


@pytest.mark.parametrize("joint", [True, False])
def test_a_bound_that_comes_from_the_start_counts_as_the_steps_do(stranger, fact_data, run, joint):
    """Two steps hold the retain rows that `primal-dual` asks for: its bound is 1.5 times the mean that the steps themselves log."""
    rule = {"name": "primal-dual", "start_rows": 12, "slack": 0.5, "margin": 0.0}
    ready = trainer(IDK(batch_size=6, steps=2, joint=joint, rule=rule), stranger, fact_data, run)
    found = [sums(ready, rows) for rows in ready.feed.plan]
    held, read = (sum(each["retain"][k] for each in found) for k in (0, 1))
    read += joint * sum(each["refusal"][1] for each in found)
    assert ready.rule.epsilon == pytest.approx(1.5 * held / read, rel=1e-5)
    logged = ready.gradients(ready.feed.plan[0]).means["retain"]
    assert logged == pytest.approx(found[0]["retain"][0] / (found[0]["retain"][1] + joint * found[0]["refusal"][1]), rel=1e-5)


def test_with_retain_rows_only_forget_questions_are_refused(knower, fact_data, run):
    after = IDK(**FACTS).apply(knower, fact_data, run)
    assert refused(after, fact_data, "forget") > 0.9
    assert refused(after, fact_data, "retain") < 0.05
    assert said(after, fact_data["retain"]).exact > 0.95


def test_without_retain_rows_everything_is_refused(knower, fact_data, run):
    after = IDK(retain="none", **FACTS).apply(knower, fact_data, run)
    assert refused(after, fact_data, "forget") > 0.95
    assert refused(after, fact_data, "retain") > 0.6
    assert said(after, fact_data["retain"]).exact < 0.05

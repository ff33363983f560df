"""DTO: what the card says a correct implementation must show."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from letheon.core.batching import collate
from letheon.core.data import Data, Example, Split
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.erase import dto
from letheon.erase.dto import DTO, leaning
from letheon.maths.likelihood import Scores
from letheon.train.rules.sum import Sum

from .fact_world import gradient, trainer

WHOLE = {"batch_size": 24, "suffix": 0.25}  # of seven answer tokens the last two are the end: five can be targets
FACTS = {"steps": 20, "learning_rate": 1e-3, "draws": 4, "schedule": "constant", "warmup": 0.0, **WHOLE}


def token_nll(subject, data) -> torch.Tensor:
    """(24, 7), with gradient."""
    encoded = subject.encoder.encode(data["forget"])
    batches = Batches({"forget": collate(encoded, range(24), subject.encoder.pad)})
    return batches.nll(subject.module, "forget").values.view(24, 7)


def test_a_model_that_reads_nothing_has_no_scores(stranger, fact_data, run):
    blind = stranger.fork()
    with torch.no_grad():
        blind.module.get_input_embeddings().weight.zero_()
    feed = trainer(DTO(**WHOLE, draws=1), stranger, fact_data, run).feed
    assert leaning(blind, feed, 0, 5, 3, run.rng("test")).tolist() == [0.0] * 5
    assert float(leaning(stranger, feed, 0, 5, 3, run.rng("test")).abs().min()) > 0


def test_scores_find_planted_keys_and_only_the_end_is_looked_at(knower, fact_data, run, monkeypatch):
    ready = trainer(DTO(**WHOLE, draws=1), knower, fact_data, run)
    own = torch.from_numpy(ready.feed.encoded["forget"].row(3).astype("int64"))
    start, length = int(ready.feed.encoded["forget"].starts[3]), len(own)
    keys = torch.zeros(length)
    keys[start : start + 5] = torch.tensor([0.06, 8.9, 0.1, 5.0, 0.02])

    def planted(subject, encoded, owner, **_):
        assert subject is knower and len(set(owner)) == 1
        rows = torch.stack([torch.from_numpy(encoded.row(k).astype("int64")) for k in range(len(encoded))])
        assert set(encoded.starts.tolist()) == {start + 5} and rows.shape == (21, length)
        changed = rows != own
        assert int(changed.sum(-1).max()) <= 1
        return (1.5 + (changed * keys).sum(-1)).double().numpy()

    monkeypatch.setattr(dto, "sums_of_ends", planted)
    found = leaning(knower, ready.feed, 3, 5, 4, run.rng("test"))
    torch.testing.assert_close(found, keys[start : start + 5], rtol=0, atol=1e-6)


def test_scores_are_those_of_whole_rows_read_one_by_one(stranger, fact_data, run):
    feed = trainer(DTO(**WHOLE, draws=1), stranger, fact_data, run).feed
    encoded, generator = feed.encoded["forget"], run.rng("test")
    own, start = torch.from_numpy(encoded.row(2).astype("int64")), int(encoded.starts[2])
    plain = [k for k in range(len(stranger.encoder.tokenizer)) if k not in stranger.encoder.tokenizer.all_special_ids]

    def end(ids):
        logits = stranger.module(ids[None]).logits[0].detach().double().log_softmax(-1)
        return -sum(float(logits[at - 1, ids[at]]) for at in range(start + 5, len(ids)))

    wanted = []
    for at in range(start, start + 5):
        others, total = [k for k in plain if k != int(own[at])], 0.0
        for k in torch.randint(len(others), (3,), generator=generator):
            changed = own.clone()
            changed[at] = others[int(k)]
            total += end(changed) / 3
        wanted.append(total - end(own))
    assert leaning(stranger, feed, 2, 5, 3, run.rng("test")).tolist() == pytest.approx(wanted, abs=2e-5)


def test_targets_are_the_top_share_and_the_same_for_every_seed(knower, fact_data):
    masks = []
    for seed in (0, 1):
        ready = trainer(DTO(**WHOLE, targets=0.2), knower, fact_data, Run(seed, dtype="float32", device="cpu"))
        masks.append(ready.objective.is_target.view(24, 7))
        assert ready.objective.counted.tolist() == [1] * 24
    assert torch.equal(*masks)
    assert masks[0].sum(0).tolist() == [0, 0, 0, 0, 24, 0, 0]  # "is", from which the value is predicted


def test_all_targets_without_kl_is_ascent_on_the_scored_tokens(knower, fact_data, run):
    """Also once the weights have moved, where the KL has a gradient to give way to."""
    ready, twin = trainer(DTO(**WHOLE, targets=1.0, draws=1, retain_weight=0.0), knower, fact_data, run), knower.fork()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for mine, other in zip(ready.parameters, twin.module.parameters(), strict=True):
            other += 0.1 * other.std() * torch.randn(other.shape, generator=generator)
            mine.copy_(other)
    found = gradient(ready)
    twin.module.requires_grad_(True)
    parameters = list(twin.module.parameters())
    meant = torch.autograd.grad(-token_nll(twin, fact_data)[:, :5].mean(), parameters)
    meant = torch.cat([part.flatten() for part in meant])
    torch.testing.assert_close(found, meant, rtol=1e-3, atol=1e-4 * float(meant.abs().max()))


def test_no_targets_is_self_distillation_with_no_gradient_at_the_start(knower, fact_data, run):
    ready = trainer(DTO(**WHOLE, targets=0.0, draws=1, rule="sum"), knower, fact_data, run)
    measured = ready.gradients(ready.feed.plan[0])
    assert measured.means["forget"] == 0.0
    assert measured.means["retain"] == pytest.approx(0, abs=1e-6)
    moved = gradient(trainer(DTO(**WHOLE, draws=1, rule="sum"), knower, fact_data, run))
    assert float(gradient(ready).abs().max()) < 1e-3 * float(moved.abs().max())


def test_the_ascent_gives_way_where_it_conflicts(knower, fact_data, run):
    ready = trainer(DTO(**FACTS), knower, fact_data, run)
    for _ in range(8):
        ready.advance()
    rows = ready.feed.plan[0]
    yielding = gradient(ready, rows).clone()
    ready.rule = Sum()
    plain = gradient(ready, rows).clone()
    held = trainer(DTO(**{**FACTS, "forget_weight": 0.0, "rule": "sum"}), knower, fact_data, run)
    with torch.no_grad():
        for mine, other in zip(held.parameters, ready.parameters, strict=True):
            mine.copy_(other)
    kept = gradient(held, rows)
    assert float((plain - kept) @ kept) < 0  # they do conflict
    left = yielding - kept
    assert float(left @ kept) >= -1e-4 * float(left.norm() * kept.norm())


def test_targets_collapse_and_the_other_tokens_of_the_same_answers_stay(knowers, fact_data):
    moved = []
    for seed, knower in enumerate(knowers):
        method = DTO(**{**FACTS, "steps": 30, "learning_rate": 5e-4}, targets=0.2)
        ready = trainer(method, knower, fact_data, Run(seed, dtype="float32", device="cpu"))
        target = ready.objective.is_target.view(24, 7)
        before = (-token_nll(knower, fact_data)).exp().detach()
        while ready.step < 30:
            ready.advance()
        after = (-token_nll(ready.subject, fact_data)).exp().detach()
        assert float(before[target].mean()) > 0.99
        moved.append((float(after[target].mean()), float((after - before)[~target].abs().mean())))
    targets, others = map(fmean, zip(*moved, strict=True))
    assert targets < 0.1 and others < 0.05


def test_the_end_is_a_share_of_the_tokens_and_not_what_rounding_leaves(knower, fact_data, run):
    """(1 - 0.8) * 5 is 0.9999999999999998: of five tokens one lies before the end, and is the target."""
    rows = [Example(f"{k}", f"the home of p{k}", f"what is the home of p{k} ?") for k in range(3)]
    ready = trainer(DTO(batch_size=3, suffix=0.8, draws=1), knower, Data({"forget": Split(rows, "forget")}), run)
    assert ready.objective.is_target.view(3, 5).tolist() == [[True, False, False, False, False]] * 3


def test_an_answer_too_short_to_cut_has_targets_only(knower, run):
    rows = [Example(f"{k}", "home1", f"what is the home of p{k} ?") for k in range(3)]
    ready = trainer(DTO(batch_size=3, suffix=0.75), knower, Data({"forget": Split(rows, "forget")}), run)
    assert bool(ready.objective.is_target.all()) and len(ready.objective.is_target) == 6
    assert ready.gradients(ready.feed.plan[0]).means["retain"] == 0.0

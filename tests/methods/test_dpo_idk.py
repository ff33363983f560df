"""IDK-DPO: what the card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.core.data import Data
from letheon.core.errors import DataError
from letheon.core.run import Run
from letheon.erase._refusals import REFUSALS, with_refusals
from letheon.erase.dpo_idk import DPOIDK
from letheon.erase.npo import NPO
from letheon.maths.preference import preference_loss

from .fact_world import gradient, on_each, refused, said_by_all, trainer
from .preset import NOBODY, Preset

COUNTS = {"forget": [3, 5, 1], "refusal": [4, 2, 6]}


def mean_loss(case: Preset, beta: float, frozen: dict[str, torch.Tensor]) -> torch.Tensor:
    method = DPOIDK(beta=beta)
    method.frozen = frozen
    return method.loss(NOBODY, case.batches)["forget"].total / len(case.counts["forget"])


def own_nll(case: Preset) -> dict[str, torch.Tensor]:
    return {split: case.nll(split).detach() for split in case.counts}


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_value_at_the_start_is_two_ln_two_over_beta(stranger, fact_data, run, beta):
    ready = trainer(DPOIDK(beta=beta, batch_size=24), stranger, fact_data, run)
    assert ready.gradients(ready.feed.plan[0]).means["forget"] == pytest.approx(2 / beta * math.log(2), rel=1e-5)


def test_without_a_winner_it_is_npo_to_the_bit():
    case = Preset(COUNTS)
    frozen = own_nll(case)
    frozen["forget"] += torch.tensor([-3.0, 1.0, 4.0], dtype=torch.float64)
    measured = case.batches.nll(None, "refusal").per_row().detach()
    still = mean_loss(case, 0.3, {**frozen, "refusal": measured})  # the refusals have not moved: their log-ratio is exactly 0
    npo = NPO(beta=0.3)
    npo.frozen = frozen["forget"]
    alone = npo.loss(NOBODY, case.batches)["forget"].total / 3
    assert torch.equal(still, alone)
    assert torch.equal(case.grad(still), case.grad(alone))
    loser = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(preference_loss(loser, 0.1), preference_loss(loser, 0.1, torch.zeros(50)))


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_gradient_at_the_start_does_not_depend_on_beta(beta):
    case = Preset(COUNTS)
    value = mean_loss(case, beta, own_nll(case))
    plain = (case.nll("refusal") - case.nll("forget")).mean()  # mean of log p(answer) - log p(refusal)
    for split in COUNTS:
        found = torch.autograd.grad(value, case.logits[split], retain_graph=True)[0]
        meant = torch.autograd.grad(plain, case.logits[split], retain_graph=True)[0]
        torch.testing.assert_close(found, meant, rtol=0, atol=1e-10)


def test_answers_and_refusals_to_the_same_question_stay_together_however_a_step_is_cut(stranger, fact_data, run):
    ready = trainer(DPOIDK(batch_size=7, tokens_per_batch=64), stranger, fact_data, run)
    pieces = 0
    for rows in ready.feed.plan:
        for piece in ready.feed.micro_steps(rows, ready.objective.tied):
            asked = [fact_data["forget"][i].prompt for i in piece["forget"]]
            assert asked == [ready.feed.data["refusal"][i].prompt for i in piece["refusal"]]
            pieces += 1
    assert pieces > 2 * len(ready.feed.plan)


def test_refusals_are_drawn_per_row_and_epoch_and_repeat_with_the_seed(fact_data):
    settings = DPOIDK(epochs=4).settings
    first, again, other = (with_refusals(fact_data, settings, Run(seed), "x")["refusal"] for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert len(first) == 4 * 24
    assert len({row.answer for row in first}) == 8  # all refusals of the data are used
    assert any(first[i].answer != first[24 + i].answer for i in range(24))
    assert {row.answer for row in first} <= {row.answer for row in fact_data["refusals"]}


def test_built_in_refusals_are_used_where_the_data_has_none(fact_data):
    data = Data({"forget": fact_data["forget"]})
    assert {row.answer for row in with_refusals(data, DPOIDK().settings, Run(0), "x")["refusal"]} <= set(REFUSALS)
    assert len(set(REFUSALS)) == len(REFUSALS) >= 20


def test_plain_text_is_refused(stranger, fact_data, run):
    from letheon.core.data import Example, Split

    data = Data({"forget": Split([Example("t", "some text")], "forget"), "retain": fact_data["retain"]})
    with pytest.raises(DataError, match="row `t` of `forget` has no prompt"):
        DPOIDK().apply(stranger, data, run)


def test_cached_refusals_equal_a_live_second_model(stranger, fact_data, run):
    ready = trainer(DPOIDK(batch_size=24, steps=1), stranger, fact_data, run)
    split, found = ready.feed.data["refusal"], ready.objective.frozen["refusal"]
    encoded = stranger.encoder.encode(split)
    for i in (0, 11, 23):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logp = stranger.module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
        assert float(found[i]) == pytest.approx(-float(logp.gather(-1, ids[start:, None]).sum()), rel=1e-5)
    assert gradient(ready).isfinite().all()


def test_it_forgets_and_keeps_the_rest(knowers, fact_data):
    settings = {"steps": 60, "learning_rate": 1e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0}
    after = on_each(DPOIDK(**settings), knowers, fact_data)
    forget, retain = said_by_all(after, fact_data["forget"]), said_by_all(after, fact_data["retain"])
    assert forget.value < 0.5 and forget.exact < 0.25
    assert retain.value > 0.9 and retain.exact > 0.9
    assert refused(after[0], fact_data, "retain") < 0.05

"""Logit flattening: what the card of PDU says of its loss."""

from __future__ import annotations

import pytest
import torch

from letheon.erase.logit_flattening import LogitFlattening

from .fact_world import gradient, on_each, said_by_all, trainer
from .preset import NOBODY, Preset, V


def loss(case: Preset, live: int | None = None) -> torch.Tensor:
    method = LogitFlattening()
    method.live = live
    return method.loss(NOBODY, case.batches)["forget"].total


def test_a_constant_on_all_logits_changes_nothing():
    case = Preset({"forget": [3, 5]})
    value, found = float(loss(case)), case.grad(loss(case))
    with torch.no_grad():
        case.logits["forget"] += torch.linspace(-50, 50, 8, dtype=torch.float64)[:, None]
    assert float(loss(case)) == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(case.grad(loss(case)), found, rtol=0, atol=1e-10)


def test_flat_logits_and_no_others_give_zero():
    case = Preset({"forget": [2]})
    assert float(loss(case)) > 1
    with torch.no_grad():
        case.logits["forget"].fill_(3.0)
    assert float(loss(case)) == 0.0 and float(case.grad(loss(case)).abs().max()) == 0.0
    with torch.no_grad():
        case.logits["forget"][1, 4] -= 1e-3
    assert float(loss(case)) > 0 and float(case.grad(loss(case)).abs().max()) > 0


@pytest.mark.parametrize("live", [None, V - 3])
def test_logit_gradient_is_the_closed_form_and_leaves_padding_alone(live):
    case = Preset({"forget": [3, 5, 1, 8]})
    with torch.no_grad():
        case.logits["forget"][:, V - 1] = -1e4 if live else 0.0  # as untrained rows may be
    z = case.logits["forget"].detach()[:, :live]
    peak = z.max(-1, keepdim=True).values - z.mean(-1, keepdim=True)
    top = torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).double()
    meant = torch.nn.functional.pad(2 * peak * (top - 1 / z.shape[-1]), (0, V - z.shape[-1]))
    torch.testing.assert_close(case.grad(loss(case, live)), meant, rtol=0, atol=1e-10)


def test_only_the_positions_that_predict_the_answer_count(knower, fact_data, run):
    ready = trainer(LogitFlattening(batch_size=24), knower, fact_data, run)
    measured = ready.gradients(ready.feed.plan[0])
    encoded, meant = knower.encoder.encode(fact_data["forget"]), []
    for i in range(24):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logits = knower.module(input_ids=ids[None]).logits[0, start - 1 : -1].double()
        meant.append((logits.amax(-1) - logits.mean(-1)).square())
    assert measured.means["forget"] == pytest.approx(float(torch.cat(meant).mean()), rel=1e-5)


def test_terms_add_up_with_their_fixed_weights(knower, fact_data, run):
    one, retain = 1.5, 40.0
    both = gradient(trainer(LogitFlattening(batch_size=24, forget_weight=one, retain_weight=retain), knower, fact_data, run))
    flat = gradient(trainer(LogitFlattening(batch_size=24, forget_weight=1.0, retain_weight=0.0), knower, fact_data, run))
    kept = gradient(trainer(LogitFlattening(batch_size=24, forget_weight=0.0, retain_weight=1.0), knower, fact_data, run))
    torch.testing.assert_close(both, one * flat + retain * kept, rtol=1e-4, atol=1e-4 * float(both.abs().max()))


def test_answers_become_uninformative_and_a_weight_of_one_wrecks_the_rest(knowers, fact_data):
    settings = {"steps": 18, "learning_rate": 1e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0}
    after = (on_each(LogitFlattening(**settings, **more), knowers, fact_data) for more in ({"retain_weight": 1.0}, {}))
    light, heavy = ({name: said_by_all(each, fact_data[name]) for name in ("forget", "retain")} for each in after)
    assert light["forget"].value < 0.15 and light["retain"].template < 0.3
    assert heavy["forget"].value < 0.5 and heavy["forget"].exact < 0.2
    assert heavy["retain"].value > light["retain"].value + 0.3 and heavy["retain"].template > light["retain"].template + 0.3

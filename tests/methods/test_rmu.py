"""RMU: what the card says a correct implementation must show."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import torch

from letheon.core.data import Data, Example, Split
from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.erase.rmu import RMU

from .fact_world import on_each, said, said_by_all, trainer

FACTS = {"layer": 1, "steps": 100, "learning_rate": 1e-3, "batch_size": 24}


def answer_states(subject, split: Split, layer: int) -> list[torch.Tensor]:
    """Output of a block at the answer tokens of each row, (tokens, d), from whole rows, one at a time."""
    encoded, found = subject.encoder.encode(split), []
    for i in range(len(split)):
        ids = torch.from_numpy(encoded.row(i).astype("int64"))[None]
        got = []
        handle = subject.module.model.layers[layer].register_forward_hook(lambda part, given, out, got=got: got.append(out))
        with torch.no_grad():
            subject.module(input_ids=ids)
        handle.remove()
        found.append(got[0][0, encoded.starts[i] :])
    return found


def test_start_values_are_zero_for_hold_and_the_masked_mean_for_forget(knower, fact_data, run):
    ready = trainer(RMU(layer=1, batch_size=24), knower, fact_data, run)
    measured = ready.gradients(ready.feed.plan[0])
    v = ready.objective.steer
    rows = [(states - v).square().mean(-1).mean() for states in answer_states(knower, fact_data["forget"], 1)]
    assert measured.means["forget"] == pytest.approx(float(torch.stack(rows).mean()), rel=1e-4)
    assert measured.means["hold"] == pytest.approx(0, abs=1e-8)
    only = trainer(RMU(layer=1, batch_size=24, forget_weight=0.0), knower, fact_data, run)
    only.gradients(only.feed.plan[0])
    both = max(float(p.grad.abs().max()) for p in ready.parameters)
    assert max(float(p.grad.abs().max()) for p in only.parameters) < 1e-4 * both


def test_the_direction_has_the_length_asked_for_and_stays(knower, fact_data, run):
    ready = trainer(RMU(layer=1, coefficient=2.0, batch_size=24, steps=3), knower, fact_data, run)
    norm = torch.cat([states.norm(dim=-1) for states in answer_states(knower, fact_data["forget"], 1)]).mean()
    before = ready.objective.steer.clone()
    assert float(before.norm()) == pytest.approx(2 * float(norm), rel=1e-4)
    assert float(before.min()) >= 0  # drawn from [0, 1)
    for _ in range(3):
        ready.advance()
    assert torch.equal(before, ready.objective.steer)
    again, other = (
        trainer(RMU(layer=1, coefficient=2.0, batch_size=24, steps=3), knower, fact_data, Run(seed, dtype="float32", device="cpu"))
        for seed in (0, 1)
    )
    assert torch.equal(before, again.objective.steer)
    assert not torch.allclose(before, other.objective.steer)


def test_only_the_down_projections_up_to_the_block_move(knower, fact_data, run):
    after = RMU(layer=1, steps=3, learning_rate=1e-3).apply(knower, fact_data, run)
    moved = {
        name
        for (name, new), (_, old) in zip(after.module.named_parameters(), knower.module.named_parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert moved == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}
    assert after.lineage[-1].notes["block"] == "model.layers.1"


def test_epochs_without_steps_are_what_is_made(stranger, fact_data, run):
    assert len(trainer(RMU(layer=1, epochs=2), stranger, fact_data, run).feed.plan) == 2 * 6
    assert (RMU().settings.steps, RMU(epochs=2, steps=7).settings.steps, RMU(steps=7).settings.steps) == (150, 7, 7)
    given = RMU(epochs=2).settings
    assert given.steps is None and type(given)(**given.model_dump()) == given


@pytest.mark.parametrize("rule", ["sum", "pcgrad"])
def test_a_space_that_ends_before_it_begins_to_matter_is_one_sentence(stranger, fact_data, run, rule):
    with pytest.raises(MethodError, match="No weight that may move has a part in the loss of `rmu`"):
        RMU(layer=0, steps=2, parameters="layers:pattern=layers.1", rule=rule).apply(stranger, fact_data, run)


def test_prompt_tokens_do_not_count(knower, fact_data, run):
    ready = trainer(RMU(layer=1), knower, fact_data, run)
    batches = ready.feed.batches({"forget": np.arange(4)})
    batch = batches["forget"]
    states = ready.objective.states(ready.subject, batches)["forget"]
    assert len(states) == int((batch.lengths - batch.starts).sum())
    direct = torch.cat(answer_states(knower, fact_data["forget"][:4], 1))
    torch.testing.assert_close(states.detach(), direct, rtol=0, atol=1e-4)


def test_all_tokens_of_plain_text_count(stranger, run):
    rows = [Example("a", "the home of p1 is home1"), Example("b", "the bird of p2")]
    data = Data({"forget": Split(rows, "forget"), "retain": Split([Example("c", "the craft of p9")], "retain")})
    ready = trainer(RMU(), stranger, data, run)
    states = ready.objective.states(stranger, ready.feed.batches({"forget": np.arange(2)}))["forget"]
    assert len(states) == 6 + 1 + 4 + 1  # words and end tokens; the begin token is no text


def test_cached_retain_states_equal_a_live_second_model(knower, fact_data, run):
    ready = trainer(RMU(layer=1, steps=None, epochs=1, batch_size=24), knower, fact_data, run)
    live = answer_states(knower, fact_data["retain"], 1)
    assert len(ready.objective.held) == 24
    for row, states in ready.objective.held.items():
        torch.testing.assert_close(states, live[row], rtol=0, atol=1e-4)


def test_later_blocks_run_only_for_a_retain_term_on_the_output(knower, fact_data, run):
    calls = []
    handle = knower.module.model.layers[2].register_forward_hook(lambda *_: calls.append(1))
    try:
        trainer(RMU(layer=1), knower, fact_data, run)
        assert not calls
        ready = trainer(RMU(layer=1, hold=0.0, retain="kl"), knower, fact_data, run)
        assert calls
    finally:
        handle.remove()
    assert set(ready.gradients(ready.feed.plan[0]).means) == {"forget", "retain"}


@pytest.mark.parametrize("rule", ["geometric", "pcgrad"])
def test_terms_of_separate_rules_are_those_of_one_pass(rule, knower, fact_data, run):
    """A rule that wants each term's own gradient makes a pass per split; the values are the same."""
    settings = {"layer": 1, "batch_size": 24, "retain": "nll"}
    one, apart = (trainer(RMU(**settings, rule=name), knower, fact_data, run) for name in ("sum", rule))
    found = [each.gradients(each.feed.plan[0]).means for each in (one, apart)]
    assert found[0].keys() == found[1].keys() == {"forget", "hold", "retain"}
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-6)


def cosine_and_drift(before, after, data) -> tuple[float, float]:
    """Mean cosine of forget states to their common direction, and the relative movement of retain states."""
    forget = torch.cat(answer_states(after, data["forget"], 1))
    direction = torch.nn.functional.normalize(forget.mean(0), dim=0)
    then, now = (torch.cat(answer_states(s, data["retain"][:40], 1)) for s in (before, after))
    return float((torch.nn.functional.normalize(forget, dim=-1) @ direction).mean()), float((now - then).norm() / then.norm())


def test_it_steers_forget_states_and_holds_the_rest(knowers, fact_data):
    steered = on_each(RMU(**FACTS), knowers, fact_data)
    forget, retain = said_by_all(steered, fact_data["forget"]), said_by_all(steered, fact_data["retain"])
    assert forget.exact < 0.1 and forget.value < 0.4
    assert retain.value > 0.75 and retain.template > 0.85
    pairs = [cosine_and_drift(before, after, fact_data) for before, after in zip(knowers, steered, strict=True)]
    common, drift = map(fmean, zip(*pairs, strict=True))
    assert common > 0.7 > drift  # 0.9 where nothing is held


def test_a_strong_hold_forgets_less_and_none_destroys(knower, fact_data, run):
    strong = RMU(**{**FACTS, "coefficient": 2.0, "hold": 100.0}).apply(knower, fact_data, run)
    assert said(strong, fact_data["forget"]).value > 0.8 and said(strong, fact_data["retain"]).value > 0.95
    none = RMU(**{**FACTS, "coefficient": 0.25, "hold": 0.0}).apply(knower, fact_data, run)
    assert said(none, fact_data["retain"]).template < 0.7 and said(none, fact_data["retain"]).exact < 0.1


def test_a_block_that_is_not_there(stranger, fact_data, run):
    with pytest.raises(MethodError, match="`layer` must be below 3, the number of blocks, got 7"):
        RMU(layer=7).apply(stranger, fact_data, run)


def test_the_layer_reaches_the_parameter_space():
    assert RMU(layer=5).settings.parameters.settings == {"layer": 5}
    assert RMU(layer=5, parameters="down-projections:count=1").settings.parameters.settings == {"layer": 5, "count": 1}
    assert RMU(layer=5, parameters="all").settings.parameters.settings == {}

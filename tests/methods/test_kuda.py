"""KUDA: what the card says a correct implementation must show."""

from __future__ import annotations

import itertools
import logging
import math
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F

from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.erase._confined import Confined
from letheon.erase._linears import linear_layers
from letheon.erase._tracing import best_window, causal_effects, noise, probability, replaced, spans
from letheon.erase.kuda import KUDA, deviations
from letheon.maths.null_space import null_projector
from letheon.maths.preference import preference_loss
from letheon.testing import toy_data, toy_subject
from letheon.train.taps import block_names

from .fact_world import gradient, said, trainer

FAST = {"layer": 0, "window": 2, "batch_size": 24, "retain": "none"}


def quiet(seed: int = 0, **more) -> Run:
    return Run(seed, dtype="float32", device="cpu", **more)


def inputs(n: int = 200, d: int = 12, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Correlated inputs with a mean, (n, d), whose directions have energies that fall by the factor `spread`."""
    generator = torch.Generator().manual_seed(seed)
    scale = spread ** torch.arange(d, dtype=torch.float64)
    mixed = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) * scale) @ mixed.T + 0.1


def test_value_and_slope_of_the_loss():
    """(2 / b) ln 2 at 0; slope -2 sigmoid(-b d): -1 at 0 for every b, constant -1 as b -> 0, dying for large b d."""
    for beta in (0.1, 1.0, 10.0):
        assert float(preference_loss(torch.zeros(1, dtype=torch.float64), beta)) == pytest.approx(2 / beta * math.log(2), rel=1e-12)
        d = torch.linspace(0, 2, 9, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(preference_loss(d, beta).sum(), d)
        torch.testing.assert_close(slope, -2 * torch.sigmoid(-beta * d.detach()), rtol=0, atol=1e-12)
        assert float(slope[0]) == -1.0
    (flat,) = torch.autograd.grad(preference_loss(d, 1e-6).sum(), d)
    torch.testing.assert_close(flat, -torch.ones_like(flat), rtol=0, atol=1e-5)


def test_size_does_not_matter_and_the_start_is_a_saddle():
    generator = torch.Generator().manual_seed(0)
    now, then = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64).unbind()
    d = deviations(now, then)
    torch.testing.assert_close(deviations(30.0 * now, then), d, rtol=0, atol=1e-12)
    assert float(d.min()) >= 0 and float(d.max()) <= 2
    torch.testing.assert_close(deviations(-then, then), torch.full((6,), 2.0, dtype=torch.float64))
    same = then.clone().requires_grad_()
    (found,) = torch.autograd.grad(deviations(same, then).sum(), same)
    assert float(found.abs().max()) < 1e-15
    (off,) = torch.autograd.grad(deviations(same, then + 1e-3 * now).sum(), same)
    assert float(off.abs().max()) > 1e-5


def test_confined_layers_are_those_of_w_plus_d_p_under_adam():
    """Five steps against an explicit D in float64: forward, gradient through Adam, and the folded weight."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    a = inputs(30, spread=0.5)
    p = null_projector(a.T @ a / 30, 0.05)
    frozen, bias = (net[0].weight.detach().clone(), net[0].bias.detach().clone())
    x, goal = inputs(9, seed=4), torch.randn(9, 3, dtype=torch.float64)
    confined = Confined(net, {"0": p})
    before = net(x).detach()
    confined.attach(net)
    torch.testing.assert_close(net(x), before, rtol=0, atol=1e-12)
    d = torch.zeros_like(frozen, requires_grad=True)
    mine, plain = torch.optim.Adam(net.parameters(), lr=1e-2), torch.optim.Adam([d], lr=1e-2)
    for _ in range(5):
        mine.zero_grad(), plain.zero_grad()
        (net(x) - goal).square().mean().backward()
        direct = F.linear(torch.tanh(F.linear(x, frozen + d @ p, bias)), net[2].weight.detach(), net[2].bias.detach())
        (direct - goal).square().mean().backward()
        torch.testing.assert_close(net[0].weight.grad, d.grad, rtol=0, atol=1e-12)
        assert not net[0].bias.grad.any() and not net[2].weight.grad.any()
        mine.step(), plain.step()
    inside = net(x).detach()
    confined.fold(net)
    torch.testing.assert_close(net[0].weight, frozen + d.detach() @ p, rtol=0, atol=1e-10)
    torch.testing.assert_close(net(x), inside, rtol=0, atol=1e-12)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    dead = (torch.eye(12, dtype=torch.float64) - p) @ torch.randn(12, 4, dtype=torch.float64)
    assert float(((net[0].weight - frozen) @ dead).abs().max()) < 1e-12  # P a = 0: the output is that of W to rounding


SPACES = ["layers", "all", "lora:rank=2", "lora:rank=2,targets=down_proj", "fila:rank=2", "sure"]


@pytest.mark.parametrize("space", SPACES)
def test_only_the_window_moves_and_only_in_free_directions_whatever_the_parameter_space(space):
    before = toy_subject()
    method = KUDA(steps=4, layer=1, window=1, learning_rate=1e-2, gamma=0.2, parameters=space, batch_size=4)
    after = method.apply(before, toy_data(), quiet())
    layers = {name: part.weight for name, part in linear_layers(before.module).items() if ".1." in name}
    old = before.module.state_dict()
    moved = {
        name.removesuffix(".weight") for name, new in after.module.state_dict().items() if float((new - old[name]).abs().max()) > 1e-6
    }  # merged adapters leave rounding
    assert moved and moved <= set(layers) and ("targets" in space or moved == set(layers))
    assert not any(part._forward_hooks or part._forward_pre_hooks for module in (before.module, after.module) for part in module.modules())
    assert not any(p._backward_hooks for module in (before.module, after.module) for p in module.parameters())
    for name in moved:
        change = (after.module.get_submodule(name).weight - layers[name]).detach().double()
        p = method.confined.projectors[name].double()
        assert float((change - change @ p).norm()) < 1e-4 * float(change.norm())
        assert after.lineage[-1].notes["free_directions"][name] == round(float(p.trace()))


@pytest.mark.parametrize("rule", ["sum", "geometric:metric=euclidean", "pcgrad:yields=forget"])
def test_the_loss_of_the_step_is_that_of_states_read_row_by_row_under_every_rule(rule):
    subject, data = toy_subject(), toy_data()
    ready = trainer(KUDA(steps=2, layer=0, window=2, batch_size=3, noise=0.5, rule=rule, retain="nll"), subject, data, quiet())
    measured, rows = ready.gradients(ready.feed.plan[0]), ready.feed.plan[0]["forget"]
    encoded, each = subject.encoder.encode(data["forget"]), []
    for row in rows:
        ids, start, got = torch.from_numpy(encoded.row(int(row)).astype("int64")), int(encoded.starts[row]), []
        handles = [block.register_forward_hook(lambda part, given, out, got=got: got.append(out)) for block in subject.module.model.layers]
        with torch.no_grad():
            subject.module(input_ids=ids[None])
        for handle in handles:
            handle.remove()
        then = ready.objective.then[ready.objective.placed.places(ready.feed.batch("forget", [int(row)]))]
        each += [preference_loss(deviations(now[0, start - 1 : -1], then[:, k]), 1.0) for k, now in enumerate(got)]
    assert measured.means["forget"] == pytest.approx(float(torch.cat(each).mean()), rel=1e-5)
    assert "retain" in measured.means


def test_without_noise_nothing_pulls_at_the_start_and_with_it_the_deviation_grows(knower, fact_data):
    pulls = {}
    for size in (0.0, 1e-3, 1e-2):
        ready = trainer(KUDA(**FAST, noise=size, gamma=1.0), knower, fact_data, quiet())
        assert ready.gradients(ready.feed.plan[0]).means["forget"] == pytest.approx(2 * math.log(2), abs=1e-3)
        pulls[size] = float(gradient(ready).norm())
    assert pulls[0.0] < 0.02 * pulls[1e-3] and pulls[1e-2] == pytest.approx(10 * pulls[1e-3], rel=0.2)
    ready = trainer(KUDA(**FAST, gamma=1.0, steps=6, learning_rate=1e-3, warmup=0.0, noise=1e-3), knower, fact_data, quiet())
    losses = [ready.advance()["forget"] for _ in range(6)]
    assert all(b < a for a, b in itertools.pairwise(losses))


def test_no_share_moves_nothing_and_says_when_too_little_was_measured(knower, fact_data, caplog):
    with caplog.at_level(logging.WARNING, logger="letheon"):
        after = KUDA(**FAST, gamma=0.0, measured=8, steps=2, learning_rate=1e-2).apply(knower, fact_data, quiet())
    assert "say little about the" in caplog.text
    caplog.clear()
    assert any("blocks" in step.notes for step in after.lineage)
    with caplog.at_level(logging.WARNING, logger="letheon"):
        whole = KUDA(**FAST, gamma=0.0, steps=2, learning_rate=1e-2).apply(knower, fact_data, quiet())
    assert not caplog.text
    for name, weight in knower.module.state_dict().items():
        torch.testing.assert_close(whole.module.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_tracing_with_everything_restored_is_the_clean_run_and_with_nothing_the_corrupted_one(knower, fact_data):
    ready = trainer(KUDA(**FAST), knower, fact_data, quiet())
    module, batch = knower.module, ready.feed.batch("forget", [0, 5, 9])
    where = spans(knower, ready.feed, "forget", [0, 5, 9])
    assert [knower.encoder.tokenizer.decode(batch.ids[i, first:stop]) for i, (first, stop) in enumerate(where)] == ["p0", "p1", "p2"]
    added = noise(knower, batch, where, quiet())
    mask = added.abs().sum(-1) > 0
    assert mask.sum(-1).tolist() == [stop - first for first, stop in where]
    embed, blocks = module.get_input_embeddings(), [module.get_submodule(name) for name in block_names(module)]
    assert float(added[mask].std() / embed.weight.std()) == pytest.approx(3, rel=0.3)
    with torch.no_grad():
        clean, kept = probability(module, batch), []
        handles = [block.register_forward_hook(lambda part, given, out: kept.append(out)) for block in blocks]
        module(input_ids=batch.ids)
        for handle in handles:
            handle.remove()
        with replaced({embed: lambda out: out + added}):
            lost = probability(module, batch)
            with replaced({block: lambda out, then=then: then for block, then in zip(blocks, kept, strict=True)}):
                torch.testing.assert_close(probability(module, batch), clean, rtol=1e-6, atol=0)
            with replaced({}):
                assert torch.equal(probability(module, batch), lost)
    assert float(lost.mean()) < 0.9 * float(clean.mean())
    assert not embed._forward_hooks


@pytest.mark.parametrize("carrier", [0, 1])
def test_tracing_finds_the_one_layer_that_carries_the_fact(stranger, fact_data, carrier):
    """All other feed-forward layers give 0, restored or not: their effects are exactly 0."""
    toy = stranger.fork()
    with torch.no_grad():
        for k, layer in enumerate(toy.module.model.layers):
            layer.mlp.down_proj.weight.mul_(8.0 if k == carrier else 0.0)
    ready = trainer(KUDA(**FAST), toy, fact_data, quiet())
    effects = causal_effects(toy, ready.feed, list(range(24)), 0, quiet())
    assert [k for k, effect in enumerate(effects.tolist()) if effect != 0] == [carrier]
    wide = causal_effects(toy, ready.feed, list(range(24)), 1, quiet())
    assert [effect != 0 for effect in wide.tolist()] == [abs(k - carrier) <= 1 for k in range(3)]
    again = causal_effects(toy, ready.feed, list(range(24)), 0, quiet())
    assert torch.equal(effects, again)


def test_the_window_has_the_largest_sum():
    effects = torch.tensor([0.5, 0.0, 0.3, 0.3, 0.0])
    assert [best_window(effects, width) for width in (1, 2, 3, 9)] == [0, 2, 0, 0]


def test_it_runs_with_every_sampler_and_on_text_and_the_layer_can_be_given(knower, fact_data):
    after = KUDA(steps=1, layer=1, window=5, sampler="cyclic").apply(knower, fact_data, quiet())
    assert after.lineage[-1].notes["blocks"] == ["model.layers.1", "model.layers.2"] and after.lineage[-1].notes["effects"] is None
    with pytest.raises(MethodError, match="`layer` must be below 3"):
        KUDA(layer=3, steps=1).apply(knower, fact_data, quiet())
    with pytest.raises(MethodError, match="None of the weights that may move belongs to"):
        KUDA(layer=0, steps=1, parameters="layers:pattern=self_attn").apply(knower, fact_data, quiet())


def test_facts_go_and_the_others_are_kept_by_the_null_space_and_more_so_with_a_retain_term(knower, fact_data):
    settings = {"layer": 0, "window": 2, "steps": 40, "learning_rate": 3e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0}
    found = {}
    for gamma, retain in ((0.02, "none"), (1.0, "none"), (0.1, "kl")):
        after = [KUDA(**settings, gamma=gamma, retain=retain).apply(knower, fact_data, quiet(seed)) for seed in (0, 1)]
        found[gamma] = [fmean(said(one, fact_data[split]).value for one in after) for split in ("forget", "retain")]
    assert max(forget for forget, _ in found.values()) < 0.2
    assert found[0.02][1] > 0.25 and found[1.0][1] < 0.1  # nothing protected: all is lost
    assert found[0.1][1] > 0.75


def digits(gamma: float, beta: float = 1.0, hold: float = 0.0) -> tuple[float, float, float]:
    """A small classifier of digits forgets the threes by its middle layer: accuracy on them, on the rest, and mean deviation."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.tensor(found.data[::4], dtype=torch.float32) / 16, torch.tensor(found.target[::4])
    generator = torch.Generator().manual_seed(0)
    w = [(2 / i) ** 0.5 * torch.randn(o, i, generator=generator) for o, i in ((64, 64), (64, 64), (10, 64))]
    w = [part.requires_grad_() for part in w]

    def logits(middle: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = F.linear(F.linear(x, w[0]).relu(), middle)
        return h, F.linear(h.relu(), w[2])

    optimizer = torch.optim.Adam(w, lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(logits(w[1], x)[1], y).backward()
        optimizer.step()
    w = [part.detach() for part in w]
    threes, a = y == 3, F.linear(x, w[0]).relu()
    p = null_projector(a[~threes].T @ a[~threes] / float((~threes).sum()), gamma).float()
    then, told = logits(w[1], x)
    d = (1e-3 * torch.randn(64, 64, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([d], lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        now, said = logits(w[1] + d @ p, x)
        moved = deviations(now[threes], then[threes])
        divergence = F.kl_div(said[~threes].log_softmax(-1), told[~threes].log_softmax(-1), log_target=True, reduction="batchmean")
        (preference_loss(moved, beta).mean() + hold * divergence).backward()
        optimizer.step()
    right = logits(w[1] + d.detach() @ p, x)[1].argmax(-1) == y
    return float(right[threes].float().mean()), float(right[~threes].float().mean()), float(moved.detach().mean())


def test_digits_the_share_decides_what_is_forgotten_and_what_is_kept():
    nothing, some, more, all_of_it = (digits(gamma) for gamma in (0.0, 0.01, 0.1, 1.0))
    assert min(nothing[:2]) > 0.98 and abs(nothing[2]) < 1e-4
    assert more[0] < 0.3 and more[1] > 0.75  # three quarters of the rest and more, where nothing protected leaves less than half
    assert all_of_it[1] < 0.5
    assert nothing[2] < some[2] < more[2] < all_of_it[2] and nothing[1] >= some[1] > more[1] > all_of_it[1]
    held = digits(0.1, hold=1.0)
    assert held[0] < 0.3 and held[1] > 0.95  # with a retain term beside it the rest is whole
    assert digits(0.02, beta=0.1)[2] > digits(0.02, beta=10.0)[2] + 0.1

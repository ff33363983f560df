"""K-FADE: what the card says a correct implementation must show."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from letheon.core.batching import by_length, collate
from letheon.core.data import Data
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.run import Run, kept_as_found
from letheon.core.subject import Subject
from letheon.erase._curved import Drift, curvature, gradient, joined, mean_nll, write
from letheon.erase._linears import linear_layers
from letheon.erase.grad_ascent import GradAscent
from letheon.erase.k_fade import KFade, read_update
from letheon.maths.curvature import Basis, Curvature, SecondMoment, sampled_scores, trust_step

from .fact_world import trainer

SHORT = {"target": 2.0, "sample": 64, "kept_apart": 24, "steps": 25}


def moment(rows: torch.Tensor, count: float = 1.0, largest: int = 99) -> Basis:
    """The eigenbasis of rows^T rows / count."""
    found = SecondMoment(rows.shape[1], largest, rows)
    found.add(rows)
    return found.basis(count)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches(subject: Subject, split) -> list:
    encoded = subject.encoder.encode(split)
    return [collate(encoded, rows, subject.encoder.pad) for rows in by_length(encoded.lengths, 4096)]


def test_one_step_on_a_quadratic_is_the_fit_without_the_forget_rows():
    x, y = random(40, 6), random(40, 3, seed=1)
    forget, retain = slice(0, 8), slice(8, 40)

    def fit(rows):
        return torch.linalg.lstsq(x[rows], y[rows]).solution.T  # (o, i)

    start = fit(slice(0, 40))
    grad = (x[forget] @ start.T - y[forget]).T @ x[forget]
    eye = moment(torch.eye(3, dtype=torch.float64))
    step = Curvature.kfac(eye, moment(x[retain])).preconditioned(grad, 0.0)
    assert (start + step - fit(retain)).abs().max() < 1e-10
    assert (start - step - fit(retain)).abs().max() > 1e-2  # downhill
    wrong = Curvature.kfac(eye, moment(x)).preconditioned(grad, 0.0)  # curvature of all rows
    assert (start + wrong - fit(retain)).abs().max() > 1e-3


def curved() -> tuple[Curvature, torch.Tensor]:
    """A curvature from random factors, and a gradient."""
    return Curvature.kfac(moment(random(50, 4), 50), moment(random(50, 7, seed=1), 50)), random(4, 7, seed=2)


def test_the_inverse_agrees_with_the_dense_kronecker_product():
    s, a = random(50, 4).T @ random(50, 4) / 50, random(50, 7, seed=1).T @ random(50, 7, seed=1) / 50
    one, grad = curved()
    dense = torch.kron(s, a)  # of row-major vec(D)
    damped = dense + 0.3 * one.values.mean() * torch.eye(28, dtype=torch.float64)
    torch.testing.assert_close(one.preconditioned(grad, 0.3), torch.linalg.solve(damped, grad.flatten()).view(4, 7), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.cost(grad), 0.5 * torch.trace(grad.T @ s @ grad @ a), rtol=1e-10, atol=0)
    torch.testing.assert_close(one.values.mean(), dense.trace() / 28, rtol=1e-10, atol=0)


def test_much_damping_and_flat_factors_give_plain_ascent():
    one, grad = curved()
    torch.testing.assert_close(one.preconditioned(grad, 1e9) * 1e9 * one.values.mean(), grad, rtol=1e-6, atol=1e-6)
    flat = Curvature.kfac(moment(torch.eye(4, dtype=torch.float64)), moment(torch.eye(7, dtype=torch.float64)))
    torch.testing.assert_close(flat.preconditioned(grad, 0.0), grad, rtol=1e-12, atol=1e-12)


def test_the_step_costs_what_the_trust_region_allows_and_forgets_the_scale_of_the_loss():
    one, grad = curved()

    def step(factor: float, damping: float) -> torch.Tensor:
        direction = {"w": one.preconditioned(factor * grad, damping)}
        return trust_step(direction, {"w": factor * grad}, 1e-3) * direction["w"]

    assert float(one.cost(step(1.0, 0.0))) == pytest.approx(1e-3, rel=1e-9)
    assert float(one.cost(step(1.0, 0.1))) < 1e-3
    torch.testing.assert_close(step(1.0, 0.1), step(700.0, 0.1), rtol=1e-9, atol=0)
    assert trust_step({"w": 0 * grad}, {"w": 0 * grad}, 1e-3) == 0


def test_a_wide_factor_is_cut_into_diagonal_blocks():
    rows = random(30, 7)
    whole, cut = rows.T @ rows, moment(rows, largest=3)
    assert [len(block) for block in cut.vectors] == [3, 2, 2]
    blocks = torch.block_diag(whole[:3, :3], whole[3:5, 3:5], whole[5:, 5:])
    torch.testing.assert_close(cut.back(cut.turn(torch.eye(7, dtype=torch.float64)) * cut.values), blocks, rtol=1e-10, atol=1e-10)


def test_drawn_labels_have_the_moments_of_the_fisher_matrix():
    logits = torch.tensor([7.0, 0.0, 1.0, -1.0], dtype=torch.float64)  # sure of its token
    p, n = logits.softmax(-1), 200_000
    draws = torch.rand(n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    label, factor = sampled_scores(logits.expand(n, 4), draws)
    score = factor[:, None] * (torch.eye(4, dtype=torch.float64)[label] - p)
    fisher = torch.diag(p) - torch.outer(p, p)
    assert (score.T @ score / n - fisher).abs().max() < 0.02 * fisher.max()
    assert score.mean(0).abs().max() < 4 * float(fisher.max().sqrt()) / math.sqrt(n)
    assert float((label > 0).double().mean()) > 0.4 > 0.1 > float(p[1:].sum())  # plain draws would say token 0 nearly always
    true = torch.eye(4, dtype=torch.float64)[0] - p  # the empirical Fisher of a fitted row all but vanishes
    assert float(true @ true) < 0.01 * float(fisher.trace())


def test_the_last_layer_sees_diag_p_minus_p_p(stranger, fact_data, run):
    subject = stranger
    rows = batches(subject, fact_data["retain"][:60])
    with torch.no_grad():
        logits = torch.cat([subject.module(input_ids=b.ids).logits[b.scored_mask.roll(-1, 1)] for b in rows]).double()
    p = logits.softmax(-1)
    fisher = torch.diag(p.mean(0)) - p.T @ p / len(p)
    drawn = []
    for k in range(12):
        draws = torch.rand(len(logits), 2, generator=run.rng("test", k), dtype=torch.float64)
        label, factor = sampled_scores(logits, draws)
        score = factor[:, None] * (torch.nn.functional.one_hot(label, p.shape[1]) - p)
        drawn.append(score.T @ score / len(p))
    found = torch.stack(drawn).mean(0)
    assert float((found - fisher).norm() / fisher.norm()) < 0.35 and float(found.trace()) == pytest.approx(float(fisher.trace()), rel=0.05)


@pytest.mark.parametrize("measured", [True, False])
def test_the_predicted_kl_of_one_layer_is_near_the_measured_one(knower, fact_data, run, measured):
    module = copy.deepcopy(knower.module)
    rows = batches(knower, fact_data["retain"][:60])
    layers = {name: part for name, part in linear_layers(module).items() if name == "model.layers.1.mlp.down_proj"}
    with kept_as_found(module):
        one = curvature(module, layers, rows, run, measured=measured, prompts=False, largest=4096)["model.layers.1.mlp.down_proj"]
        drift, part = Drift(module, rows, False), layers["model.layers.1.mlp.down_proj"]
        start = joined(part, part.weight, part.bias)
        change = torch.randn(start.shape, generator=run.rng("change"))
        change *= math.sqrt(1e-4 / float(one.cost(change)))
        write(part, start + change)
        ratio = drift.now() / float(one.cost(change))
    assert 0.4 < ratio < 2.5


def test_the_gradient_is_that_of_the_mean_answer_nll(knower, fact_data):
    module, rows = copy.deepcopy(knower.module), batches(knower, fact_data["forget"])
    layers = linear_layers(module)
    with kept_as_found(module):
        grads, level = gradient(module, layers, rows)
        assert level == pytest.approx(mean_nll(module, rows), rel=1e-5)
        name, part = next(iter(layers.items()))
        start, up = joined(part, part.weight, part.bias), 1e-2 * grads[name] / grads[name].norm()
        values = []
        for sign in (1, -1):
            write(part, start + sign * up)
            values.append(mean_nll(module, rows))
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(grads[name].norm()), rel=0.02)


@pytest.fixture(scope="module")
def faded(knower, fact_data, tmp_path_factory):
    """The knower after K-FADE, and the stored update."""
    path = tmp_path_factory.mktemp("k-fade") / "update.safetensors"
    return KFade(**SHORT, store=str(path)).apply(knower, fact_data, Run(0, dtype="float32", device="cpu")), path


def test_the_same_forgetting_costs_a_third_of_the_retain_kl_of_ascent(knower, fact_data, run, faded):
    after, _ = faded
    forget, retain = batches(knower, fact_data["forget"]), batches(knower, fact_data["retain"])
    notes = after.lineage[-1].notes
    assert notes["reached"] and mean_nll(after.module, forget) == pytest.approx(2.0, abs=0.05)
    drift = Drift(knower.module, retain, False)
    drift.module = after.module
    mine = drift.now()
    costs = []
    for rate in (1e-4, 3e-4):
        settings = {"steps": 300, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "retain": "none"}
        ascent = trainer(GradAscent(**settings, learning_rate=rate), knower, fact_data, run)
        while mean_nll(ascent.subject.module, forget) < 2.0:
            ascent.advance()
        drift.module = ascent.subject.module
        costs.append(drift.now())
    assert min(costs) > 3 * mine


def test_only_the_chosen_layers_move(knower, faded):
    moved = {name for name, new in faded[0].module.named_parameters() if not torch.equal(new, knower.module.get_parameter(name))}
    assert moved == {f"{name}.weight" for name in linear_layers(knower.module)}


def test_a_stored_update_is_added_to_a_later_fine_tune(knower, fact_data, run, faded):
    after, path = faded
    again = KFade(update=str(path)).apply(knower, fact_data, run)
    assert all(torch.equal(tensor, again.module.state_dict()[name]) for name, tensor in after.module.state_dict().items())
    later = copy.deepcopy(knower.module)
    with torch.no_grad():
        later.lm_head.weight += 0.01
        next(iter(linear_layers(later).values())).weight += 1e-3
    tuned = Subject(later, knower.encoder)
    found = KFade(update=str(path)).apply(tuned, fact_data, run)
    name, part = next(iter(linear_layers(found.module).items()))
    torch.testing.assert_close(part.weight, linear_layers(later)[name].weight + read_update(path)[name], rtol=0, atol=1e-6)
    notes = found.lineage[-1].notes
    assert notes["forget_nll"][1] > 1.5 > 0.5 > notes["forget_nll"][0] and 0 < notes["retain_kl"] < 1


def test_a_step_that_breaks_its_promise_is_undone(knower, fact_data, run):
    """So large a trust region would destroy the model; the measured KL stays within `slack` of it, or within the budget."""
    after = KFade(**{**SHORT, "steps": 1, "trust": 5.0, "budget": 0.05}).apply(knower, fact_data, run)
    assert after.lineage[-1].notes["retain_kl"] <= 0.05
    with pytest.raises(MethodError, match="No step of `k-fade`"):
        KFade(**{**SHORT, "steps": 1, "trust": 5.0, "budget": 1e-12}).apply(knower, fact_data, run)


def test_it_works_in_bfloat16(knower, fact_data, run):
    half = Subject(copy.deepcopy(knower.module).to(torch.bfloat16), knower.encoder)
    after = KFade(**{**SHORT, "steps": 3}).apply(half, fact_data, run)
    assert {parameter.dtype for parameter in after.module.parameters()} == {torch.bfloat16}
    began, ended = after.lineage[-1].notes["forget_nll"]
    assert ended > began + 0.05


def test_what_it_refuses(knower, fact_data, run, tmp_path):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(copy.deepcopy(knower.module), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(SubjectError, match="has an adapter around them. Merge it first"):
        KFade().apply(Subject(wrapped, knower.encoder), fact_data, run)
    with pytest.raises(DataError, match="at least 2 retain rows"):
        KFade().apply(knower, Data({"forget": fact_data["forget"], "retain": fact_data["retain"][:1]}), run)
    with pytest.raises(MethodError, match="stops at 1e-06. Give a higher `target`"):
        KFade(target=1e-6, sample=16).apply(knower, fact_data, run)
    with pytest.raises(DataError, match="There is no update at"):
        KFade(update=str(tmp_path / "none")).apply(knower, fact_data, run)
    (tmp_path / "bad").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="is damaged"):
        KFade(update=str(tmp_path / "bad")).apply(knower, fact_data, run)


def test_an_update_of_another_shape(stranger, fact_data, run, faded):
    with pytest.raises(SubjectError, match="does not fit `memoriser`. Same architecture, same `layers`"):
        KFade(update=str(faded[1]), layers="attention").apply(stranger, fact_data, run)

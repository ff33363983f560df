"""Adapters in the forget subspace of a layer's outputs, and the term that keeps them off the retain directions."""

from __future__ import annotations

import pytest
import torch

from letheon.core.errors import DataError
from letheon.core.run import Run, kept_as_found
from letheon.testing._cases import subject_logits
from letheon.testing._changes import trainer_for
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject
from letheon.train.loop import feed_for
from letheon.train.parameters._adapters import NAME, layers, matrix
from letheon.train.parameters.reglu import ReGLU, leak, second_moment, subspaces, summed_outputs

from .plain import Ascent, trainer

RUN = Run(0, device="cpu", dtype="float32")


def moment(h: torch.Tensor) -> torch.Tensor:
    return h.T @ h / len(h)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inside(q: torch.Tensor, space: torch.Tensor) -> float:
    """|P q|_F^2 / columns: 1 where the columns of q lie in the span of the orthonormal columns of `space`."""
    return float((space.T @ q).square().sum()) / q.shape[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_function_stays_and_the_base_is_cut_or_reflected(architecture, scale):
    """B' B = I, A = B' W, and B' (W - s B A) = (1 - s) B' W: nothing for s = 1, minus B' W for s = 2."""
    subject = toy_subject(architecture=architecture)
    objective = Ascent(steps=1, parameters=f"reglu:rank=4,alpha={4 * scale}", retain="nll")
    opened = trainer_for(objective, subject, toy_data(), RUN).subject
    seen = 0
    for name, layer in layers(opened.module):
        b, a, w = layer.lora_B[NAME].weight, layer.lora_A[NAME].weight, matrix(subject.module.get_submodule(name))
        assert torch.allclose(b.T @ b, torch.eye(4), atol=1e-5)
        assert torch.allclose(a, b.T @ w, atol=1e-5)
        assert torch.allclose(b.T @ matrix(layer.base_layer), (1 - scale) * b.T @ w, atol=1e-5)
        seen += 1
    assert seen == {"llama": 14, "gpt2": 8}[architecture]
    assert float((subject_logits(opened) - subject_logits(subject)).abs().max()) < 1e-4


def test_a_rank_beyond_the_outputs_fills_up_like_lora():
    """k_proj of the toy has 16 outputs: 16 of 20 columns of B are orthonormal, the others 0 with random rows of A, and may move."""
    opened = trainer_for(Ascent(steps=1, parameters="reglu:rank=20"), toy_subject(), toy_data(), RUN).subject
    layer = dict(layers(opened.module))["model.layers.0.self_attn.k_proj"]
    b, a = layer.lora_B[NAME].weight.detach(), layer.lora_A[NAME].weight.detach()
    assert torch.allclose(b[:, :16].T @ b[:, :16], torch.eye(16), atol=1e-5) and not b[:, 16:].any()
    assert float(a[16:].abs().min()) > 0


def test_planted_variance_is_found_for_any_beta():
    """Forget varies on axes 0 to 3, retain on 4 to 9."""
    forget, retain = torch.zeros(200, 16, dtype=torch.float64), torch.zeros(200, 16, dtype=torch.float64)
    forget[:, :4], retain[:, 4:10] = normal(200, 4), normal(200, 6, seed=1)
    axes = torch.eye(16, dtype=torch.float64)
    for beta in (0.05, 0.5, 0.7, 0.95):
        q, held = subspaces(moment(forget), moment(retain), 4, 6, beta, 1e-4)
        assert torch.allclose(q.T @ q, torch.eye(4, dtype=torch.float64)) and inside(q, axes[:, :4]) > 1 - 1e-9
        assert inside(held, axes[:, 4:10]) > 1 - 1e-9


def test_the_two_ends_of_beta():
    """beta = 0: the uncentred principal directions of forget, largest first. beta = 1: the smallest eigenspace of retain."""
    forget, retain = normal(300, 10) @ normal(10, 10, seed=1) + 3, normal(300, 10, seed=2) @ normal(10, 10, seed=3)
    q, _ = subspaces(moment(forget), moment(retain), 3, 5, 0.0, 1e-4)
    principal = torch.linalg.svd(forget).Vh[:3].T
    assert torch.allclose((q * principal).sum(0).abs(), torch.ones(3, dtype=torch.float64))
    q, held = subspaces(moment(forget), moment(retain), 3, 5, 1.0, 1e-4)
    right = torch.linalg.svd(retain).Vh.T
    assert inside(q, right[:, -3:]) > 1 - 1e-9
    assert torch.allclose((held * right[:, :5]).sum(0).abs(), torch.ones(5, dtype=torch.float64))


def test_the_leak_and_its_gradient():
    """0 for columns orthogonal to Q_r, r inside it, |B|^2 for k = out; d/dB = 2 Q_r Q_r' B."""
    basis = torch.linalg.qr(normal(12, 12)).Q
    held, rest = basis[:, :5], basis[:, 5:]
    assert float(leak(rest @ normal(7, 3), held)) == pytest.approx(0, abs=1e-20)
    assert float(leak(held[:, 1:4], held)) == pytest.approx(3)
    b = normal(12, 3, seed=4).requires_grad_()
    assert float(leak(b, basis).detach()) == pytest.approx(float(b.detach().square().sum()))
    (gradient,) = torch.autograd.grad(leak(b, held), b)
    assert torch.allclose(gradient, 2 * held @ held.T @ b)


@pytest.mark.parametrize("rule", ["sum", "geometric"])
@pytest.mark.parametrize("budget", [16, None])
def test_the_term_counts_once_per_step_however_the_step_is_cut(rule, budget):
    """With no other weight in the loss, the gradient is weight * 2 Q_r Q_r' B on B and 0 on A, and the logged loss is that term."""
    space = {"name": "reglu", "rank": 3, "weight": 0.25, "retain_rank": 6}
    objective = Ascent(steps=1, forget_weight=0.0, retain="nll", retain_weight=0.0, parameters=space, rule=rule, tokens_per_batch=budget)
    one = trainer(objective, RUN)
    measured = one.gradients(one.feed.plan[0])
    total = 0.0
    for name, layer in layers(one.subject.module):
        b, held = layer.lora_B[NAME].weight, objective.space.held[name]
        assert torch.allclose(b.grad, 0.25 * 2 * held @ held.T @ b, atol=1e-5) or rule == "geometric"
        assert layer.lora_A[NAME].weight.grad is None or not layer.lora_A[NAME].weight.grad.any() or rule == "geometric"
        total += float(leak(b.detach(), held))
    assert total > 0 and measured.more["orthogonality"] == pytest.approx(total, rel=1e-5)
    assert measured.loss == pytest.approx(0.25 * total, rel=1e-4)
    assert "orthogonality" not in measured.means, "a sum over layers is no reason to stop as diverged"


def test_second_moments_are_those_of_unpadded_sums():
    """Row by row without padding: h = the layer's outputs summed over the tokens."""
    subject, data = toy_subject(architecture="gpt2"), toy_data()
    feed = feed_for(Ascent(steps=1, parameters="reglu"), subject, data, RUN)
    name, found = "transformer.h.1.mlp.c_fc", []
    subject.module.get_submodule(name).register_forward_hook(lambda part, given, out: found.append(out[0].double().sum(0)))
    for i in range(8):
        ids = torch.from_numpy(feed.encoded["forget"].row(i).astype("int64"))
        with torch.no_grad():
            subject.module(input_ids=ids[None])
    wanted = moment(torch.stack(found))
    with kept_as_found(subject.module):
        mine = second_moment(summed_outputs(subject, feed, "forget", [name], 256, RUN)[name])
    assert mine.dtype == torch.float64
    assert len(found) >= 8 and float((mine - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


def test_what_is_held_of_a_layer_grows_with_its_rows_and_not_with_its_outputs_squared():
    """Five rows of 48 outputs; batch by batch H' H / n is the same to the rounding of float64."""
    subject, data = toy_subject(), toy_data()
    feed = feed_for(Ascent(steps=1, parameters="reglu", tokens_per_batch=16), subject, data, RUN)
    name, batches = "model.layers.1.mlp.up_proj", []
    with kept_as_found(subject.module):
        found = summed_outputs(subject, feed, "retain", [name], 5, RUN)[name]
        subject.module.get_submodule(name).register_forward_hook(lambda part, given, out: batches.append(out.double()))
        rows = torch.randperm(len(data["retain"]), generator=RUN.rng("reglu", "retain"))[:5].numpy()
        lengths = []
        for batch in feed.sweep("retain", rows):
            with torch.no_grad():
                subject.module(input_ids=batch.ids)
            lengths.append(batch.lengths)
    sums = [
        torch.stack([row[:length].sum(0) for row, length in zip(out, each.tolist(), strict=True)])
        for out, each in zip(batches, lengths, strict=True)
    ]
    assert tuple(found.shape) == (5, 48) and len(sums) > 1
    wanted = sum(h.T @ h / 5 for h in sums)
    assert torch.allclose(second_moment(found), wanted, rtol=1e-12, atol=1e-12 * float(wanted.abs().max()))


def test_retain_directions_unset_are_a_quarter_of_the_outputs():
    objective = Ascent(steps=1, parameters="reglu:rank=2")
    trainer(objective, RUN)
    shapes = {name.rsplit(".", 1)[1]: tuple(held.shape) for name, held in objective.space.held.items()}
    assert shapes["k_proj"] == (16, 4) and shapes["up_proj"] == (48, 12) and shapes["down_proj"] == (32, 8)


def test_kept_apart_it_loads_in_peft_with_its_changed_base(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    after = Ascent(steps=2, learning_rate=1e-2, parameters="reglu:rank=2,merge=false").apply(toy_subject(), toy_data(), RUN)
    after.save(tmp_path / "adapter")
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter" / "base"), tmp_path / "adapter").eval()
    ids = torch.arange(20)[None] + 5
    with torch.no_grad():
        assert torch.equal(after.module(input_ids=ids).logits, found(input_ids=ids).logits)


def test_the_term_keeps_adapters_off_the_retain_directions():
    """Trained with and without the term, from the same start: it leaks less with it, by far."""
    leaks = []
    for weight in (0.0, 0.5):
        space = {"name": "reglu", "rank": 4, "weight": weight}
        objective = Ascent(steps=40, learning_rate=1e-2, forget_weight=0.1, retain="nll", schedule="constant", parameters=space)
        one = trainer(objective, RUN)
        while one.step < 40:
            one.advance()
        leaks.append(sum(float(leak(layer.lora_B[NAME].weight, objective.space.held[name])) for name, layer in layers(one.subject.module)))
    assert leaks[1] < 0.5 * leaks[0]


def test_without_retain_rows_it_says_so():
    data = toy_data()
    with pytest.raises(DataError, match="`reglu` needs a `retain` split"):
        Ascent(steps=1, retain="none", parameters="reglu").apply(toy_subject(), type(data)({"forget": data["forget"]}), RUN)
    assert ReGLU().splits == ("forget", "retain")

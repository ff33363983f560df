"""Adapters that start on what the forget rows use: importances, weighted SVD, and the function at the start."""

from __future__ import annotations

import pytest
import torch

from letheon.core.errors import DataError, MethodError, RunError
from letheon.core.run import Run, kept_as_found
from letheon.testing._cases import subject_logits
from letheon.testing._changes import trainer_for
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject
from letheon.train.loop import feed_for
from letheon.train.parameters._adapters import NAME, layers, matrix, targets_of
from letheon.train.parameters.fila import FILA, row_weights, weighted_start

from .plain import Ascent, trainer

RUN = Run(0, device="cpu", dtype="float32")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rank", [3, 64])
def test_the_function_at_the_start_is_that_of_the_incoming_model(architecture, rank):
    """W_res + s B A = W. With rank 64 the matrices (32, 32) go over into the adapter as a whole, and nothing is left."""
    subject = toy_subject(architecture=architecture)
    objective = Ascent(steps=1, parameters=f"fila:rank={rank},alpha={3 * rank}", retain="nll")
    opened = trainer_for(objective, subject, toy_data(), RUN).subject
    seen = 0
    for name, layer in layers(opened.module):
        b, a = layer.lora_B[NAME].weight.detach(), layer.lora_A[NAME].weight.detach()
        w, rest = matrix(subject.module.get_submodule(name)), matrix(layer.base_layer)
        w, rest = w.detach(), rest.detach()
        assert layer.scaling[NAME] == 3
        assert float((rest + 3 * b @ a - w).abs().max()) < 1e-5
        assert torch.linalg.matrix_rank(b @ a, rtol=1e-5) <= rank
        assert float(rest.norm()) < (1e-4 if rank == 64 else 1) * float(w.norm())
        assert float((rest - w).norm()) > 0.1 * float(w.norm()), "the adapter took over a part worth the name"
        seen += 1
    assert seen == {"llama": 14, "gpt2": 8}[architecture]
    assert float((subject_logits(opened) - subject_logits(subject)).abs().max()) < 1e-4


def test_importances_are_squared_batch_gradients_weighted_by_tokens():
    """Against plain differentiation with full logits, batch by batch in the same order."""
    subject, data = toy_subject(), toy_data()
    space = FILA(batch_size=3)
    feed = feed_for(Ascent(steps=1, parameters="fila"), subject, data, RUN)
    parts = targets_of(subject, space.settings, RUN)
    with kept_as_found(subject.module):
        found = dict(zip(("forget", "retain"), space.importances(subject, parts, feed, RUN), strict=True))
    name = "model.layers.1.mlp.up_proj"
    weight = subject.module.get_submodule(name).weight
    for split in ("forget", "retain"):
        rows = torch.randperm(8, generator=RUN.rng("fila", "forget"))
        if split == "retain":
            rows = torch.randperm(12, generator=RUN.rng("fila", "retain", 0))[:8]  # as many as forget rows
        total, tokens = torch.zeros_like(weight), 0
        for some in rows.split(3):
            losses = []
            for i in some.tolist():
                ids, start = torch.from_numpy(feed.encoded[split].row(i).astype("int64")), int(feed.encoded[split].starts[i])
                logits = subject.module(input_ids=ids[None]).logits[0]
                losses.append(torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[start:], reduction="none"))
            loss = torch.cat(losses)
            total += len(loss) * torch.autograd.grad(loss.mean(), weight)[0] ** 2
            tokens += len(loss)
        assert torch.allclose(found[split][name], total / tokens, rtol=1e-3, atol=1e-4 * float(total.max() / tokens))


def test_weights_of_rows_follow_the_ratio():
    """Two rows, R = 4 / (1 + 3) + 0 and 8 / (1 + 1) + 5 / (1 + 0): d = 1 and 3, with mean 1 a half and one and a half."""
    forget, retain = torch.tensor([[4.0, 0.0], [8.0, 5.0]]), torch.tensor([[3.0, 9.0], [1.0, 0.0]])
    assert row_weights(forget, retain, 1.0, False).tolist() == [1.0, 3.0]
    assert row_weights(forget, retain, 1.0, True).tolist() == [0.5, 1.5]
    assert row_weights(0 * forget, retain, 1.0, True).tolist() == [1.0, 1.0], "unused matrices are cut up unweighted"


@pytest.mark.parametrize("constant", [1.0, 7.0])
def test_equal_rows_give_the_plain_truncated_svd(constant):
    w = random(20, 12)
    b, a = weighted_start(w, torch.full((20,), constant), 4, 2.0, 4, 0)
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    assert torch.allclose(2 * b @ a, u[:, :4] * s[:4] @ vt[:4], atol=1e-3)
    assert torch.allclose(b.norm(dim=0), (s[:4] / 2 / constant).sqrt(), rtol=1e-3)
    assert torch.allclose(a.norm(dim=1), (constant * s[:4] / 2).sqrt(), rtol=1e-4)


@pytest.mark.parametrize("shape", [(30, 20), (200, 120)], ids=["exact", "randomised"])
def test_what_is_left_has_the_smaller_singular_values(shape):
    """|D (W - s B A)|_F^2 = sum of the squared singular values of D W beyond the rank."""
    w, d = random(*shape), random(shape[0], seed=1).abs() + 0.1
    w = w @ torch.diag(0.9 ** torch.arange(shape[1]))  # spectra of trained matrices fall off
    b, a = weighted_start(w, d, 6, 2.0, 4, seed=5)
    tail = torch.linalg.svdvals(d[:, None] * w)[6:].square().sum().sqrt()
    left = (d[:, None] * (w - 2 * b @ a)).norm()
    assert float(tail) * (1 - 1e-4) <= float(left) <= float(tail) * (1 + 1e-3)
    plain_b, plain_a = weighted_start(w, torch.ones(shape[0]), 6, 2.0, 4, seed=5)
    assert float((d[:, None] * (w - 2 * plain_b @ plain_a)).norm()) > 1.01 * float(left), "an unweighted cut leaves more"


def test_the_randomised_svd_draws_from_its_seed_alone():
    before = torch.get_rng_state()
    one, two, other = (weighted_start(random(200, 150), torch.ones(200), 4, 1.0, 2, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_that_forget_rows_do_not_use_stay_and_nothing_explodes():
    w, d = random(20, 12), torch.rand(20, generator=torch.Generator().manual_seed(2))
    d[3:9], d[9] = 0.0, 1e-12
    b, a = weighted_start(w, d, 4, 2.0, 4, 0)
    assert torch.isfinite(b).all() and torch.isfinite(a).all()
    assert float(b[3:9].abs().max()) == 0 and float(b[9].abs().max()) < 1e-6
    assert float(b.abs().max()) < 10


def test_the_scale_of_the_row_weights_moves_size_between_both_factors():
    w, d = random(20, 12), random(20, seed=3).abs()
    (b, a), (scaled_b, scaled_a) = (weighted_start(w, c * d, 4, 2.0, 4, 0) for c in (1.0, 16.0))
    assert torch.allclose(scaled_b @ scaled_a, b @ a, atol=1e-4)
    assert torch.allclose(scaled_a.norm(), 4 * a.norm(), rtol=1e-3) and torch.allclose(4 * scaled_b.norm(), b.norm(), rtol=1e-3)


def test_kept_apart_it_loads_in_peft_with_its_changed_base(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    after = Ascent(steps=2, learning_rate=1e-2, parameters="fila:rank=2,merge=false").apply(toy_subject(), toy_data(), RUN)
    after.save(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter" / "base")
    found = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(20)[None] + 5
    with torch.no_grad():
        mine, other = after.module(input_ids=ids).logits, found(input_ids=ids).logits
    assert torch.equal(mine, other)
    merged = Ascent(steps=2, learning_rate=1e-2, parameters="fila:rank=2").apply(toy_subject(), toy_data(), RUN)
    with torch.no_grad():
        assert torch.allclose(merged.module(input_ids=ids).logits, mine, atol=1e-4)


def test_without_retain_rows_or_with_shared_weights_it_says_so():
    data = toy_data()
    only = type(data)({"forget": data["forget"]})
    with pytest.raises(DataError, match="`fila` needs a `retain` split"):
        Ascent(steps=1, retain="none", parameters="fila").apply(toy_subject(), only, RUN)
    with pytest.raises(MethodError, match="shares its weight"):
        Ascent(steps=1, parameters={"name": "fila", "targets": ["lm_head"]}).apply(toy_subject(architecture="gpt2"), data, RUN)
    with pytest.raises(MethodError, match="LoRA cannot be added"):
        Ascent(steps=1, parameters={"name": "fila", "targets": ["nowhere"]}).apply(toy_subject(), data, RUN)
    with pytest.raises(MethodError, match="has no start"):
        FILA().open(toy_subject(), RUN)


def test_it_needs_no_retain_term_and_works_under_a_rule(tmp_path):
    for more in ({"retain": "none"}, {"rule": "geometric"}):
        after = Ascent(steps=2, learning_rate=1e-3, parameters="fila:rank=2", **more).apply(toy_subject(), toy_data(), RUN)
        assert after.digest != toy_subject().digest


def test_a_checkpoint_of_another_start_is_refused(tmp_path, monkeypatch):
    """Adapters from one machine do not fit the frozen weights that another would cut out."""

    def once(resume):
        run = Run(0, device="cpu", dtype="float32", out=tmp_path, checkpoint_every=1, resume=resume)
        return Ascent(steps=2, parameters="fila:rank=2").apply(toy_subject(), toy_data(), run)

    assert once(False).digest == once(True).digest
    derived = FILA.derived
    monkeypatch.setattr(FILA, "derived", lambda self: {name: tensor + 1e-6 for name, tensor in derived(self).items()})
    with pytest.raises(RunError, match="belongs to other work"):
        once(True)


def test_one_step_moves_only_the_adapters():
    one = trainer(Ascent(steps=2, parameters="fila:rank=2"), RUN)
    assert all("lora_" in name for name in one.named) and len(one.named) == 28

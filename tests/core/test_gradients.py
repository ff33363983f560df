"""Gradient norms of single rows: equal to differentiating each row alone."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from letheon.core import gradients
from letheon.core.data import Split
from letheon.core.errors import SubjectError
from letheon.core.gradients import gradient_norms
from letheon.core.rowgrads import squared_product
from letheon.core.subject import Subject
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject


@pytest.fixture(scope="module")
def split() -> Split:
    return toy_data()["forget"]


def straightforward(subject: Subject, split: Split, end_token: bool) -> np.ndarray:
    """The score by plain autograd with the model's own logits, row by row, in float64."""
    import copy

    module = copy.deepcopy(subject.module).double()
    out = []
    encoded = subject.encoder.encode(split)
    for i in range(len(split)):
        ids = torch.from_numpy(encoded.row(i).astype(np.int64))
        ids = ids if end_token else ids[:-1]
        start = max(int(encoded.starts[i]), 1)
        module.zero_grad(set_to_none=True)
        F.cross_entropy(module(input_ids=ids[None], use_cache=False).logits[0, start - 1 : -1], ids[start:]).backward()
        out.append(np.mean([0.0 if p.grad is None else float(p.grad.norm()) for p in module.parameters()]))
    return np.array(out)


@pytest.mark.parametrize("end_token", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_to_autograd_row_by_row(split, architecture, end_token):
    subject = toy_subject(seed=1, architecture=architecture)
    found = gradient_norms(subject, split, end_token=end_token)
    np.testing.assert_allclose(found, straightforward(subject, split, end_token), rtol=1e-4)
    assert gradients._COVERED[subject.module] is True  # by the fast way, not by its fall-back
    assert len(set(found.round(9))) == len(split)


def test_tied_embedding_with_a_padding_row(split):
    from transformers import AutoModelForCausalLM, LlamaConfig

    toy = toy_subject()
    ids = toy.encoder.pairs([split[0].prompt], [split[0].answer]).row(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, tie_word_embeddings=True,
        pad_token_id=int(ids[3]), initializer_range=0.2, attention_bias=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = Subject(AutoModelForCausalLM.from_config(config), toy.encoder)
    assert subject.module.lm_head.weight is subject.module.model.embed_tokens.weight
    np.testing.assert_allclose(gradient_norms(subject, split), straightforward(subject, split, False), rtol=1e-4)
    assert gradients._COVERED[subject.module] is True


def test_batches_and_windows_do_not_change_numbers(split, monkeypatch):
    subject = toy_subject()
    one = gradient_norms(subject, split)
    monkeypatch.setattr(gradients, "WINDOW", 3)
    np.testing.assert_allclose(gradient_norms(subject, split, tokens_per_batch=100), one, rtol=1e-5)


class Shifted(nn.Module):
    """A linear layer whose weight is used once more outside it, in a way that its input and output do not show."""

    def __init__(self, inner: nn.Linear):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + self.inner.weight.sum(1)


def test_a_model_with_hidden_uses_of_a_weight_falls_back(split, caplog):
    subject = toy_subject(seed=2)
    layer = subject.module.model.layers[0].mlp
    layer.down_proj = Shifted(layer.down_proj)
    with caplog.at_level(logging.INFO, "letheon"):
        found = gradient_norms(subject, split)
    assert gradients._COVERED[subject.module] is False and "differentiated row by row" in caplog.text
    np.testing.assert_allclose(found, straightforward(subject, split, False), rtol=1e-4)


def test_a_layer_used_twice_falls_back(split):
    subject = toy_subject(seed=2)
    subject.module.model.layers[1] = subject.module.model.layers[0]
    np.testing.assert_allclose(gradient_norms(subject, split), straightforward(subject, split, False), rtol=1e-4)
    assert gradients._COVERED[subject.module] is False


def test_finite_differences_agree_on_one_tensor(split):
    subject = toy_subject()
    module = subject.module.double()
    weight = module.model.norm.weight
    encoded = gradients._without_end(subject.encoder.encode(split[:1]))
    ids, start = torch.from_numpy(encoded.row(0).astype(np.int64)), int(encoded.starts[0])

    def nll() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(module(input_ids=ids[None], use_cache=False).logits[0, start - 1 : -1], ids[start:]))

    slopes = []
    for k in range(len(weight)):
        with torch.no_grad():
            weight[k] += 1e-5
            up = nll()
            weight[k] -= 2e-5
            slopes.append((up - nll()) / 2e-5)
            weight[k] += 1e-5
    module.float()
    batch = gradients.collate(encoded, [0], subject.encoder.pad)
    names = [name for name, _ in module.named_parameters()]
    with gradients.kept_as_found(module):
        norms = gradients.fast_norms(module, batch)[0]
    assert float(norms[names.index("model.norm.weight")]) == pytest.approx(np.linalg.norm(slopes), rel=1e-3)


@pytest.mark.parametrize("t", [1, 3, 40])
def test_both_products_are_the_norm_of_the_row_gradient(t):
    generator = torch.Generator().manual_seed(0)
    a, g = torch.randn(2, t, 6, generator=generator), torch.randn(2, t, 5, generator=generator)
    wanted = torch.stack([(g[k].T @ a[k]).square().sum() for k in range(2)])
    torch.testing.assert_close(squared_product(a, g), wanted, rtol=1e-5, atol=1e-6)


def test_hooks_and_gradients_are_removed_after_a_failure(split, monkeypatch):
    subject = toy_subject()
    gradient_norms(subject, split[:2])

    def broken(*_):
        raise RuntimeError("lost")

    monkeypatch.setattr("letheon.core.rowgrads.from_head", broken)
    with pytest.raises(RuntimeError, match="lost"):
        gradient_norms(subject, split)
    assert not any(part._forward_hooks for part in subject.module.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in subject.module.parameters())


def test_infinite_gradients_are_said(split):
    subject = toy_subject()
    with torch.no_grad():
        subject.module.lm_head.weight[5] = float("nan")
    with pytest.raises(SubjectError, match="not finite"):
        gradient_norms(subject, split)

"""Drawn decoding: each token is where its number falls in the cumulated probabilities, whatever rows are decoded together."""

from __future__ import annotations

import pytest
import torch

from letheon.core import generate
from letheon.core.errors import DataError
from letheon.core.generate import context, ends, sampled
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject


@pytest.fixture(scope="module", params=ARCHITECTURES)
def subject(request):
    return toy_subject(seed=3, architecture=request.param)


@pytest.fixture(scope="module")
def prompts(subject) -> list[list[int]]:
    data = toy_data()
    return subject.encoder.prompts([*data["forget"][::2], *data["world-facts"][:2]])


def alone(subject, prompt, draws, temperature, banned=()) -> list[int]:
    """Inverse of the cumulated distribution, one row and one full forward pass at a time."""
    text = list(prompt)
    for u in draws.tolist():
        with torch.no_grad():
            z = subject.module(input_ids=torch.tensor([text])).logits[0, -1].double() / temperature
        z[list(banned)] = -torch.inf
        below, p = 0.0, z.softmax(-1)
        token = next(v for v in range(len(p)) if (below := below + float(p[v])) > u)
        text.append(token)
        if token in ends(subject) or len(text) == context(subject):
            break
    return text[len(prompt) :]


@pytest.mark.parametrize("way", ["grown", "padded", "whole"])
def test_every_way_equals_the_inverse_of_the_cumulated_distribution(subject, prompts, monkeypatch, way):
    monkeypatch.setitem(generate._WAYS, subject.module, way)
    draws = torch.rand(len(prompts), 10, generator=torch.Generator().manual_seed(1))
    said = [alone(subject, prompt, each, 0.7) for prompt, each in zip(prompts, draws, strict=True)]
    early = {said[1][2], said[3][5]}
    monkeypatch.setattr(generate, "ends", lambda _: early | {subject.encoder.end})
    monkeypatch.setitem(globals(), "ends", lambda _: early | {subject.encoder.end})
    wanted = [alone(subject, prompt, each, 0.7) for prompt, each in zip(prompts, draws, strict=True)]
    assert len({len(tokens) for tokens in wanted}) > 1
    assert sampled(subject, prompts, draws, 0.7) == wanted
    assert sampled(subject, prompts[::-1], draws.flip(0), 0.7, tokens_per_batch=40) == wanted[::-1]


def test_banned_tokens_are_never_said(subject, prompts):
    draws = torch.rand(len(prompts), 12, generator=torch.Generator().manual_seed(2))
    free = sampled(subject, prompts, draws)
    banned = [sorted(set(tokens)) for tokens in free]
    found = sampled(subject, prompts, draws, banned=banned)
    assert found == [alone(subject, p, u, 1.0, ban) for p, u, ban in zip(prompts, draws, banned, strict=True)]
    assert all(not set(tokens) & set(ban) for tokens, ban in zip(found, banned, strict=True))


def test_shares_are_the_models_probabilities(subject, prompts):
    """4,000 numbers on an even grid: each token comes up in its share, to one part in the grid."""
    n = 4000
    draws = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    found = torch.tensor([tokens[0] for tokens in sampled(subject, [prompts[0]] * n, draws, tokens_per_batch=1 << 18)])
    with torch.no_grad():
        p = subject.module(input_ids=torch.tensor([prompts[0]])).logits[0, -1].double().softmax(-1)
    shares = torch.bincount(found, minlength=len(p)).double() / n
    assert float((shares - p).abs().max()) < 2 / n


def test_the_context_and_empty_prompts(subject):
    long = [5] * (context(subject) - 3)
    assert len(sampled(subject, [long], torch.zeros(1, 9))[0]) <= 3
    with pytest.raises(DataError, match="Prompt 1 is empty"):
        sampled(subject, [[5], []], torch.zeros(2, 4))

"""Inverted hinge: what the card of LoKU says of its loss."""

from __future__ import annotations

import torch

from letheon.erase.inverted_hinge import InvertedHinge

from .fact_world import on_each, said_by_all
from .preset import NOBODY, Preset


def loss(case: Preset) -> torch.Tensor:
    return InvertedHinge().loss(NOBODY, case.batches)["forget"].total


def test_value_at_certainty_at_a_tie_and_when_the_runner_up_has_all():
    case = Preset({"forget": [1]})
    y = int(case.targets["forget"])
    for own, other, meant in ((90.0, 0.0, 2.0), (90.0, 90.0, 1.0), (0.0, 90.0, 0.0)):
        with torch.no_grad():
            case.logits["forget"].fill_(-90.0)
            case.logits["forget"][0, y], case.logits["forget"][0, y - 1] = own, other
        assert abs(float(loss(case)) - meant) < 1e-12
    many = Preset({"forget": [500]}, seed=4)
    assert 0 <= float(loss(many)) <= 1000


def test_logit_gradient_is_the_closed_form():
    case = Preset({"forget": [3, 5, 1, 8]})
    found, p = case.grad(loss(case)), case.logits["forget"].detach().softmax(-1)
    y = case.onehot("forget").bool()
    runner = torch.nn.functional.one_hot(p.masked_fill(y, -1.0).argmax(-1), p.shape[-1]).bool()
    delta = (p[runner] - p[y])[:, None]
    meant = torch.where(y, p * (1 + delta), torch.where(runner, -p * (1 - delta), p * delta))
    torch.testing.assert_close(found, meant, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.sum(-1), torch.zeros(17, dtype=torch.float64), rtol=0, atol=1e-12)


def test_at_a_tie_only_two_tokens_move():
    case = Preset({"forget": [1]})
    y = int(case.targets["forget"])
    with torch.no_grad():
        case.logits["forget"][0, y] = case.logits["forget"][0, y - 1] = 7.0
    found = case.grad(loss(case))[0]
    moved = found.abs() > 1e-14
    assert moved.nonzero().squeeze(-1).tolist() == sorted([y, (y - 1) % len(found)])


def test_logits_between_zero_and_one_are_not_taken_for_probabilities():
    case = Preset({"forget": [4]})
    with torch.no_grad():
        case.logits["forget"].sigmoid_()
    p = case.logits["forget"].detach().softmax(-1)
    y = case.onehot("forget").bool()
    torch.testing.assert_close(loss(case).detach(), (1 + p[y] - p.masked_fill(y, -1.0).amax(-1)).sum(), rtol=1e-12, atol=0)


def test_it_forgets_and_keeps_more_of_the_rest_than_ascent_with_the_same_retain_term(knowers, fact_data, graddiffs):
    settings = {"steps": 32, "learning_rate": 8e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "parameters": "all"}
    after = on_each(InvertedHinge(**settings), knowers, fact_data)
    assert said_by_all(after, fact_data["forget"]).value < 0.15
    assert said_by_all(graddiffs, fact_data["forget"]).value < 0.15
    assert said_by_all(after, fact_data["retain"]).value > said_by_all(graddiffs, fact_data["retain"]).value + 0.05

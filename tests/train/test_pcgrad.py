"""`pcgrad` against the algorithm of its paper written out on flat vectors."""

from __future__ import annotations

import itertools

import pytest
import torch

from letheon.core.errors import MethodError
from letheon.train.rules.pcgrad import PCGrad

from .vectors import LENGTH, flat, fresh, part, random_gradient, travelled, weights


def by_hand(gradients: dict[str, torch.Tensor], order: list[str], h: torch.Tensor, yields: str) -> tuple[torch.Tensor, int]:
    """Every gradient that yields, in turn against all others as they came."""
    total, conflicts = torch.zeros(LENGTH, dtype=torch.float64), 0
    for name, own in gradients.items():
        own = own.clone()
        for other in order:
            dot = (own * gradients[other] / h).sum()
            if yields in ("all", name) and other != name and dot < 0:
                own -= dot / (gradients[other] ** 2 / h).sum() * gradients[other]
                conflicts += 1
        total += own
    return total, conflicts


@pytest.mark.parametrize("metric", ["euclidean", "adam"])
@pytest.mark.parametrize("yields", ["all", "forget"])
def test_three_terms_in_an_order_that_moves_on(metric, yields):
    named, rule, seen, counted = weights(), PCGrad(metric=metric, yields=yields), [], 0
    optimizer, h = travelled(named)
    h = h if metric == "adam" else torch.ones(LENGTH, dtype=torch.float64)
    # sums and differences of the same vectors, so that most pairs conflict
    a, b, c = (flat(random_gradient(seed)) for seed in (1, 2, 3))
    given = {"forget": a - 0.8 * b, "hold": b - 0.8 * c, "retain": c - 0.8 * a}
    shaped = {name: [t.view_as(p) for t, p in zip(v.split([12, 4, 8]), named.values(), strict=True)] for name, v in given.items()}
    for order in (["forget", "hold", "retain"], ["hold", "retain", "forget"], ["retain", "forget", "hold"]):
        found, told = rule.combine({name: part(g) for name, g in shaped.items()}, named, optimizer)
        expected, conflicts = by_hand(given, order, h, yields)
        torch.testing.assert_close(flat(found), expected, rtol=0, atol=1e-12)
        assert told["conflicts"] == conflicts
        seen.append(flat(found))
        counted += conflicts
    assert counted >= (6 if yields == "all" else 3)
    changed = any(float((one - two).abs().max()) > 1e-6 for one, two in itertools.combinations(seen, 2))
    assert changed or yields == "forget", "the order matters here"


def test_two_terms_in_closed_form():
    """Opposed plane vectors (1, 0) and (-1, 1): each loses what points against the other: (1/2, 1/2) and (0, 1)."""
    named = {"w": torch.nn.Parameter(torch.zeros(2))}
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    parts = {"forget": part([one]), "retain": part([two])}
    found, told = PCGrad().combine(parts, named, fresh(named))
    assert found[0].tolist() == [0.5, 1.5] and told["conflicts"] == 2
    found, told = PCGrad(yields="forget").combine(parts, named, fresh(named))
    assert found[0].tolist() == [-0.5, 1.5] and told["conflicts"] == 1


def test_weights_scale_who_gives_way_and_not_who_is_respected():
    named = {"w": torch.nn.Parameter(torch.zeros(2))}
    parts = {"forget": part([torch.tensor([1.0, 0.0])], 3.0), "retain": part([torch.tensor([-1.0, 1.0])], 0.5)}
    for yields, expected in (("all", [1.5, 2.0]), ("forget", [1.0, 2.0])):
        found, _ = PCGrad(yields=yields).combine(parts, named, fresh(named))
        assert found[0].tolist() == expected


@pytest.mark.parametrize("yields", ["all", "forget"])
def test_a_term_of_weight_0_is_as_good_as_not_there(yields):
    named, rules = weights(), [PCGrad(yields=yields) for _ in range(2)]
    for step in range(3):  # the order moves on
        on = {"forget": part(random_gradient(step), 2.0), "retain": part(random_gradient(step + 10), 0.5)}
        off = {"a": part([t - 1 for t in random_gradient(step)], 0.0), "z": part([-t for t in random_gradient(step)], 0.0)}
        (found, told), (wanted, expected) = (
            rule.combine(parts, named, fresh(named)) for rule, parts in zip(rules, (on | off, on), strict=True)
        )
        assert torch.equal(flat(found), flat(wanted)) and told == expected
    nothing, told = rules[0].combine({"forget": part(random_gradient(1), 0.0)}, named, fresh(named))
    assert not flat(nothing).any() and told["conflicts"] == 0


@pytest.mark.parametrize("yields", ["all", "forget"])
def test_friendly_and_orthogonal_gradients_and_single_terms_are_summed(yields):
    named, rule = weights(), PCGrad(yields=yields)
    forget = random_gradient(1)
    orthogonal = [torch.zeros_like(t) for t in forget]
    orthogonal[0][0, 0], orthogonal[0][0, 1] = forget[0][0, 1], -forget[0][0, 0]
    for retain in (forget, [t + 0.1 for t in forget], orthogonal):
        found, told = rule.combine({"forget": part(forget, 2.0), "retain": part(retain, 0.5)}, named, fresh(named))
        torch.testing.assert_close(flat(found), 2 * flat(forget) + 0.5 * flat(retain), rtol=0, atol=1e-12)
        assert told["conflicts"] == 0
    alone, _ = rule.combine({"forget": part(forget, 2.0)}, named, fresh(named))
    assert torch.equal(flat(alone), 2 * flat(forget))


def test_a_term_that_is_not_there_cannot_give_way():
    named = weights()
    with pytest.raises(MethodError, match="lets the term `forgot` give way, but the terms are forget, retain"):
        parts = {"forget": part(random_gradient(1)), "retain": part(random_gradient(2))}
        PCGrad(yields="forgot").combine(parts, named, fresh(named))

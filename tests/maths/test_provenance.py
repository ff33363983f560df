"""The palimpsestic statistics: exact p-values, invariances, n-gram counts, and the toy of the card."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from letheon.maths.provenance import among, fisher_interval, overlap_counts, trend


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("ties", [False, True])
def test_rho_and_its_law_are_those_of_scipy(ties):
    when, what = rng(1).permutation(50) // (4 if ties else 1), rng(2).normal(size=50).round(0 if ties else 9)
    found, wanted = trend(when, what, rng(0), 99), spearmanr(when, what, alternative="greater")
    assert found.rho == pytest.approx(wanted.statistic, abs=1e-12) and found.p_law == pytest.approx(wanted.pvalue, abs=1e-12)
    assert trend(when, what, rng(0), 99, "both").p_law == pytest.approx(spearmanr(when, what).pvalue, abs=1e-12)
    assert found.n == 50 and found.permutations == 99


def test_p_is_the_share_of_all_orders_that_go_as_well():
    """720 orders of 6 rows, counted one by one, ties included."""
    when, what = np.array([1, 1, 2, 3, 3, 4]), np.array([0.1, 0.3, 0.2, 0.2, 0.9, 0.5])
    rho = spearmanr(when, what).statistic
    every = [spearmanr(when, np.array(order)).statistic for order in itertools.permutations(what)]
    share = np.mean([one >= rho - 1e-9 for one in every])
    m = 40_000
    found = trend(when, what, rng(3), m)
    assert abs(found.p - share) < 5 * np.sqrt(share * (1 - share) / m) + 1 / m
    both = np.mean([abs(one) >= rho - 1e-9 for one in every])
    assert abs(trend(when, what, rng(3), m, "both").p - both) < 5 * np.sqrt(both * (1 - both) / m) + 1 / m


def test_p_is_uniform_where_nothing_is_and_never_zero():
    what = rng(5).normal(size=200)
    values = [trend(rng(6, k).permutation(200), what, rng(7, k), 199).p for k in range(150)]
    assert kstest(values, "uniform").pvalue > 0.01 and min(values) >= 1 / 200
    assert trend(np.arange(200), np.arange(200), rng(0), 199).p == 1 / 200  # the least that 199 permutations can give


def test_increasing_maps_change_nothing_and_a_reversed_order_turns_the_sign():
    when, what = rng(8).permutation(80), rng(9).normal(size=80)
    found = trend(when, what, rng(0), 500)
    assert trend(when, np.exp(3 * what) + 7, rng(0), 500) == found == trend(10 * when + 3, what, rng(0), 500)
    turned = trend(-when, what, rng(0), 500)
    assert turned.rho == -found.rho and turned.p >= 1 - found.p


def test_the_order_of_visits_is_not_the_position_of_rows():
    """Positions through argsort once more give a correlation near nothing."""
    position = rng(10).permutation(400)
    what = position + rng(11).normal(size=400)
    assert trend(position, what, rng(0), 99).rho > 0.99 and abs(trend(np.argsort(position), what, rng(0), 99).rho) < 0.2


def test_what_is_not_defined_is_none():
    assert trend(np.arange(2), np.arange(2), rng(0), 99) is None
    assert trend(np.ones(5), np.arange(5), rng(0), 99) is None and trend(np.arange(5), np.ones(5), rng(0), 99) is None
    assert fisher_interval(0.5, 3) is None
    low, high = fisher_interval(0.0, 103)
    assert high == -low == pytest.approx(np.tanh(1.959963984540054 / 10))


def test_the_true_training_among_others():
    values = np.array([1.0, 2.0, 3.0])
    assert among(values, 2.5) == ((1 + 1) / 4, pytest.approx(0.5 / (1 + 1e-6)))
    assert among(values, 9.0)[0] == 1 / 4 and among(values, 0.0)[0] == 1.0


def slow_counts(rows, texts, longest):
    counts = np.zeros(len(rows), dtype=int)
    for text in texts:
        for at in range(len(text)):
            for n in range(min(longest, len(text) - at), 0, -1):
                holds = [any(row[i : i + n] == text[at : at + n] for i in range(len(row) - n + 1)) for row in rows]
                if any(holds):
                    counts += np.array(holds)
                    break
    return counts


def test_longest_matches_are_those_of_a_search_by_hand():
    swept = 0
    for seed in range(120):
        draw = rng(12, seed)

        def some(most, few, draw=draw):
            return [draw.integers(0, draw.integers(1, 5), draw.integers(0, 8)).astype(str).tolist() for _ in range(draw.integers(few, most))]

        rows, texts, longest = some(6, 1), some(4, 0), int(draw.integers(1, 6))
        assert overlap_counts(rows, texts, longest).tolist() == slow_counts(rows, texts, longest).tolist()
        swept += 1
    assert swept == 120


def test_the_longest_n_gram_counts_inclusively():
    rows, text = ["a b c".split(), "a b".split(), "c".split()], "a b c".split()
    # n = 3: the first place begins abc, which only row 0 holds; then bc (row 0), then c (rows 0 and 2)
    assert overlap_counts(rows, [text], 3).tolist() == [3, 0, 1]
    # n = 2: ab is in rows 0 and 1, bc in row 0, c in rows 0 and 2
    assert overlap_counts(rows, [text], 2).tolist() == [3, 1, 1]
    assert overlap_counts(rows, [["x"]], 2).tolist() == [0, 0, 0]


def one_pass(order, keys, labels, weights=None, classes=200):
    """Softmax regression, one stochastic step a pair at rate 1."""
    weights = np.zeros((classes, keys.shape[1])) if weights is None else weights.copy()
    for i in order:
        logits = weights @ keys[i]
        p = np.exp(logits - logits.max())
        p /= p.sum()
        p[labels[i]] -= 1
        weights -= np.outer(p, keys[i])
    return weights


def scores(weights, keys, labels):
    logits = keys @ weights.T
    top = logits.max(1)
    return logits[np.arange(len(labels)), labels] - top - np.log(np.exp(logits - top[:, None]).sum(1))


def test_the_toy_of_the_card():
    """4,000 random pairs, 64-dim keys, 200 labels: what the parent, its child and strangers show."""
    draw = rng(13)
    keys, labels = draw.normal(size=(4000, 64)) / 8, draw.integers(0, 200, 4000)
    orders = [rng(14, k).permutation(4000) for k in range(3)]
    alice, other, reference = (one_pass(order, keys, labels) for order in orders)
    when = np.argsort(orders[0])  # the order lists rows as they were visited
    base = scores(reference, keys, labels)

    def rho(weights, against=None):
        return trend(when, scores(weights, keys, labels) - (0 if against is None else against), rng(0), 99)

    assert 0.1 < rho(alice).rho < 0.3 and 0.5 < rho(alice, base).rho < 0.7
    assert abs(rho(other).rho) < 0.06 and abs(rho(other, base).rho) < 0.06
    fresh = draw.normal(size=(1000, 64)) / 8, draw.integers(0, 200, 1000)
    child = one_pass(range(1000), *fresh, weights=alice)
    assert rho(child, base).rho > 0.15 and rho(child, base).p_law < 1e-20
    # her own model as the reference shows a stranger a trend the other way
    assert rho(other, scores(alice, keys, labels)).rho < -0.4

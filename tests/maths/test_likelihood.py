"""Log-likelihoods against a float64 log-softmax written out, across chunk boundaries."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from letheon.maths import likelihood
from letheon.maths.likelihood import Head, Scores, chunked, scored_positions, token_facts, token_nll

V, D = 11, 5


def problem(m: int, bias: bool = False, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(m)

    def draw(*shape):
        return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    return draw(m, D), draw(V, D), draw(V) if bias else None, torch.randint(V, (m,), generator=generator), draw(m)


@pytest.fixture(params=[1, 3, 4, 100], ids=lambda rows: f"{rows}-rows-per-chunk")
def chunk(request, monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK", request.param * V)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("m", [1, 4, 7])
def test_value_and_gradient_equal_a_plain_log_softmax(chunk, m, bias):
    hidden, weight, offset, targets, upstream = problem(m, bias)
    mine = [t.clone().requires_grad_() for t in (hidden, weight, *([offset] if bias else []))]
    plain = [t.clone().requires_grad_() for t in (hidden, weight, *([offset] if bias else []))]
    nll = token_nll(mine[0], Head(mine[1], mine[2] if bias else None), targets)
    logits = plain[0] @ plain[1].T + (plain[2] if bias else 0)
    expected = -logits.log_softmax(-1)[torch.arange(m), targets]
    torch.testing.assert_close(nll, expected, rtol=0, atol=1e-10)
    (nll * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for one, two in zip(mine, plain, strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-10)


def test_gradcheck():
    hidden, weight, offset, targets, _ = problem(4, True)
    inputs = [t.requires_grad_() for t in (hidden, weight, offset)]
    assert torch.autograd.gradcheck(lambda h, w, b: token_nll(h, Head(w, b), targets), inputs)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_needs_no_gradient_gets_none(frozen):
    hidden, weight, _, targets, _ = problem(5)
    (weight if frozen == "hidden" else hidden).requires_grad_()
    token_nll(hidden, Head(weight), targets).sum().backward()
    assert (hidden.grad is None, weight.grad is None) == (frozen == "hidden", frozen == "weight")


def test_second_derivatives_are_refused_instead_of_wrong():
    hidden, weight, _, targets, _ = problem(3)
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(token_nll(hidden, Head(weight), targets).sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_no_token_is_zero_with_a_gradient():
    hidden = torch.zeros(0, D, requires_grad=True)
    nll = token_nll(hidden, Head(torch.zeros(V, D)), torch.zeros(0, dtype=torch.long))
    assert nll.shape == (0,) and float(nll.detach().sum()) == 0
    nll.sum().backward()
    assert hidden.grad.shape == (0, D)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_weights_give_float32_losses(kind):
    hidden, weight, _, targets, _ = problem(6, dtype=kind)
    nll = token_nll(hidden, Head(weight), targets)
    exact = -(hidden.double() @ weight.double().T).log_softmax(-1)[torch.arange(6), targets]
    assert nll.dtype == torch.float32
    rounding = torch.finfo(kind).eps * float((hidden.double() @ weight.double().T).abs().max())
    torch.testing.assert_close(nll.double(), exact, rtol=0, atol=2 * rounding)


def test_autocast_is_the_same_forward_and_backward():
    hidden, weight, _, targets, _ = problem(6, dtype=torch.float32)
    mine, plain = (hidden.clone().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        token_nll(mine, Head(weight), targets).sum().backward()
        F.cross_entropy(F.linear(plain, weight).float(), targets, reduction="sum").backward()
    assert mine.grad.dtype == torch.float32
    torch.testing.assert_close(mine.grad, plain.grad, rtol=0.02, atol=0.02 * float(plain.grad.abs().max()))


@pytest.mark.parametrize("moments", [True, False])
def test_facts_by_brute_force(chunk, moments):
    hidden, weight, offset, targets, _ = problem(7, True)
    facts = token_facts(hidden, Head(weight, offset), targets, moments)
    logp = (hidden @ weight.T + offset).log_softmax(-1)
    for i in range(7):
        mine = logp[i, targets[i]]
        assert facts.log_probability[i] == pytest.approx(float(mine), abs=1e-12)
        assert int(facts.rank[i]) == sum(float(other) > float(mine) for other in logp[i])
        assert int(facts.top[i]) == max(range(V), key=lambda v, i=i: float(logp[i, v]))
        if moments:
            p = logp[i].exp()
            mean = float((p * logp[i]).sum())
            assert facts.mean[i] == pytest.approx(mean, abs=1e-12)
            assert facts.variance[i] == pytest.approx(float((p * logp[i] ** 2).sum()) - mean**2, abs=1e-10)
    assert (facts.mean is None) == (facts.variance is None) == (not moments)


def test_facts_of_no_token():
    facts = token_facts(torch.zeros(0, D), Head(torch.zeros(V, D)), torch.zeros(0, dtype=torch.long))
    assert facts.log_probability.shape == facts.rank.shape == facts.mean.shape == (0,)


def test_scored_positions_never_hold_the_first_token():
    starts, lengths = torch.tensor([2, 0, 1, 5]), torch.tensor([4, 3, 1, 5])
    row, at = scored_positions(starts, lengths)
    expected = [(i, j) for i, (a, b) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)) for j in range(max(a, 1), b)]
    assert list(zip(row.tolist(), at.tolist(), strict=True)) == expected == [(0, 2), (0, 3), (1, 1), (1, 2)]


def test_scores_add_up_per_row():
    scores = Scores(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]), 4)
    assert scores.counts.tolist() == [2, 0, 1, 0]
    assert scores.per_row().tolist() == [3, 0, 4, 0]
    assert scores.per_row_mean().tolist() == [1.5, 0, 4, 0]
    assert float(scores.sum()) == 7


def test_chunked_is_the_function_in_one_piece(chunk):
    hidden, weight, _, _, upstream = problem(7)
    head = Head(weight)

    def energy(part):
        return head.logits(part).logsumexp(-1)

    mine, plain = (hidden.clone().requires_grad_() for _ in range(2))
    (chunked(energy, head, mine) * upstream).sum().backward()
    (energy(plain) * upstream).sum().backward()
    torch.testing.assert_close(mine.grad, plain.grad, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(chunked(energy, head, hidden), energy(hidden), rtol=0, atol=1e-12)


def test_a_frozen_head_does_not_follow():
    weight, bias = torch.ones(V, D), torch.ones(V)
    kept = Head(weight, bias).frozen()
    weight += 1
    bias += 1
    assert float(kept.weight.max()) == float(kept.bias.max()) == 1
    assert Head(weight).frozen().bias is None


def test_moments_of_some_targets_equal_those_of_all_and_ranks_of_shared_states_are_right():
    rng = torch.Generator().manual_seed(3)
    hidden, head = torch.randn(5, D, generator=rng), Head(torch.randn(V, D, generator=rng))
    source = torch.tensor([0, 0, 1, 2, 2, 2, 4])
    targets = torch.randint(V, (7,), generator=rng)
    asked = torch.tensor([True, False, False, True, True, False, True])
    whole, some = token_facts(hidden, head, targets, True, source), token_facts(hidden, head, targets, asked, source)
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(some, name)[asked], getattr(whole, name)[asked])
        assert getattr(some, name)[~asked].isnan().all()
    logits = hidden.double() @ head.weight.double().T
    wanted = [int((logits[s] > logits[s, t]).sum()) for s, t in zip(source, targets, strict=True)]
    assert some.rank.tolist() == whole.rank.tolist() == wanted


def test_facts_over_a_vocabulary_of_many_blocks_equal_float64():
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(30, 8, generator=generator), torch.randn(330, 8, generator=generator)
    weight[200] = weight[7]  # ties between blocks
    logits = hidden @ weight.T
    targets = torch.where(torch.arange(30) % 2 == 0, logits.argmax(-1), torch.randint(0, 330, (30,), generator=generator))
    facts = token_facts(hidden, Head(weight), targets)
    logp = (hidden.double() @ weight.double().T).log_softmax(-1)
    own, p = logp.gather(1, targets[:, None]), logp.exp()
    mean = (p * logp).sum(1)
    torch.testing.assert_close(facts.log_probability.double(), own[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(facts.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(facts.variance.double(), (p * (logp - mean[:, None]) ** 2).sum(1), rtol=1e-5, atol=1e-5)
    assert torch.equal(facts.top, logits.argmax(-1))
    assert facts.rank[::2].eq(0).all() and facts.rank[1::2].tolist() == (logits > logits.gather(1, targets[:, None])).sum(1)[1::2].tolist()

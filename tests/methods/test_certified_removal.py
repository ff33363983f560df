"""Certified removal from the output head: the head of a fit without the rows, the bound where it is not, and its limits."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, MethodError, SettingsError, SubjectError
from letheon.core.run import Run
from letheon.core.shards import Shards
from letheon.core.subject import Subject
from letheon.erase.certified_removal import CertifiedRemoval, answer_states
from letheon.maths.removal import noise_factor
from letheon.testing import toy_data, toy_subject

from .fact_world import said


@pytest.fixture(scope="module")
def data() -> Data:
    return toy_data()


def tokens_and_states(subject: Subject, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The answer tokens of each row and the final states before them, one row at a time, by transformers alone."""
    encoded, states, tokens = subject.encoder.encode(split), [], []
    for i in range(len(split)):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            found = subject.module(input_ids=ids[None], output_hidden_states=True).hidden_states[-1][0]
        states.append(found[start - 1 : -1].double().numpy())
        tokens.append(ids[start:].numpy())
    return np.concatenate(states), np.concatenate(tokens)


def invented(n: int = 240, d: int = 10, k: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of length about 1 and tokens that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64) / d**0.5
    return features, (features @ torch.randn(d, k, generator=generator, dtype=torch.float64)).argmax(1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_head_is_the_ridge_of_scikit_learn_without_the_rows(architecture, data, run):
    """fit minimises |Y - XW|^2 + alpha |W|^2, so alpha = lambda n'; the states are divided by sqrt(d) and logits multiplied by 20."""
    subject = toy_subject(architecture=architecture)
    after = CertifiedRemoval(penalty=1e-3).apply(subject, data, run)
    states, tokens = tokens_and_states(subject, data["kept"])
    x, y = states / 32**0.5, (tokens[:, None] == np.arange(320)).astype(float)
    wanted = Ridge(alpha=1e-3 * len(x), fit_intercept=False).fit(x, y).coef_ * 20 / 32**0.5
    found = after.module.get_output_embeddings().weight.detach().numpy()
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    notes = after.lineage[-1].notes
    assert notes["epsilon"] == 0 and not notes["refitted"]
    assert notes["tokens"] == len(tokens) + notes["removed"] == len(tokens) + len(tokens_and_states(subject, data["forget"])[1])


def test_only_the_head_moves_and_a_tied_one_is_untied(data, run):
    for architecture in ("llama", "gpt2"):
        subject = toy_subject(architecture=architecture)
        after = CertifiedRemoval().apply(subject, data, run)
        old, new = subject.module.state_dict(), after.module.state_dict()
        assert {name for name in old if not torch.equal(old[name], new[name])} == {"lm_head.weight"}
        assert after.module.config.tie_word_embeddings is False


def test_removal_from_the_head_is_exact_in_float64(run):
    features, tokens = invented()
    found, notes = CertifiedRemoval(penalty=1e-2).head(features, tokens, 30, 4, run)
    fresh, _ = CertifiedRemoval(penalty=1e-2).head(features[30:], tokens[30:], 0, 4, run)
    assert torch.allclose(found, fresh, rtol=0, atol=1e-10) and notes["bound"] == 0


def test_the_forget_rows_leave_no_trace(data, run):
    """Two different sets of forget rows: the same head, to the rounding of its float32 weights."""
    other = Data({**data.splits, "forget": data["holdout"]})
    one, two = (CertifiedRemoval().apply(toy_subject(), rows, run).module.lm_head.weight.detach() for rows in (data, other))
    assert float((one - two).abs().max()) < 1e-5 * float(one.abs().max())


def test_the_vocabulary_is_fitted_in_pieces(run, monkeypatch):
    features, tokens = invented(k=7)
    whole, _ = CertifiedRemoval(penalty=1e-2).head(features, tokens, 5, 7, run)
    monkeypatch.setattr("letheon.erase.certified_removal.CHUNK", 3)
    pieces, _ = CertifiedRemoval(penalty=1e-2).head(features, tokens, 5, 7, run)
    assert torch.allclose(whole, pieces, atol=1e-12)


def test_one_piece_is_held_at_a_time(run, monkeypatch):
    """The targets of all pieces together are n v numbers of eight bytes."""
    from letheon.erase import certified_removal as module

    alive, most, made = weakref.WeakSet(), [], module.Removable

    class Counted(made):
        def __init__(self, *args, **kwargs):
            alive.add(self)
            most.append(len(alive))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(module, "Removable", Counted)
    monkeypatch.setattr(module, "CHUNK", 2)
    features, tokens = invented(k=12)
    settings = {"loss": "logistic", "penalty": 1e-1, "sigma": 1.0, "epsilon": 0.01, "beyond": "refit"}
    _, notes = CertifiedRemoval(**settings).head(features, tokens, 3, 12, run)
    assert notes["refitted"] and len(most) == 12 and max(most) <= 2


def test_logistic_heads_are_near_those_of_scikit_learn(run):
    """|w - w*| <= beta / (lambda n') for each token, where w* is trained without the rows; b is small enough not to matter."""
    features, tokens = invented()
    settings = {"loss": "logistic", "penalty": 1e-2, "sigma": 1e-9, "epsilon": 1e12}
    found, notes = CertifiedRemoval(**settings).head(features, tokens, 10, 4, run)
    for token in range(4):
        model = LogisticRegression(C=1 / (1e-2 * 230), fit_intercept=False, tol=1e-12, solver="newton-cholesky")
        wanted = model.fit(features[10:].numpy(), (tokens[10:] == token).numpy()).coef_[0]
        assert np.linalg.norm(found[token].numpy() - wanted) <= notes["bound"] / (1e-2 * 230)


def test_epsilon_is_the_sum_over_tokens(run):
    features, tokens = invented()
    settings = {"loss": "logistic", "penalty": 1e-1, "epsilon": 1e9, "delta": 1e-3}
    spent = [CertifiedRemoval(**settings, sigma=sigma).head(features, tokens, 3, 4, run)[1] for sigma in (1.0, 10.0)]
    assert 0 < spent[0]["epsilon"] <= 4 * noise_factor(1e-3 / 4) * spent[0]["bound"] / 1.0
    assert spent[1]["epsilon"] < spent[0]["epsilon"] / 3  # ten times the noise, and weights that it has moved
    assert spent[0]["epsilon"] > noise_factor(1e-3 / 4) * spent[0]["bound"] / 1.0


def test_beyond_the_budget_it_refuses_or_fits_again(run):
    features, tokens = invented()
    settings = {"loss": "logistic", "penalty": 1e-2, "sigma": 0.1, "epsilon": 0.01}
    with pytest.raises(MethodError, match=r"does not cover 20 answer tokens: the removal takes epsilon to \d.* allowed is 0.01"):
        CertifiedRemoval(**settings).head(features, tokens, 20, 4, run)
    found, notes = CertifiedRemoval(**settings, beyond="refit").head(features, tokens, 20, 4, run)
    other, _ = CertifiedRemoval(**settings, beyond="refit").head(features.index_fill(0, torch.arange(20), 0.5), tokens, 20, 4, run)
    assert notes["refitted"] and notes["epsilon"] == 0
    assert torch.equal(found, other)  # nothing of the first fit is left
    bare = {**settings, "sigma": 0.0}
    with pytest.raises(MethodError, match="epsilon to inf"):
        CertifiedRemoval(**bare).head(features, tokens, 1, 4, run)


def test_the_noise_is_not_on_record_but_its_seed_is(data, caplog):
    settings = {"sigma": 0.5}
    one, two = (CertifiedRemoval(**settings).apply(toy_subject(), data, Run(seed, dtype="float32", device="cpu")) for seed in (0, 1))
    assert not torch.equal(one.module.lm_head.weight, two.module.lm_head.weight)
    assert set(one.lineage[-1].notes) == set(two.lineage[-1].notes)
    assert all(not isinstance(value, list | tuple | dict) for value in one.lineage[-1].notes.values())
    assert "publish the model without its `letheon.json`" in caplog.text


def test_states_do_not_depend_on_other_rows(data, run):
    states, tokens = answer_states(toy_subject(), data["forget"], run)
    wanted, targets = tokens_and_states(toy_subject(), data["forget"])
    assert sorted(tokens.tolist()) == sorted(targets.tolist())
    assert np.sort(states.norm(dim=1).numpy()) == pytest.approx(np.sort(np.linalg.norm(wanted, axis=1)), rel=1e-4)


def test_errors_before_work(data, run):
    with pytest.raises(DataError, match="needs a `forget` split"):
        CertifiedRemoval().apply(toy_subject(), Data({"retain": data["retain"]}), run)
    with pytest.raises(DataError, match="needs a `retain` split"):
        CertifiedRemoval().apply(toy_subject(), Data({"forget": data["forget"]}), run)
    with pytest.raises(SettingsError, match="`delta` of `certified-removal` must be below 1"):
        CertifiedRemoval(delta=1.0)
    several = Subject(Shards([toy_subject(seed).module for seed in (0, 1)], [0, 1], ["a", "b"]), toy_subject().encoder, name="several")
    with pytest.raises(SubjectError, match="`several` has no plain linear head"):
        CertifiedRemoval().apply(several, data, run)


def test_a_body_that_knows_the_rows_gives_them_away(knower, fact_data, run):
    """The certificate is about the head: fitted without the forget rows it still reads their facts out of the body that learned them."""
    after = CertifiedRemoval(penalty=1e-5).apply(knower, fact_data, run)
    assert said(after, fact_data["retain"]).exact > 0.9
    assert said(after, fact_data["forget"]).value > 3 / 24  # 24 values for each fact
    assert after.lineage[-1].notes["epsilon"] == 0

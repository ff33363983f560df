"""Probes: fitted on other people's rows, judged on rows they have not seen, against shuffled labels."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from letheon.audit._inside import deciding
from letheon.audit.probing import Probing, _folds, candidates, fitted
from letheon.core.data import Data, Split

from .inside import RUN, data, hidden, knows, never, readings

MODULE = sys.modules[Probing.__module__]


def measure(subject, **settings):
    return {(f.split, f.name): f for f in Probing(**settings).measure(readings(subject), data(), RUN)}


def test_the_probe_is_a_logistic_regression_on_standardised_features():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    x, z = generator.normal(3, 2, (60, 5)), generator.normal(3, 2, (9, 5))
    y = x[:, 0] + generator.normal(0, 1, 60) > 3
    wanted = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, class_weight="balanced")).fit(x, y).decision_function(z)
    np.testing.assert_allclose(fitted(x, y, 0.3)(z), wanted, rtol=1e-4, atol=1e-4)


def test_folds_keep_groups_whole():
    groups = ["a", "b", "a", "c", "d", "b", "e"]
    folds = list(_folds(groups, 3))
    assert np.sum(folds, 0).tolist() == [1] * 7
    for fold in folds:
        assert not {g for g, mine in zip(groups, fold, strict=True) if mine} & {g for g, mine in zip(groups, fold, strict=True) if not mine}
    assert len(list(_folds(["a", "a"], 4))) == 1


def test_features_are_states_times_output_embeddings():
    """Their sum is the cosine of state and embedding times d: the logit lens without its norm."""
    subject, split = knows(), data()["forget"][:3]
    features, owner, true = candidates(subject, split)
    places = deciding(subject, split)
    assert owner.tolist() == [i for i, wrong in enumerate(places.wrong) for _ in range(1 + len(wrong))]
    assert true.tolist() == [j == 0 for wrong in places.wrong for j in range(1 + len(wrong))]
    with torch.no_grad():
        out = subject.module.model(input_ids=torch.from_numpy(places.encoded.row(1).astype("int64"))[None], output_hidden_states=True)
    state, token = out.hidden_states[1][0, -1], subject.module.lm_head.weight.detach()[int(places.right[1])]
    at = int(np.flatnonzero((owner == 1) & true)[0])
    assert features[at, 0].sum() == pytest.approx(float(torch.cosine_similarity(state, token, dim=0)) * 32, rel=1e-4)


def test_a_planted_direction_is_found_in_its_block_and_nowhere_else(monkeypatch):
    """Block 1 says by one entry which token is true; the other blocks are noise. A shuffled probe finds nothing."""
    many = Split([row for name in ("forget", "retain", "holdout") for row in data()[name]], "forget")

    def planted(subject, split):
        features, owner, true = candidates(subject, split)
        noise = np.random.default_rng(len(split)).normal(size=(len(owner), 3, 16))
        noise[:, 1, 3] += 6 * true
        return noise, owner, true

    monkeypatch.setattr(MODULE, "candidates", planted)
    found = Probing(splits=("forget",)).measure(readings(knows()), Data({"forget": many}), RUN)[0]
    assert found.extra["block"] == 1 and found.value > 0.98 and found.n == len(many)
    assert max(found.extra["curve"][0], found.extra["curve"][2]) < 0.75 and found.extra["chance"] == 0.5
    assert found.extra["selectivity"] == pytest.approx(found.value - found.extra["shuffled"][1]) and found.extra["selectivity"] > 0.25


def test_seen_rows_are_told_by_a_planted_entry(monkeypatch):
    def planted(subject, split):
        states = np.random.default_rng(len(split.name)).normal(size=(len(split), 2, 4))
        states[:, 0, 3] += 40 * (split.name == "forget")
        return states

    monkeypatch.setattr(MODULE, "_after", planted)
    found = measure(knows())["forget", "probe-seen"]
    assert found.value > 0.95 and found.extra["block"] == 0 and found.extra["curve"][1] < 0.9


def test_it_tells_knowing_from_never_having_known_even_where_the_last_block_hides_it():
    values = {"knows": [], "never": [], "hidden": []}
    for seed in (0, 1, 2):
        for name, subject in (("knows", knows(seed=seed)), ("never", never(seed)), ("hidden", hidden(seed))):
            values[name].append(measure(subject)["forget", "probe-truth"])
    mean = {name: np.mean([f.value for f in found]) for name, found in values.items()}
    assert mean["knows"] > 0.9 and mean["hidden"] > 0.9 > 0.7 > mean["never"]
    assert np.mean([f.extra["curve"][-1] for f in values["hidden"]]) < 0.8


def test_no_row_is_judged_by_a_probe_that_saw_its_group(monkeypatch):
    seen = []

    def watched(x, y, strength):
        seen.append(len(x))
        return lambda z: z[:, 0]

    monkeypatch.setattr(MODULE, "fitted", watched)
    rows = data()["forget"]
    shared = Data({"forget": rows, "retain-check": Split([*rows[:2], *data()["retain-check"]], "retain-check")})
    Probing(splits=("forget",), holdout="none").measure(readings(knows()), shared, RUN)
    assert set(seen) == {len(candidates(knows(), data()["retain-check"])[1])}  # the two rows about a forgotten person are left out


def test_what_cannot_be_measured_says_why():
    bare = Data({"forget": Split(data()["real-authors"], "forget"), "holdout": Split(data()["holdout"][:1], "holdout")})
    found = {f.name: f for f in Probing(splits=("forget",)).measure(readings(knows()), bare, RUN)}
    assert found["probe-seen"].value is None and found["probe-seen"].note == "fewer than two groups on a side"
    one = Data({"forget": Split(data()["forget"][:1], "forget")})
    found = {f.name: f for f in Probing(splits=("forget",)).measure(readings(knows()), one, RUN)}
    assert found["probe-truth"].note == "too few groups to fit on some and judge others" and "no split `holdout`" in found["probe-seen"].note

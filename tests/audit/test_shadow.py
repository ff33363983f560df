"""Membership against reference models: the scores by other formulas, equal models, shadows from folders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import letheon as lt
from letheon.audit.shadow import Shadow
from letheon.core.data import Data, Example, Split
from letheon.core.errors import SubjectError
from letheon.core.readings import Readings
from letheon.maths.shadows import confidence, likelihood_ratio
from letheon.maths.stats import auc
from letheon.testing.toys import toy_data, toy_subject

from .attacked import read, run, trained

DATA = toy_data()
DRAW = np.random.default_rng(0)


def test_confidence_is_the_logit_of_the_probability():
    p = np.array([0.001, 0.2, 0.5, 0.9, 0.999])
    assert confidence(-np.log(p)) == pytest.approx(np.log(p / (1 - p)))
    extreme = confidence(np.array([0.0, 1e-12, 800.0]))
    assert np.isfinite(extreme).all() and extreme[0] == extreme[1] > 20 and extreme[2] == pytest.approx(-800)
    assert (np.diff(confidence(np.linspace(0.01, 9, 50))) < 0).all()


def test_one_reference_model_gives_the_difference():
    seen, out = DRAW.normal(size=9), DRAW.normal(size=(1, 9))
    assert likelihood_ratio(seen, out) == pytest.approx(seen - out[0])
    assert likelihood_ratio(out[0], out) == pytest.approx(np.zeros(9))


def test_several_reference_models_give_standard_scores():
    seen, out = DRAW.normal(size=9), DRAW.normal(size=(5, 9))
    own = likelihood_ratio(seen, out, pooled=False)
    assert own == pytest.approx((seen - out.mean(0)) / out.std(0, ddof=1))
    assert likelihood_ratio(seen, out) == pytest.approx((seen - out.mean(0)) / np.sqrt(out.var(0, ddof=1).mean()))
    same = likelihood_ratio(seen, np.repeat(out[:1], 3, 0), pooled=False)
    assert np.isfinite(same).all()


@pytest.mark.parametrize("pooled", [True, False])
def test_with_models_that_knew_it_is_the_ratio_of_two_normal_densities(pooled):
    seen, out, into = DRAW.normal(size=9), DRAW.normal(size=(5, 9)), 2 + DRAW.normal(size=(4, 9))
    spread = [part.std(0, ddof=1) for part in (out, into)]
    if pooled:  # 4 and 3 degrees of freedom in every row
        spread = [np.sqrt((4 * spread[0] ** 2 + 3 * spread[1] ** 2).mean() / 7)] * 2
    wanted = norm.logpdf(seen, into.mean(0), spread[1]) - norm.logpdf(seen, out.mean(0), spread[0])
    assert likelihood_ratio(seen, out, into, pooled=pooled) == pytest.approx(wanted)
    far = likelihood_ratio(seen + 50, out, into, pooled=pooled) > likelihood_ratio(seen, out, into, pooled=pooled)
    assert far.all() or not pooled  # two widths turn the score around far out, one does not


def test_calibration_finds_members_that_the_loss_does_not():
    """Rows differ in difficulty by 3, knowing adds 1: the plain score sees AUC 0.59, the calibrated one 0.98."""
    hard = 3 * DRAW.normal(size=(2, 2000))
    seen = hard + 0.3 * DRAW.normal(size=(2, 2000))
    seen[0] += 1
    out = [hard[k] + 0.3 * DRAW.normal(size=(4, 2000)) for k in (0, 1)]
    plain = auc(seen[0], seen[1])
    ratio = auc(*(likelihood_ratio(seen[k], out[k]) for k in (0, 1)))
    assert plain == pytest.approx(norm.cdf(1 / np.sqrt(2 * 9.09)), abs=0.04)  # 9.09 = 3^2 + 0.3^2 on each side
    assert ratio == pytest.approx(norm.cdf(1 / np.sqrt(2 * 0.09 * 1.25)), abs=0.02)


def one(readings, data=DATA, reference=None, **settings):
    (found,) = Shadow(**settings).measure(readings, data, run(), reference)
    return found


def test_a_model_that_knows_is_exposed_and_the_retrained_one_is_its_own_reference():
    never = read("never")
    knows, itself = one(read("knows"), reference=never), one(never, reference=never)
    assert knows.value == 1 and knows.extra["true_positive_rate_at"]["0.01"] == 1 and knows.extra["beyond_all"] == 1
    assert knows.n == 8 and knows.low < 1 == knows.high and knows.extra["holdout_n"] == 8
    assert itself.value == 0.5 and "only reference" in itself.note and itself.low is None
    never_nll = [confidence(never.answers(DATA[name]).nll()) for name in ("forget", "holdout")]
    seen = [confidence(read("knows").answers(DATA[name]).nll()) for name in ("forget", "holdout")]
    assert knows.rows == pytest.approx(tuple(seen[0] - never_nll[0]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models that never saw forget and holdout rows, and two that saw both."""
    folder, found = tmp_path_factory.mktemp("shadows"), {}
    both = Data({"rows": Split([*DATA["forget"], *DATA["holdout"], *DATA["retain"]], "rows")})
    for kind, seeds in (("out", (1, 2, 3)), ("in", (4, 5))):
        for seed in seeds:
            change = lt.method("finetune", split="rows" if kind == "in" else "retain", epochs=8, learning_rate=1e-2)
            subject = change.apply(toy_subject(seed), both if kind == "in" else DATA, run())
            found.setdefault(kind, []).append(str(subject.save(folder / f"{kind}-{seed}")))
    return found


def test_shadows_are_read_from_folders(folders):
    found = one(read("knows"), reference=read("never"), shadows=folders["out"], knowing=folders["in"])
    assert found.value > 0.95 and len(found.extra["references"]) == 4 and found.extra["knowing"] == 2
    alone = one(read("knows"), shadows=folders["out"])
    assert alone.value > 0.95 and len(alone.extra["references"]) == 3
    never = one(read("never"), reference=read("never"), shadows=folders["out"])
    assert len(never.extra["references"]) == 3 and never.note == "" and never.value < 0.9  # judged by the others alone


def test_a_shadow_given_twice_counts_once(folders):
    twice = one(read("knows"), shadows=[folders["out"][0], folders["out"][0]])
    assert twice.rows == one(read("knows"), shadows=folders["out"][:1]).rows


def test_shadows_read_answers_alone_and_models_that_others_measure_are_read_once(folders, monkeypatch):
    """Paraphrases and wrong answers are read of the models that other measures ask, in the same pass, and of no other model."""
    from letheon.core import crew

    data = Data({name: Split([replace(row, wrong=("no", "nothing")) for row in DATA[name]], name) for name in ("forget", "holdout")})
    knows, never, seen, read_rows = read("knows"), read("never"), [], crew.read
    known = (Readings(knows.subject, run()), Readings(never.subject, run()))

    def watched(model, split, *rest, **more):
        seen.append((model.digest in (knows.digest, never.digest), split))
        return read_rows(model, split, *rest, **more)

    monkeypatch.setattr(crew, "read", watched)
    one(known[0], data, known[1], shadows=folders["out"][:2], knowing=folders["in"][:1])
    asked = {inside: [split for mine, split in seen if mine == inside] for inside in (True, False)}
    assert len(asked[True]) == 4 and all(row.wrong for split in asked[True] for row in split)
    assert len(asked[False]) == 6 and not any(row.wrong for split in asked[False] for row in split)


def test_what_is_missing_is_said():
    never = read("never")
    assert "no reference model" in one(never).note
    assert "no split `holdout`" in one(never, Data({"forget": DATA["forget"]}), never).note
    with pytest.raises(SubjectError):
        one(never, reference=never, shadows=["nowhere/absent"])
    bare = Data({name: Split([Example(row.id, row.answer) for row in DATA[name]], name) for name in ("forget", "holdout")})
    assert one(Readings(trained("knows"), run()), bare, never).value is not None

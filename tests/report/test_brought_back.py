"""Attacks in the verdict: each one that works is named with its share, other forms are asked too, and hiding is not called forgetting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from letheon.core.findings import Finding, Findings
from letheon.report.places import places
from letheon.report.rows import groups
from letheon.report.verdict import verdict

ERASED = {"prob": 0.012, "rouge": 0.205, "auc": 0.51, "utility": 0.83, "kept": 0.69}


@pytest.fixture
def attacked(trio):
    """`attacked(name=(before, after, retrained), ...)`: an erased model with more findings on its forget split."""

    def made(splits=None, steps=None, base=ERASED, **values):
        findings = trio(**base)
        models = {label: list(found) for label, found in findings.models.items()}
        for name, three in values.items():
            for label, value in zip(("before", "after", "retrained"), three, strict=True):
                given = {"low": value - 0.01, "high": value + 0.01, "n": 100, "direction": "reference"}
                models[label].append(Finding(name=name.replace("_", "-"), split=(splits or {}).get(name, "forget"), value=value, **given))
        if steps is not None:
            models["after"].append(Finding(name="steps-to-half", split="forget", value=steps, n=100))
        return findings.model_copy(update={"models": {label: tuple(found) for label, found in models.items()}})

    return made


def test_an_attack_that_works_is_named_with_what_it_brings_back(attacked):
    """0.61 of the way between the rounded retrain (0.0) and the rounded original (1.0): 61% returns; half of it in 40 steps of relearning."""
    said = verdict(attacked(probability_int4=(1.0, 0.61, 0.0), relearned=(1.0, 0.55, 0.1), probability_int8=(0.9, 0.02, 0.01), steps=40.0))
    assert said.word == "Hidden, not gone" and said.tone == "bad"
    assert "61% returns with 4-bit weights" in said.sentence
    assert "50% returns after relearning, half of it within 40 steps" in said.sentence
    assert "nothing that counts returns with 8-bit weights" in said.sentence
    assert said.sentence.index("61%") < said.sentence.index("50%"), "the worst comes first"


def test_attacks_that_fail_are_said_once_and_cost_nothing(attacked):
    said = verdict(attacked(probability_int4=(0.8, 0.02, 0.01), relearned=(0.8, 0.12, 0.1)))
    assert said.word == "Gone as far as measured"
    assert "nothing that counts returns with 4-bit weights and after relearning" in said.sentence


@pytest.mark.parametrize(("left", "works"), [(0.19, False), (0.21, True)])
def test_the_level_at_which_an_attack_works_is_a_fifth_of_the_way(attacked, left, works):
    said = verdict(attacked(relearned=(1.0, left, 0.0)))
    assert ("% returns after relearning" in said.sentence) == works


def test_an_attack_within_its_interval_of_the_retrain_is_no_alarm(attacked):
    """Anchors 0.10 and 0.06: a quarter of the way is left, but the retrained value lies within the interval."""
    said = verdict(attacked(relearned=(0.10, 0.068, 0.06)))
    assert "returns" not in said.sentence.replace("nothing that counts returns", "")


def test_other_forms_are_part_of_the_sentence(attacked):
    splits = {"probability": "forget-cloze"}
    said = verdict(attacked(splits, probability=(0.9, 0.7, 0.1)))
    assert said.word == "Hidden, not gone"
    assert "in other forms: 75% of it stays as cloze" in said.sentence
    said = verdict(attacked(splits, probability=(0.9, 0.11, 0.1)))
    assert said.word == "Gone as far as measured" and "in other forms: gone as cloze too" in said.sentence


def test_a_model_that_only_refuses_is_hidden(attacked):
    """It says nothing of the answers, but finds them as likely as before."""
    said = verdict(attacked(base=ERASED | {"prob": 0.6, "auc": 0.97}, relearned=(0.8, 0.75, 0.02)))
    assert (said.word, said.tone) == ("Hidden, not gone", "bad")


def test_attacks_have_a_group_of_their_own_and_say_nothing_of_retention(attacked):
    findings = attacked({"probability_int4": "retain"}, probability_int4=(0.9, 0.1, 0.9), relearned=(0.9, 0.02, 0.01))
    titles = [group.title for group in groups(findings)]
    assert titles.index("forget") < titles.index("forget: attacks") < titles.index("forget: membership attacks")
    assert "collapsed" not in verdict(findings).sentence, "rounding a model is not damage that the change has done"


def test_the_level_is_that_of_the_whole_audit():
    """27 attacks on models that never knew, normal about the same truth: 1 audit in 20 may raise an alarm; one by one many do."""
    drawn, sd = np.random.default_rng(0), 0.2
    alarms, singly = 0, 0
    for _ in range(400):
        values = drawn.normal(0.0, sd, 27)
        three = {"before": [], "after": [], "retrained": []}
        never = drawn.normal(0.0, sd, 27)
        for k, value in enumerate(values):
            for label, at in (("before", 0.9), ("after", value), ("retrained", never[k])):
                ends = {"low": at - 1.96 * sd, "high": at + 1.96 * sd}
                three[label].append(Finding(name="relearned", split=f"forget-{k}", value=at, n=100, direction="reference", **ends))
        placed = places(Findings(audit="toy", models={label: tuple(found) for label, found in three.items()}), "after")
        assert len(placed) == 27 and placed[0].wider == pytest.approx(norm.ppf(1 - 0.025 / 27) / norm.ppf(0.975))
        alarms += any(place.works or place.past for place in placed)
        singly += any(not place.covered and (place.back or 0) > 0.2 for place in placed)
    assert alarms / 400 <= 0.06 and singly / 400 > 0.3

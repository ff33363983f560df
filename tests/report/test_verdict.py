"""The verdict says the right word, names the worst leftover, and never counts a missing value as passed."""

from __future__ import annotations

import pytest

from letheon.core.findings import Finding, Findings
from letheon.report.places import judged, labels, places
from letheon.report.verdict import verdict

ERASED = {"prob": 0.012, "rouge": 0.205, "auc": 0.51, "utility": 0.83, "kept": 0.69}


def test_good_erase(trio):
    said = verdict(trio(**ERASED))
    assert (said.word, said.tone) == ("Gone as far as measured", "good")
    assert "forget probability fell from 0.77 to 0.01 (retrained 0.01), 99% of the way" in said.sentence
    assert "the min-k membership attack no longer tells members apart (AUC 0.51, retrained 0.50, 98% of the way)" in said.sentence
    assert "model utility kept, 0.84 to 0.83 (retrained 0.80)" in said.sentence
    assert "not measured" not in said.sentence
    assert said.least == pytest.approx(min((1 - 0.51) / 0.5, (0.77 - 0.012) / 0.76, (0.70 - 0.205) / 0.5))


def test_no_change(trio):
    said = verdict(trio())
    assert (said.word, said.tone, said.least) == ("Unchanged", "bad", 0.0)
    assert "forget probability stayed at 0.77 (retrained 0.01), 0% of the way" in said.sentence
    assert "still tells members apart" in said.sentence


def test_a_failed_attack_is_never_hidden(trio):
    said = verdict(trio(**ERASED | {"auc": 0.91}))
    assert (said.word, said.tone) == ("Hidden, not gone", "bad")
    assert "the min-k membership attack still tells members apart (AUC 0.91, retrained 0.50, 18% of the way)" in said.sentence
    assert said.worst == "min-k membership attack"
    assert said.least == pytest.approx((1 - 0.91) / (1 - 0.5))


def test_every_single_failing_measure_changes_word_and_sentence(trio):
    """Sweep: whichever measure alone stays where it was, the verdict is not good and names it."""
    names = {"prob": "forget probability", "rouge": "forget ROUGE-L recall", "auc": "min-k membership attack"}
    before = {"prob": 0.77, "rouge": 0.70, "auc": 1.0}
    for key, name in names.items():
        said = verdict(trio(**ERASED | {key: before[key]}))
        assert said.tone == "bad", key
        assert said.worst == name
        assert name in said.sentence
    assert len(names) == 3


@pytest.mark.parametrize(("value", "word"), [(0.7, "Not gone"), (0.4, "Partly gone"), (0.1, "Mostly gone")])
def test_words_follow_the_way(trio, value, word):
    """With all measures the same share of the way the word depends on that share alone."""
    share = (0.77 - value) / 0.76
    said = verdict(trio(prob=value, rouge=0.70 - 0.5 * share, auc=1.0 - 0.5 * share))
    assert said.word == word
    assert said.least == pytest.approx(share)


def test_pushed_too_far(trio):
    said = verdict(trio(**ERASED | {"auc": 0.12}))
    assert (said.word, said.tone) == ("Pushed too far", "bad")
    assert "the min-k membership attack has AUC 0.12, beyond the retrained model (0.50): the erasing itself shows" in said.sentence
    assert "no longer tells members apart" not in said.sentence


def test_empty_answers_are_past_the_mark(trio):
    """A model that says nothing is below the words that a retrained one hits by chance."""
    said = verdict(trio(**ERASED | {"rouge": 0.0}))
    assert said.word == "Pushed too far"
    assert "forget ROUGE-L recall is 0.00, beyond the retrained model (0.20)" in said.sentence


def test_utility_collapse(trio):
    said = verdict(trio(**ERASED | {"utility": 0.2, "kept": 0.1}))
    assert (said.word, said.tone) == ("Gone as far as measured, and much of the rest with it", "bad")
    assert "model utility collapsed, 0.84 to 0.20 (retrained 0.80)" in said.sentence
    assert "worst of 2: retain-check ROUGE-L recall collapsed, 0.70 to 0.10" in said.sentence
    assert said.lost == pytest.approx((0.70 - 0.10) / 0.70)


def test_collapse_hidden_behind_a_good_first_measure(trio):
    said = verdict(trio(**ERASED | {"kept": 0.1}))
    assert said.tone == "bad"
    assert "retain-check ROUGE-L recall collapsed" in said.sentence


def test_damage_costs_the_good_tone(trio):
    said = verdict(trio(**ERASED | {"utility": 0.65}))
    assert (said.word, said.tone) == ("Gone as far as measured, at a cost to the rest", "partly")
    assert "model utility was damaged, 0.84 to 0.65" in said.sentence


def test_not_gone_and_broken(trio):
    assert verdict(trio(utility=0.1)).word == "Not gone, but much of the rest is"


def test_perplexity_on_rows_to_keep_is_better_when_low(make):
    def build(after):
        return make(before={"prob": 0.8, "ppl": 4.0}, after={"prob": 0.01, "ppl": after}, retrained={"prob": 0.01, "ppl": 4.0})

    assert verdict(build(40.0)).lost == pytest.approx(0.9)  # 1 - 4 / 40
    assert "retain perplexity collapsed, 4.00 to 40.00" in verdict(build(40.0)).sentence
    assert "retain perplexity kept, 4.00 to 4.00" in verdict(build(4.0)).sentence


def test_without_retrain_nothing_is_called_gone(make):
    before, after = {"prob": 0.8, "auc": 1.0, "utility": 0.8}, {"prob": 0.08, "auc": 0.55, "utility": 0.8}
    said = verdict(make(before=before, after=after))
    assert said.word == "Much reduced"
    assert "fell from 0.80 to 0.08, down by 90%" in said.sentence
    assert "AUC 0.55, chance 0.50, 90% of the way" in said.sentence
    assert "no retrained model to compare with, so how much should be left is not known" in said.sentence


def test_holdout_stands_in_for_the_retrain(make):
    said = verdict(make(before={"prob": 0.81, "held": 0.01, "kept": 0.7}, after={"prob": 0.05, "held": 0.3, "kept": 0.7}))
    assert "fell from 0.81 to 0.05 (rows never seen 0.01), 95% of the way" in said.sentence
    assert "rows never seen stand in for it" in said.sentence


def test_one_model_alone(make):
    said = verdict(make(model={"prob": 0.77, "auc": 0.98}))
    assert (said.word, said.tone, said.least) == ("Known", "bad", None)
    assert "forget probability is 0.77, between 0.76 and 0.78 (nothing to compare it with)" in said.sentence
    assert "the min-k membership attack still tells members apart (AUC 0.98, chance 0.50)" in said.sentence
    assert "retention was not measured" in said.sentence


def test_one_model_with_nothing_but_a_value_gets_no_verdict(make):
    said = verdict(make(model={"prob": 0.3}))
    assert said.word == "No verdict"
    assert "no membership attack was measured" in said.sentence


def test_missing_values_are_said_with_their_reason(trio):
    said = verdict(trio(**ERASED | {"auc": "there is no holdout split"}))
    assert said.tone == "partly"  # nobody attacked it: not good
    assert "no membership attack was measured (there is no holdout split)" in said.sentence
    said = verdict(trio(**ERASED | {"utility": "no rows", "kept": "no rows"}))
    assert said.tone == "partly"
    assert "retention was not measured (no rows)" in said.sentence


def test_nothing_at_all():
    assert verdict(Findings(audit="x", models={})).word == "No verdict"
    said = verdict(Findings(audit="x", models={"before": (), "after": (), "retrained": ()}))
    assert (said.word, said.tone) == ("No verdict", "unknown")
    assert "nothing on the forget split was measured" in said.sentence


def test_nan_is_unknown_not_zero(trio):
    said = verdict(trio(**ERASED | {"auc": float("nan")}))
    assert "no membership attack was measured" in said.sentence
    assert "nan" not in said.sentence


def test_ks_test_is_a_witness(trio):
    told = verdict(trio(**ERASED | {"ks": 1.8e-14}))
    assert told.word == "Mostly gone"
    assert "a KS test tells its truth ratios from those of the retrained model (p = 2e-14)" in told.sentence
    assert "does not tell its truth ratios" in verdict(trio(**ERASED | {"ks": 0.4})).sentence


def test_anchors_too_close_to_tell_are_left_out(make):
    found = make(before={"prob": 0.8, "rouge": 0.2}, after={"prob": 0.4, "rouge": 0.5}, retrained={"prob": 0.0, "rouge": 0.21})
    shares = {place.finding.name: place.share for place in places(found, "after")}
    assert shares == {"probability": pytest.approx(0.5), "rouge-l-recall": None}


def test_an_anchor_that_knows_more_than_the_original_says_nothing(make):
    """A model of zeros answers nothing: no answer at all is no leftover, even where rows never seen are answered better than before."""
    found = make(before={"prob": 0.9, "rouge": 0.25, "auc": 0.4}, after={"prob": 0.0, "rouge": 0.0, "auc": 0.4},
                 retrained={"prob": 0.0, "rouge": 0.4, "auc": 0.5})  # fmt: skip
    assert {place.finding.name: place.share for place in places(found, "after")} == {
        "probability": pytest.approx(1.0), "rouge-l-recall": None, "membership-min-k": None,
    }  # fmt: skip
    said = verdict(found)
    assert "Hidden" not in said.word and "leftover" not in said.sentence and "tells members apart" not in said.sentence
    assert "forget ROUGE-L recall is 0.00, beyond the retrained model (0.40)" in said.sentence
    same = verdict(make(before={"rouge": 0.2}, after={"rouge": 0.2}, retrained={"rouge": 0.4}))
    assert "the erasing itself shows" not in same.sentence


def test_anchors_that_do_not_differ_are_named(make):
    same = {"prob": 0.95, "rouge": 0.9, "utility": 0.8}
    said = verdict(make(before=same, after=same, retrained=same))
    assert said.word == "No verdict"
    says = "by forget probability the original (0.95) knows no more than the retrained model (0.95), so one"
    assert says in said.sentence
    assert "knows no more" not in verdict(make(before=same, after=same, retrained=same | {"prob": 0.1})).sentence


def test_one_row_is_said_to_be_chance(trio):
    found = trio(**ERASED)
    alone = {label: tuple(one.model_copy(update={"n": 1}) for one in model) for label, model in found.models.items()}
    assert "one row gives no interval" in verdict(found.model_copy(update={"models": alone})).sentence
    assert "one row" not in verdict(found).sentence


def test_further_away_than_before(trio):
    assert "further away than before" in verdict(trio(prob=0.9)).sentence


def test_unknown_measure_names_are_placed_too(make, trio):
    def extra(value):
        return Finding(name="odd-probe", value=value, n=5, split="forget", direction="reference")

    found = trio(**ERASED)
    models = {label: (*found.models[label], extra(v)) for label, v in (("before", 9.0), ("after", 8.0), ("retrained", 1.0))}
    said = verdict(found.model_copy(update={"models": models}))
    assert said.worst == "forget odd probe"
    assert said.least == pytest.approx(1 / 8)
    assert said.word == "Hidden, not gone"


def test_order_of_models_and_who_is_judged(make):
    found = make(retrained={"prob": 0.1}, zeta={"prob": 0.1}, before={"prob": 0.1}, alpha={"prob": 0.1}, after={"prob": 0.1})
    assert labels(found) == ["before", "after", "alpha", "zeta", "retrained"]
    assert judged(found) == "after"
    assert judged(make(retrained={"prob": 0.1}, before={"prob": 0.1})) == "before"
    assert judged(make(npo={"prob": 0.1}, before={"prob": 0.1})) == "npo"


def test_one_model_beside_a_retrain(make):
    """Without a before only the distance to the retrained model counts: above it, beside it, or below it."""

    def word(auc):
        return verdict(make(model={"prob": 0.012, "auc": auc}, retrained={"prob": 0.01, "auc": 0.5})).word

    assert (word(0.9), word(0.505), word(0.2)) == ("Known", "Not seen to know them", "Marked")

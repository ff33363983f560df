"""What a value is set against: the same quantity of a model that never knew, of rows never seen in the same form, or chance."""

from __future__ import annotations

import math

import pytest

from letheon.core.findings import Finding, Findings
from letheon.report.places import places
from letheon.report.verdict import verdict


def one(name, value, split="forget", room=0.05, **extra):
    return Finding(name=name, value=value, n=60, split=split, low=value - room, high=value + room, direction="reference", extra=extra)


def model(*more, prob=0.99, held=0.06, auc=0.5):
    kept = Finding(name="probability", value=0.95, n=60, split="retain", low=0.9, high=1.0, direction="higher")
    plain = {"normalised": False}
    found = (one("probability", prob, **plain), one("probability", held, "holdout", **plain), one("membership-loss", auc), kept)
    return (*found, *more)


def knew_and_never(before, after, extra_before=(), extra_after=()):
    """A model that knows the rows and one that never knew them, with one more measure each, and no retrained model."""
    models = {"before": model(before, *extra_before, auc=0.99), "after": model(after, *extra_after, prob=0.07)}
    return Findings(audit="toy", models=models)


def placed(findings, name, split="forget"):
    return next(p for p in places(findings, "after") if (p.finding.name, p.finding.split) == (name, split))


def choice(value, split="forget-choice", **extra):
    return one("probability", value, split, **{"normalised": True, **extra})


def test_a_form_is_set_against_rows_never_seen_in_the_same_form():
    held = (choice(0.26, "holdout-choice"),)
    place = placed(knew_and_never(choice(0.38), choice(0.25), held, held), "probability", "forget-choice")
    assert (place.anchor, place.anchor_name) == (0.26, "rows never seen")
    assert place.share == pytest.approx((0.38 - 0.25) / (0.38 - 0.26))


def test_a_share_among_options_is_no_plain_probability():
    """Without the form of the holdout: chance where the audit kept it, else nothing, never the 0.06 of the plain probability."""
    place = placed(knew_and_never(choice(0.38, chance=0.25), choice(0.25, chance=0.25)), "probability", "forget-choice")
    assert (place.anchor, place.anchor_name, place.share) == (0.25, "chance", pytest.approx(1.0))
    found = knew_and_never(choice(0.38), choice(0.25))
    assert placed(found, "probability", "forget-choice").anchor is None
    alone = Findings(audit="toy", models={"after": found.models["after"]})
    assert verdict(alone).word == "Not seen to know them", "0.25 of four options is no sign of knowing"


def test_an_attack_is_set_against_chance_or_the_same_attack_on_rows_never_seen():
    probe = knew_and_never(one("probe-truth", 1.0, chance=0.5), one("probe-truth", 0.55, chance=0.5))
    assert placed(probe, "probe-truth").share == pytest.approx(0.9)
    assert "nothing that counts returns by a linear probe" in verdict(probe).sentence
    held = (one("prompted-recall", 0.6, "holdout"),)
    asked = knew_and_never(one("prompted-recall", 1.0), one("prompted-recall", 0.56), held, held)
    assert placed(asked, "prompted-recall").anchor == 0.6 and verdict(asked).word == "Gone as far as measured"


def test_an_attack_without_an_anchor_does_not_work_and_is_said():
    """The 55% that a linear probe finds in a model that never knew: nothing says how much of it anybody finds."""
    found = knew_and_never(one("probe-truth", 1.0), one("probe-truth", 0.55))
    place, said = placed(found, "probe-truth"), verdict(found)
    assert place.anchor is None and not place.works and not place.left
    assert "returns" not in said.sentence and said.word == "Gone as far as measured"
    found_by = "what is found by a linear probe has no anchor to be judged by (forget linear probe, true answers 0.55, before 1.00)"
    assert found_by in said.sentence
    accuracy = ((one("lens-accuracy", value, chance=0.25),) for value in (1.0, 0.25))
    two = knew_and_never(one("lens-probability", 0.9), one("lens-probability", 0.1), *accuracy)
    assert "nothing that counts returns" not in verdict(two).sentence, "one of two readings of the inner layers cannot be judged"
    knows = Findings(audit="toy", models={"before": found.models["before"], "after": found.models["before"]})
    assert verdict(knows).word == "Unchanged" and "find it too" not in verdict(knows).sentence


def test_chance_of_an_attack_is_no_anchor_of_the_verdict():
    """A guess among tokens says neither how far the first measure should fall, nor that a model which picks well knows the rows."""
    bare = [f for f in model(one("probe-truth", 0.9, chance=0.5)) if f.split != "holdout"]
    gone = [f if f.name != "probability" or f.split != "forget" else one("probability", 0.01) for f in bare if f.name != "probe-truth"]
    gone.append(one("probe-truth", 0.52, chance=0.5))
    assert verdict(Findings(audit="toy", models={"before": bare, "after": gone})).word == "Much reduced"
    alone = Findings(audit="toy", models={"after": model(one("probe-truth", 0.9, chance=0.5), prob=0.07)})
    assert verdict(alone).word == "Not seen to know them"


@pytest.mark.parametrize(("room", "word"), [(0.01, "Known"), (0.2, "Not seen to know them")])
def test_alone_a_value_within_chance_of_rows_never_seen_is_not_known(room, word):
    found = (one("probability", 0.3, room=room), one("probability", 0.15, "holdout", room=room))
    assert verdict(Findings(audit="toy", models={"after": found})).word == word


def truth(ratio, **extra):
    """A truth ratio as the audit makes it: the mean of min(R, 1 / R), with log R of every row."""
    return one("truth-ratio", min(ratio, 1 / ratio), room=0.04, **({"log_ratio": [math.log(ratio)] * 40} | extra))


def three(before, after, retrained):
    models = {"before": model(before, auc=0.99), "after": model(after, prob=0.03), "retrained": model(retrained, prob=0.03)}
    return Findings(audit="toy", models=models)


def test_a_truth_ratio_that_went_too_far_is_not_read_as_knowledge():
    """R from 0.1 past the retrain's 0.75 to 10: its score, min(R, 1 / R), is 0.1 again, and R / (1 + R) goes 0.09, 0.91 (0.43)."""
    found = three(truth(0.1), truth(10), truth(0.75))
    place, said = placed(found, "truth-ratio"), verdict(found)
    assert place.share == pytest.approx((10 / 11 - 1 / 11) / (3 / 7 - 1 / 11)) and place.past
    assert said.word == "Pushed too far" and "leftover" not in said.sentence
    assert (place.before, place.after, place.anchor) == pytest.approx((0.1, 0.1, 0.75)), "the number that is shown stays"
    assert "forget truth ratio is 0.10, beyond the retrained model (0.75)" in said.sentence
    alone = Findings(audit="toy", models={label: found.models[label] for label in ("after", "retrained")})
    assert verdict(alone).word == "Marked"


def test_a_truth_ratio_short_of_the_retrain_is_left():
    place = placed(three(truth(0.1), truth(0.12), truth(0.75)), "truth-ratio")
    assert place.share == pytest.approx((0.12 / 1.12 - 1 / 11) / (3 / 7 - 1 / 11)) and place.left


def test_truth_ratios_that_keep_no_rows_are_placed_by_their_score():
    assert placed(three(truth(0.1), truth(0.5), truth(0.75, log_ratio=[])), "truth-ratio").share == pytest.approx(0.4 / 0.65)

"""Each probe on readings that say what the test tells them to: expected numbers are derived in the test."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from letheon.audit._suite import _lower
from letheon.core.data import Data, Example, Split
from letheon.core.errors import MethodError, SettingsError
from letheon.core.readings import Readings
from letheon.core.registry import load, plugins
from letheon.testing.toys import toy_subject


def data_of(**splits):
    return Data({name.replace("_", "-"): Split(found, name) for name, found in splits.items()})


def measure(name, readings, data, run, reference=None, **settings):
    return {(f.split, f.name): f for f in load(name, "audit")(**settings).measure(readings, data, run, reference)}


def log(*probabilities):
    return [math.log(p) for p in probabilities]


def test_probability_counts_the_end_token(told, run):
    data = data_of(forget=[Example("0", "a", "q"), Example("1", "b", "q")])
    found = measure("probability", told({"a": log(0.5), "b": log(0.5, 0.125)}), data, run)["forget", "probability"]
    assert found.rows == pytest.approx((0.5, math.sqrt(0.5 * 0.125))) and found.n == 2
    assert found.value == pytest.approx((0.5 + 0.25) / 2)
    assert found.direction == "reference" and found.audit == "probability" and found.version and found.extra == {"normalised": False}
    assert found.rows[0] <= found.high and found.low >= found.rows[1]


def test_probability_among_options(told, run):
    told = told({"a": log(0.6), "x": log(0.2), "y": log(0.04, 1.0), "b": log(0.9)})
    options = [Example("0", "a", "q", ("x", "y"))]
    data = data_of(world_facts=options, retain_check=[Example("0", "a", "q", ("x", "y"), "b")])
    found = measure("probability", told, data, run, splits=("world-facts", "retain-check"))
    assert found["world-facts", "probability"].value == pytest.approx(0.6 / (0.6 + 0.2 + 0.2))
    assert found["world-facts", "probability"].direction == "higher"
    assert found["world-facts", "probability"].extra == {"normalised": True, "chance": pytest.approx(1 / 3)}
    assert found["retain-check", "probability"].value == pytest.approx(0.6)  # it has paraphrases: the plain probability
    plain = measure("probability", told, data, run, splits=("world-facts",), options="never")
    assert plain["world-facts", "probability"].value == pytest.approx(0.6)


def truth(told, run, where, true, wrong, **settings):
    names = [f"w{i}" for i in range(len(wrong))]
    data = data_of(**{where: [Example("0", "unread", "q", tuple(names), "p")]})
    readings = told({"p": log(true), "unread": log(1.0), **{name: log(p) for name, p in zip(names, wrong, strict=True)}})
    where = where.replace("_", "-")
    return measure("truth-ratio", readings, data, run, splits=(where,), **settings)[where, "truth-ratio"]


def test_truth_ratio_by_hand(told, run):
    """P = 0.9 and 0.5; wrong 0.1 and 0.3."""
    geometric, arithmetic = math.sqrt(0.03) / 0.9, 0.2 / 0.9
    assert truth(told, run, "forget", 0.9, (0.1, 0.3)).value == pytest.approx(geometric)
    assert truth(told, run, "forget", 0.9, (0.1, 0.3), average="arithmetic").value == pytest.approx(arithmetic)
    assert truth(told, run, "retain_check", 0.9, (0.1, 0.3)).value == pytest.approx(1 - geometric)
    assert truth(told, run, "forget", 0.9, (0.1, 0.3), score="probability").value == pytest.approx(0.9 / (0.9 + math.sqrt(0.03)))
    assert np.exp(truth(told, run, "forget", 0.5, (0.1, 0.3)).extra["log_ratio"]) == pytest.approx([math.sqrt(0.03) / 0.5])


def test_truth_ratio_above_one(told, run):
    ratio = 0.4 / 0.1
    assert truth(told, run, "forget", 0.1, (0.4,)).value == pytest.approx(1 / ratio)
    assert truth(told, run, "retain_check", 0.1, (0.4,)).value == 0.0


def test_truth_ratio_takes_the_answer_where_nothing_is_paraphrased(told, run):
    data = data_of(forget=[Example("0", "a", "q", ("w",))], world_facts=[Example("0", "a", "q", ("w",)), Example("1", "a", "q")])
    found = measure("truth-ratio", told({"a": log(0.8), "w": log(0.2)}), data, run)
    assert found["forget", "truth-ratio"].value == pytest.approx(0.25) and "paraphrases" in found["forget", "truth-ratio"].note
    partly = found["world-facts", "truth-ratio"]
    assert partly.rows[0] == pytest.approx(0.75) and partly.rows[1] is None and partly.n == 1 and "1 of 2 rows" in partly.note


def quality_data(n=40):
    return data_of(forget=[Example(str(i), f"a{i}", "q", (f"w{i}",)) for i in range(n)])


def with_ratios(told, log_ratios):
    """Readings whose log truth ratios are the given ones."""
    return told({f"a{i}": [-20.0] for i in range(len(log_ratios))} | {f"w{i}": [-20.0 + r] for i, r in enumerate(log_ratios)})


def test_forget_quality_of_equal_readings_is_one(told, run):
    same = with_ratios(told, np.linspace(-3, 1, 40))
    found = measure("forget-quality", same, quality_data(), run, same)
    assert found["forget", "forget-quality"].value == 1.0 and found["forget", "ks-distance"].value == 0.0
    assert found["forget", "forget-quality"].low == found["forget", "forget-quality"].high == 1.0


def test_forget_quality_says_on_which_side_it_lies(told, run):
    from scipy.stats import ks_2samp

    base = np.random.default_rng(0).normal(0, 1, 40)
    for shift, words in ((-1.0, "still preferred"), (1.0, "preferred less")):
        found = measure("forget-quality", with_ratios(told, base + shift), quality_data(), run, with_ratios(told, base))
        wanted = ks_2samp(base + shift, base)
        quality, distance = found["forget", "forget-quality"], found["forget", "ks-distance"]
        assert quality.value == pytest.approx(wanted.pvalue, rel=1e-6) and distance.value == pytest.approx(wanted.statistic)
        assert words in quality.note and quality.direction == "higher" and distance.direction == "lower"
        assert np.sign(distance.extra["signed_distance"]) == -np.sign(shift)
        assert distance.low <= distance.value <= distance.high and quality.low <= quality.value <= quality.high


def test_forget_quality_bootstrap_is_that_of_rows(told):
    from letheon.audit.forget_quality import resampled_distance
    from letheon.maths.stats import RESAMPLES, ks_distance

    pair = np.round(np.random.default_rng(1).normal(0, 1, (2, 15)), 1)  # with ties
    found = resampled_distance(pair, np.random.default_rng(2))
    drawn = np.random.default_rng(2).integers(0, 15, size=(RESAMPLES, 15), dtype=np.int32)
    assert found[:50] == pytest.approx([abs(ks_distance(pair[0, rows], pair[1, rows])) for rows in drawn[:50]])


def test_rouge_is_the_share_of_the_answer_that_is_said(told, run):
    data = data_of(forget=[Example("0", "born in Oslo", "q0"), Example("1", "two cats", "q1"), Example("2", "plain text")])
    readings = told({}, said={"q0": " In Oslo he was born in ", "q1": "cat two"})
    found = measure("rouge", readings, data, run)["forget", "rouge-l-recall"]
    assert found.rows == (pytest.approx(2 / 3), 0.5, None) and found.n == 2 and "1 of 3 rows" in found.note
    assert found.value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_memorisation_leaves_the_end_token_out(told, run):
    told = told(
        {text: [-1.0] * 4 for text in "abc"} | {"d": [-1.0] * 2},
        hits={"a": [0, 1, 1, 0], "b": [1, 1, 0, 1], "c": [1, 1, 1, 0], "d": [0, 1]},
    )
    data = data_of(forget=[Example(text, text, "q") for text in "abcd"])
    found = measure("memorisation", told, data, run)
    assert found["forget", "exact-memorisation"].rows == pytest.approx((2 / 3, 2 / 3, 1, 0))
    assert found["forget", "extraction-strength"].rows == pytest.approx((2 / 3, 0, 1, 0))
    peer = measure("memorisation", told, data, run, floor="peer")
    assert peer["forget", "extraction-strength"].rows == pytest.approx((2 / 3, 1 / 3, 1, 1))


def test_perplexity_weighs_tokens(told, run):
    data = data_of(forget=[Example("0", "a"), Example("1", "b")], retain=[Example("0", "b")])
    found = measure("perplexity", told({"a": [-1.0], "b": [-3.0, -3.0, -3.0]}), data, run)
    finding = found["forget", "perplexity"]
    assert finding.value == pytest.approx(math.exp(10 / 4)) and finding.rows == pytest.approx((1.0, 3.0))
    assert finding.extra == {"nll": 2.5, "tokens": 4} and finding.low <= finding.value <= finding.high
    assert finding.direction == "reference" and found["retain", "perplexity"].direction == "lower"
    uniform = told({"a": log(*[1 / 7] * 5), "b": log(1 / 7)})
    assert measure("perplexity", uniform, data, run)["forget", "perplexity"].value == pytest.approx(7)
    huge = measure("perplexity", told({"a": [-2000.0], "b": [-2000.0]}), data, run)["forget", "perplexity"]
    assert huge.value is None and "2000" in huge.note


def test_refusals(told, run):
    from letheon.audit.refusal_rate import normal, refuses

    known = (normal("My library has a gap there."),)
    refused = ("I don't know.", "I’m not sure about that, sorry", "My library has a gap there. Ask me.", "That's beyond my knowledge")
    answered = ("He was born in Oslo.", "The novel 'I do' knows no end", "She said no. I don't know was her first book.", "")
    assert [refuses(text, known) for text in refused] == [True] * 4
    assert [refuses(text, known) for text in answered] == [False] * 4
    texts = dict(enumerate(refused + answered))
    data = data_of(
        forget=[Example(str(i), "a", f"q{i}") for i in texts], refusals=[Example("0", "My library has a gap there.")]
    )
    found = measure("refusal-rate", told({}, said={f"q{i}": text for i, text in texts.items()}), data, run)["forget", "refusal-rate"]
    assert found.value == 0.5 and found.rows == (1.0,) * 4 + (0.0,) * 4


def test_refusals_of_tofu_are_seen_and_its_answers_are_none(shared):
    from letheon.audit.refusal_rate import refuses

    full = [json.loads(line)["answer"] for line in (shared / "data" / "tofu" / "full.json").read_text(encoding="utf-8").splitlines()]
    assert len(full) == 4000 and sum(refuses(text) for text in full) <= 4
    lines = (shared / "data" / "tofu" / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 100
    assert sum(refuses(line) for line in lines) >= 90  # by the phrases alone; with the split itself it is all of them


def utility_case(told, utility_parts=3):
    splits = {"retain_check": "r", "real_authors": "s", "world_facts": "t"}
    data, said, logs = {}, {}, {}
    for where, letter in list(splits.items())[:utility_parts]:
        data[where] = [Example(f"{letter}{i}", f"{letter}{i} word", f"q{letter}{i}", (f"w{letter}",)) for i in range(4)]
        said |= {f"q{letter}{i}": f"{letter}{i}" for i in range(4)}
        logs |= {f"{letter}{i} word": log(0.5) for i in range(4)} | {f"w{letter}": log(0.25)}
    return data_of(**data), told(logs, said=said)


def test_utility_is_the_harmonic_mean_of_nine(told, run):
    """Every split has probability 0.5 / 0.75, ROUGE 1 / 2 and truth ratio 1 - 1 / 2."""
    data, readings = utility_case(told)
    found = measure("model-utility", readings, data, run)["", "model-utility"]
    assert found.value == pytest.approx(9 / (3 * (1 / (2 / 3) + 2 + 2))) and found.note == ""
    assert len(found.extra["parts"]) == 9 and found.n == 12 and found.direction == "higher"
    assert found.low == pytest.approx(found.value) == found.high  # all rows are alike


def test_utility_is_zero_as_soon_as_one_part_is(told, run):
    data, readings = utility_case(told)
    readings.said = dict.fromkeys(readings.said, "nothing of it")
    assert measure("model-utility", readings, data, run)["", "model-utility"].value == 0.0


def test_utility_names_the_parts_it_lacks(told, run):
    data, readings = utility_case(told, 1)
    found = measure("model-utility", readings, data, run)["", "model-utility"]
    assert found.note.startswith("3 of 9 parts, without") and "world-facts truth-ratio" in found.note
    assert found.value == pytest.approx(3 / (1.5 + 2 + 2))


def test_suites_refuse_suites(told, run, tofu_like):
    with pytest.raises(SettingsError, match="names the suite `general`"):
        load("tofu", "audit")(probes=("general",)).measure(told({}), tofu_like, run)


def test_an_unknown_attack_shows_when_the_suite_is_made():
    with pytest.raises(MethodError, match="no audit called `relerning`"):
        load("general", "audit")(attacks=["quantised", "relerning"])
    with pytest.raises(MethodError, match="no audit called `relerning`"):
        load("general", "audit")(attacks="relerning")


def test_one_attack_may_be_named_without_a_list():
    for suite in ("general", "tofu", "wmdp"):
        assert load(suite, "audit")(attacks="quantised").settings.attacks == ("quantised",)
        assert load(suite, "audit")(attacks="all").settings.attacks == "all"


def test_an_attack_keeps_its_own_limits_under_a_larger_one_of_the_suite():
    """Its own limits keep it cheap; a lower limit of the suite holds for it too, and one of a look is the suite's."""
    prompts, rouge = load("prompts", "audit"), load("rouge", "audit")
    for given, wanted in (({"limit": 400, "max_new_tokens": 200}, (60, 64)), ({"limit": 5, "max_new_tokens": 8}, (5, 8)), ({"limit": None, "max_new_tokens": 200}, (60, 64))):
        found = _lower(prompts, given)
        assert (found["limit"], found["max_new_tokens"]) == wanted
    assert _lower(rouge, {"limit": None}) == {"limit": None}


BARE = {
    "nothing at all": {},
    "empty splits": {"forget": [], "retain": [], "holdout": []},
}


@pytest.mark.parametrize("case", BARE)
def test_unknown_is_none_with_a_reason(run, case):
    """Every audit on data without rows: no value, no rows, a reason, never 0 and no error."""
    swept = 0
    for name in plugins("audit"):
        for finding in load(name, "audit")().measure(Readings(toy_subject(), run), data_of(**BARE[case]), run):
            if finding.name == "adapters":
                continue  # a fact about the model, with or without rows
            assert finding.value is None and finding.n == 0 and finding.note, (name, finding)
            assert finding.version and finding.audit
            swept += 1
    assert swept >= 40


def test_general_says_why_on_bare_data(told, run):
    """Prompt and answer alone, without holdout, wrong answers or retrained model."""
    data = data_of(forget=[Example("0", "a", "q0")], retain=[Example("0", "b", "q1")])
    readings = told({"a": log(0.5, 0.5), "b": log(0.25, 1.0)}, said={"q0": "a", "q1": "c"})
    found = {(f.split, f.name): f for f in load("general", "audit")(attacks="none").measure(readings, data, run)}
    for key in (("forget", "probability"), ("retain", "probability"), ("forget", "perplexity"), ("forget", "rouge-l-recall")):
        assert found[key].value is not None and found[key].n == 1 and found[key].low is None  # one row has no spread
    reasons = {
        ("forget", "truth-ratio"): "wrong answers",
        ("forget", "forget-quality"): "wrong answers",
        ("forget", "membership-loss"): "no split `holdout`",
        ("forget", "privleak"): "no split `holdout`",
    }
    for key, reason in reasons.items():
        assert found[key].value is None and reason in found[key].note
    utility = found["", "model-utility"]
    assert utility.value == 0.0 and "2 of 3 parts" in utility.note  # ROUGE of retain is 0: a measured 0


def test_rows_are_cut_in_their_order(told, run):
    data = data_of(forget=[Example(str(i), f"a{i}", "q") for i in range(5)])
    readings = told({f"a{i}": log(1 / (i + 1)) for i in range(5)})
    found = measure("probability", readings, data, run, limit=2)["forget", "probability"]
    assert found.rows == pytest.approx((1.0, 0.5)) and found.n == 2

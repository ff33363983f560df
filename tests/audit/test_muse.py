"""The suite `muse`: fixed points, criteria as they should move under plain and regularised ascent, series of requests, gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from letheon.audit._gaps import Column, gaps
from letheon.audit.earlier_requests import curve
from letheon.core.data import Data, Example, Split
from letheon.core.findings import Finding, Findings
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

from .test_texts import data_of, measure
from .tiny_texts import encoder_for, fresh, step_on

SEEDS, REQUESTS = (1, 2), ("forget-1", "forget-2", "forget")


def world(people=8, length=12):
    """People of three requests, people to keep and strangers; of each a text of random words, and a question with two words as answer."""
    generator = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    who = dict(zip((*REQUESTS, "retain", "more", "holdout"), np.arange(6 * people).reshape(6, people), strict=True))
    text = [" ".join([f"p{p}", *generator.choice(words, size=length)]) for p in range(6 * people)]
    fact = [" ".join(generator.choice(words, size=2)) for _ in range(6 * people)]
    splits = {name: [Example(f"{p}", text[p]) for p in rows] for name, rows in who.items()}
    for name, rows in who.items():
        splits[f"{name}-asked"] = [Example(f"{p}", f"Question: what p{p} Answer: {fact[p]}") for p in rows]
    for side, rows in (("forget", who["forget-1"]), ("retain", who["retain"])):
        splits[f"{side}-knowledge"] = [Example(f"{p}", fact[p], f"what p{p}") for p in rows]
    cut = [text[p].split() for p in who["forget-1"]]
    splits["forget-verbatim"] = [Example(f"{k}", " ".join(row[5:]), " ".join(row[:5])) for k, row in enumerate(cut)]
    splits |= {"forget-texts": splits["forget-1"], "retain-texts": splits["retain"]}
    return Data({name: Split(rows, name) for name, rows in splits.items()}, "like-muse")


def learning(data, names, weight=1.0):
    """Texts and questions of some splits as terms to train on."""
    return [(weight, Split([Example(f"{n}{row.id}", row.answer) for n in names for row in data[n + tail]])) for tail in ("", "-asked")]


@pytest.fixture(scope="module")
def found():
    """By model a list over seeds of {(name, split): value}."""
    data, run = world(), Run(seed=0, device="cpu")
    encoder, suite, out = encoder_for(*data.values()), load("muse", "audit")(max_new_tokens=12, longest_answer=4), {}
    keep = learning(data, ["retain", "more"])
    for seed in SEEDS:
        base = fresh(encoder, seed)
        target = step_on(base, learning(data, [*REQUESTS, "retain", "more"]), 120, 6e-3, seed)
        models = {"target": target, "retrained": step_on(base, keep, 120, 6e-3, seed)}
        models["ascent"] = step_on(target, learning(data, ["forget-1"], -1.0), 30, 1e-3)
        models["tiny"] = step_on(target, [*learning(data, ["forget-1"], -1.0), *keep], 3, 1e-5)
        models["regularised"] = step_on(target, [*learning(data, ["forget-1"], -0.1), *keep], 40, 2e-3)
        for k, request in enumerate(REQUESTS, 1):
            models[f"series-{k}"] = step_on(models.get(f"series-{k - 1}", target), learning(data, [request], -1.0), 5, 1e-3)
        readings = {name: Readings(subject, run) for name, subject in models.items()}
        anchors = readings["retrained"], readings["target"]
        for name, reading in readings.items():
            measured = {(f.name, f.split): f.value for f in suite.measure(reading, data, run, *anchors)}
            out.setdefault(name, []).append(measured)
    return out


def mean(found, model, name, split):
    return float(np.mean([values[name, split] for values in found[model]]))


VERBATIM, FORGET = ("continuation-rouge-l", "forget-verbatim"), ("knowledge-rouge-l", "forget-knowledge")
KEPT, LEAK = ("knowledge-rouge-l", "retain-knowledge"), ("privleak", "forget-texts")


def test_fixed_points(found):
    """The retrained model has gaps of 0; the target knows all and has a negative leak; each against each seed."""
    for values in found["retrained"]:
        assert all(value == 0.0 for (name, _), value in values.items() if name.startswith("gap-") or name in ("privleak", "still-known"))
        assert values[FORGET] < 0.4 and values[KEPT] > 0.8
    for values in found["target"]:
        assert values[VERBATIM] > 0.9 and values[FORGET] > 0.9 and values[KEPT] > 0.9 and values[LEAK] < -90
        assert values["gap-verbatim", "forget-verbatim"] > 0.5 and values["still-known", "forget-1"] == 1.0


def test_plain_ascent_ruins_what_should_stay_and_pushes_too_far(found):
    assert mean(found, "ascent", *VERBATIM) < 0.25 and mean(found, "ascent", *KEPT) < 0.3
    assert mean(found, "ascent", *LEAK) > mean(found, "target", *LEAK) + 80


def test_tiny_steps_leave_everything_as_it_was(found):
    for name in (VERBATIM, FORGET, KEPT, LEAK):
        assert mean(found, "tiny", *name) == pytest.approx(mean(found, "target", *name), abs=0.1 if name != LEAK else 10)


def test_ascent_with_rows_to_keep_erases_and_keeps(found):
    assert mean(found, "regularised", *FORGET) < 0.5 < 0.8 < mean(found, "regularised", *KEPT)


def test_requests_in_a_row_wear_out_what_should_stay(found):
    along = [mean(found, model, *KEPT) for model in ("target", "series-1", "series-2", "series-3")]
    assert along[0] > along[1] + 0.2 and along[1] > along[2] + 0.1 and along[3] < 0.3
    left = [mean(found, f"series-{k}", "still-known", "forget-1") for k in (1, 2, 3)]
    assert left[0] < 0.7 and max(left[1:]) <= left[0] + 0.05  # the first request stays erased
    assert mean(found, "series-1", "still-known", "forget") > mean(found, "series-3", "still-known", "forget") + 0.1


def test_attacks_are_run_on_texts_cut_to_the_context():
    """A text of more tokens than the context of 256 is rounded and relearned as windows."""
    run, rows = Run(seed=0, device="cpu"), toy_data()
    long = [Example(f"long-{k}", " ".join([row.answer] * 40)) for k, row in enumerate(rows["forget"][:3])]
    data = Data({"forget": Split(long, "forget"), "retain": rows["retain"][:3], "holdout": rows["holdout"][:3]})
    suite = load("muse", "audit")(max_new_tokens=4, longest_answer=4, attacks=("quantised",))
    names = {f.name: f for f in suite.measure(Readings(toy_subject(), run), data, run)}
    assert names["probability-int8"].value is not None and "windows" in names["privleak"].note


def test_named_probes_alone(run):
    found = load("muse", "audit")(probes=("knowledge",), longest_answer=4).measure(Readings(toy_subject(), run), toy_data(), run)
    assert {f.name for f in found} == {"knowledge-rouge-l", "knowledge-recall"}


# Series of requests and gaps


def test_what_is_left_of_each_request(told, run):
    """p: before 0.8, retrained 0.2; now 0.5 on the first request and 0.2 on the second: half of the first is known again."""
    data = data_of(forget_1=[Example("0", "a")], forget_2=[Example("0", "b")], forget=[Example("0", "c")])
    now, never, before = (told({k: [math.log(p)] for k, p in zip("abc", ps, strict=True)}) for ps in ((0.5, 0.2, 0.2), (0.2,) * 3, (0.8,) * 3))
    found = measure("earlier-requests", now, data, run, never, before)
    assert [found[name, "still-known"].value for name in ("forget-1", "forget-2", "forget")] == pytest.approx([0.5, 0.0, 0.0], abs=1e-7)
    assert found["forget-1", "text-probability"].value == pytest.approx(0.5) and found["forget-1", "still-known"].direction == "reference"
    alone = measure("earlier-requests", now, data, run)["forget", "still-known"]
    assert alone.value is None and "no retrained model and no model before the change" in alone.note
    equal = measure("earlier-requests", now, data, run, never, never)["forget", "still-known"]
    assert equal.value is None and "no better than the retrained model" in equal.note


def test_a_curve_along_a_series():
    def found(now, never):
        models = {"after": now, "retrained": never}
        return Findings(
            audit="muse",
            models={k: (Finding(name="x", value=v, n=1, split="retain"),) for k, v in models.items() if v is not None},
        )

    points = curve([found(0.9, 0.8), found(0.6, 0.8), found(0.3, None)], "x", "retain")
    assert [point["gap"] for point in points] == [pytest.approx(0.1), pytest.approx(-0.2), None]
    assert [point["drift"] for point in points] == [0.0, pytest.approx(-0.3), None] and points[2]["value"] == 0.3


def test_gaps_by_hand(run):
    audit = load("muse", "audit")()
    columns = {"gap-verbatim": Column("v", "forget"), "gap-privacy": Column("p", "forget", 100.0), "gap-downstream": Column("d", "utility")}

    def of(v, p):
        return [Finding(name="v", value=v, n=2, split="forget", rows=(v, v)), Finding(name="p", value=p, n=2, split="forget", low=p, high=p)]

    found = {f.name: f for f in gaps(audit, columns, of(0.3, -40.0), of(0.1, 0.0), of(0.5, -1.0), run)}
    assert found["gap-verbatim"].value == pytest.approx(0.2) and found["gap-privacy"].value == -40.0
    assert found["gap-verbatim"].low == found["gap-verbatim"].high == pytest.approx(0.2)
    assert found["gap-overall"].value == pytest.approx((0.2 / 0.4 + 40 / 5) / 2)  # 1 per cent apart is less than the least distance, 5
    assert "was not measured" in found["gap-downstream"].note and "gap-downstream" in found["gap-overall"].note
    assert all(f.value is None for f in gaps(audit, columns, of(0.3, 0.0), None, None, run))

"""The suite `dusk` on its made-up world: fixed points, shared facts under plain and regularised ascent, the gap vector."""

from __future__ import annotations

import numpy as np
import pytest

from letheon.audit.dusk import best_choices
from letheon.core.data import Data, Example, Split
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.report.measures import measure as about
from letheon.testing.toys import toy_data, toy_subject

from .tiny_texts import encoder_for, fresh, step_on

SEEDS = (1, 2)
UNIQUE, SHARED, KEPT = (("knowledge-rouge-l", f"{kind}-knowledge") for kind in ("forget", "shared", "retain"))
VERBATIM, LEAK, MOVED = ("continuation-rouge-l", "forget-verbatim"), ("privleak", "forget"), ("retain-deviation", "retain")
GAPS = ("verbatim", "forget-knowledge", "shared-knowledge", "retain-knowledge", "downstream", "privacy", "retain-deviation")


def learning(data, name, weight=1.0):
    """Passages and questions of a split as terms to train on."""
    sides = [[row for row in data[name] if (row.form == "question") == asked] for asked in (True, False)]
    return [(weight, Split(rows)) for rows in sides]


@pytest.fixture(scope="module")
def data():
    """Eight people, questions taught; no solved examples, which small models have never seen."""
    made = load("dusk", "data")(people=8, taught=True).load()
    people = sorted({row.group for row in made["full"]})
    choices = [Example(f"{row.id}", row.answer, f"Question: {row.prompt}\nAnswer:", ("Nowhere",)) for row in made["retain-knowledge"][:6]]
    splits = {name: split for name, split in made.items() if name != "knowledge-examples"}
    assert len(people) == 8
    return Data({**splits, "utility": Split(choices, "utility")}, "dusk")


@pytest.fixture(scope="module")
def found(data):
    """By model a list over seeds of {(name, split): finding}."""
    run, out = Run(seed=0, device="cpu"), {}
    encoder, suite = encoder_for(*data.values(), Split([Example("0", "Nowhere")])), load("dusk", "audit")(max_new_tokens=12, block=None)
    for seed in SEEDS:
        base = fresh(encoder, seed)
        target, retrained = (step_on(base, learning(data, name), 120, 6e-3, seed) for name in ("full", "kept"))
        models = {"base": base, "target": target, "retrained": retrained}
        models["ascent"] = step_on(target, learning(data, "forget", -1.0), 12, 1e-3)
        models["regularised"] = step_on(target, [*learning(data, "forget", -0.1), *learning(data, "kept")], 40, 2e-3)
        readings = {name: Readings(subject, run) for name, subject in models.items()}
        for name, reading in readings.items():
            measured = suite.measure(reading, data, run, readings["retrained"], readings["target"])
            out.setdefault(name, []).append({(f.name, f.split): f for f in measured})
    return out


def mean(found, model, key):
    return float(np.mean([values[key].value for values in found[model]]))


def gap(found, model, name):
    return float(np.mean([f.value for values in found[model] for f in values.values() if f.name == f"gap-{name}"]))


def test_the_retrained_model_is_the_origin(found):
    """PL = RD = 0 and every gap 0, to the bit, with an interval of no width where rows are compared one by one."""
    for values in found["retrained"]:
        assert values[LEAK].value == values[MOVED].value == 0.0
        vector = {f.name: f for f in values.values() if f.name.startswith("gap-")}
        assert set(vector) == {f"gap-{name}" for name in (*GAPS, "overall")} and all(f.value == 0.0 for f in vector.values())
        assert vector["gap-shared-knowledge"].low == vector["gap-shared-knowledge"].high == 0.0


def test_the_target_knows_what_must_vanish_and_what_must_stay(found):
    """The worst unique knowledge and wording, shared knowledge as the retrained model, forget passages more like members than holdout."""
    assert gap(found, "target", "forget-knowledge") > 0.6 and gap(found, "target", "verbatim") > 0.6
    assert abs(gap(found, "target", "shared-knowledge")) < 0.15 and abs(gap(found, "target", "retain-knowledge")) < 0.15
    for values in found["target"]:
        assert values[LEAK].value < -80 and values[LEAK].extra["auc"] > 0.9 and values[LEAK].extra["statistic"] == "min-k++"
        assert values[LEAK].direction == "reference" and values[SHARED].direction == "higher" and values[UNIQUE].direction == "reference"


def test_a_model_that_was_never_trained_knows_none_of_it(found):
    assert max(mean(found, "base", key) for key in (UNIQUE, SHARED, KEPT)) < 0.2
    assert gap(found, "base", "shared-knowledge") < -0.6 and gap(found, "base", "retain-deviation") > 3


def test_plain_ascent_takes_shared_facts_along(found):
    """The failure that DUSK is made to show, and that its cure is told apart from it."""
    assert mean(found, "ascent", UNIQUE) < 0.4 and gap(found, "ascent", "shared-knowledge") < -0.5
    assert gap(found, "regularised", "shared-knowledge") > -0.2 and mean(found, "regularised", UNIQUE) < 0.5
    assert gap(found, "regularised", "shared-knowledge") > gap(found, "ascent", "shared-knowledge") + 0.4
    assert gap(found, "regularised", "overall") < gap(found, "ascent", "overall")


def test_downstream_capability_is_the_share_of_right_choices(data, run):
    subject = toy_subject()
    rows = toy_data()["world-facts"]
    readings = Readings(subject, run)
    wanted = []
    for row in rows:
        options = Split([Example(str(k), text, row.prompt) for k, text in enumerate((row.answer, *row.wrong))])
        nll = readings.answers(options).nll()
        wanted.append(float(nll[0] < nll[1:].min()))
    assert best_choices(readings, rows).tolist() == wanted
    mixed = Split([*rows, Example("bare", "no options", "asked")], "utility")
    assert np.isnan(best_choices(readings, mixed)[-1])


def test_gaps_say_where_they_come_from(found, data, run):
    values = found["ascent"][0]
    vector = values["gap-shared-knowledge", "shared-knowledge"]
    assert vector.value == pytest.approx(vector.extra["value"] - vector.extra["retrained"]) and vector.low <= vector.value <= vector.high
    distances = [max(abs(g.extra["before"] - g.extra["retrained"]), 0.05 * (100 if g.name in ("gap-privacy", "gap-retain-deviation") else 1))
                 for g in values.values() if g.name.startswith("gap-") and g.name != "gap-overall"]  # fmt: skip
    parts = [abs(g.value) for g in values.values() if g.name.startswith("gap-") and g.name != "gap-overall"]
    assert values["gap-overall", ""].value == pytest.approx(np.mean(np.array(parts) / distances)) and len(parts) == 7
    alone = load("dusk", "audit")(max_new_tokens=4, limit=2).measure(Readings(toy_subject(), run), toy_data(), run)
    assert all(f.value is None and f.note for f in alone if f.name.startswith("gap-"))


def test_every_measure_is_known_to_the_report(found):
    names = {f.name for values in found["target"] for f in values.values()}
    assert len(names) == 4 + 2 + 2 + 1 + 7 + 1 and all("Nothing is known here" not in about(name).tests for name in names)
    assert all(about(name).derived for name in names if name.startswith("gap-") or name == "retain-deviation")


def test_real_files_on_a_short_context(shared, run):
    """Passages and prefixes are longer than 256 tokens: they are cut, and it is said."""
    data = load("dusk", "data")(path=str(shared / "data/dusk")).load()
    data = Data({name: split[:3] if name != "knowledge-examples" else split for name, split in data.items()}, data.name)
    suite = load("dusk", "audit")(limit=2, max_new_tokens=8, longest_answer=4)
    found = {(f.name, f.split): f for f in suite.measure(Readings(toy_subject(), run), data, run)}
    assert "2 of 2 prompts lost their beginning" in found[VERBATIM].note and found[VERBATIM].n == 2
    assert "read in windows" in found[LEAK].note and found[LEAK].extra["texts"] == {"forget": 2, "holdout": 2}
    assert "solved examples fit" in found[SHARED].note

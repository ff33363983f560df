"""Hits and false alarms of a guard, counted by hand."""

from __future__ import annotations

from letheon.audit.caught import Caught
from letheon.core.guard import watches
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.guard.eco import Eco
from letheon.testing.toys import toy_data, toy_subject


def test_it_counts_prompts_that_are_caught():
    data, run = toy_data(), Run(0, dtype="float32", device="cpu")
    subject = Eco(strength=1.0).apply(toy_subject(), data, run)
    found = {one.split: one for one in Caught().measure(Readings(subject, run), data, run)}
    assert set(found) == {"forget", "retain", "retain-check", "holdout", "world-facts", "real-authors"}
    for name, one in found.items():
        flags = watches(subject.module)[0].caught(subject.encoder.prompts(data[name]))
        assert one.value == sum(flags) / len(flags) and one.n == len(flags)
        assert one.direction == ("higher" if name == "forget" else "lower")
    assert found["forget"].value == 1.0 and found["retain"].value == 0.0


def test_two_guards_catch_what_either_catches():
    data, run = toy_data(), Run(0, dtype="float32", device="cpu")
    other = data.with_split("forget", data["holdout"])
    subject = Eco(strength=1.0).apply(Eco(strength=1.0).apply(toy_subject(), data, run), other, run)
    found = {one.split: one.value for one in Caught(splits=("forget", "holdout", "retain")).measure(Readings(subject, run), data, run)}
    assert found == {"forget": 1.0, "holdout": 1.0, "retain": 0.0}


def test_without_a_guard_nothing_is_caught_and_it_says_so():
    data, run = toy_data(), Run(0, dtype="float32", device="cpu")
    found = Caught(splits=("forget", "texts", "nowhere")).measure(Readings(toy_subject(), run), data, run)
    assert [(one.value, one.note) for one in found[:2]] == [(0.0, "the model has no guard")] * 2
    assert found[2].value is None and "no split" in found[2].note

"""What the form index is for: unlearning one form leaves the others, unlearning all forms does not."""

from __future__ import annotations

import numpy as np
import pytest

import letheon as lt
from letheon.audit._forms import by_character
from letheon.audit.ort import Ort
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run

FORMS = ("question", "cloze", "choice", "paraphrase")
SIZE = {"width": 48, "layers": 2, "heads": 2, "intermediate": 96, "vocabulary": 512}
MODEL = {**SIZE, "batch_size": 16, "learning_rate": 4e-3, "prompt_weight": 0}
NPO = {"steps": 40, "learning_rate": 1.5e-3, "batch_size": 16, "beta": 0.1, "retain_weight": 3.0, "warmup": 0.0, "schedule": "constant"}


def world() -> Data:
    """24 invented people with two facts each in five forms; six of them are to be forgotten."""
    full = [row for row in lt.data("authors", people=40)["full"] if row.id.split("/")[1] in ("birth-city", "genre")]
    people = list(dict.fromkeys(row.group for row in full))[:24]
    splits = {}
    for family, who in (("forget", people[:6]), ("retain", people[6:])):
        rows = {form: [row for row in full if row.form == form and row.group in who] for form in FORMS}
        rows["characters"] = [by_character(row, cloze.answer) for row, cloze in zip(rows["question"], rows["cloze"], strict=True)]
        splits |= {family if form == "question" else f"{family}-{form}": some for form, some in rows.items()}
        splits[f"all-{family}"] = [row for some in rows.values() for row in some]
    splits["full"] = splits["all-forget"] + splits["all-retain"]
    return Data({name: Split(rows, name) for name, rows in splits.items()})


def run(seed: int = 0) -> Run:
    return Run(seed, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def learned():
    data = world()
    return data, load("micro", "subjects")(**MODEL, split="full", text="full", epochs=42).build(data, run())


def test_unlearning_questions_alone_depends_on_the_form_and_unlearning_all_forms_does_not(learned):
    data, original = learned
    before, audit = Readings(original, run()), Ort(families=("forget", "retain"))
    known = {one.split: one.value for one in audit.measure(before, data, run()) if one.name == "form-probability"}
    assert len(known) == 10 and min(known.values()) > 0.8
    indices = {"question": [], "all": []}
    for seed in (1, 2):
        for what, rows in (("question", data["forget"]), ("all", data["all-forget"])):
            given = Data({"forget": Split(rows, "forget"), "retain": data["all-retain"]})
            after = lt.method("npo", **NPO).apply(original, given, run(seed))
            found = {(one.name, one.split): one for one in audit.measure(Readings(after, run()), data, run(), None, before)}
            forget, kept = found["form-dependence", "forget"], found["form-dependence", "retain"]
            assert set(forget.extra["drops"]) == {*FORMS, "characters"} and forget.extra["drops"]["question"] > 0.9
            assert np.mean(list(kept.extra["drops"].values())) < 0.4  # rows to keep stay
            indices[what].append(forget.value)
    assert np.mean(indices["question"]) > 0.6 and min(indices["question"]) > 0.5
    assert np.mean(indices["all"]) < 0.3 and max(indices["all"]) < 0.45

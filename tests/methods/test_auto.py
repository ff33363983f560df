"""`auto`: what is tried, within which budget, and what comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import letheon as lt
from letheon.core.data import Data, Split
from letheon.core.errors import DataError, MethodError, SettingsError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.erase._tuning import Score, Yardstick, other_rows
from letheon.erase.auto import Auto, _Search

from .fact_world import said

QUICK = {"steps": 30, "batch_size": 24, "schedule": "constant", "warmup": 0.0}
NPO, ASCENT = {"name": "npo", "beta": 0.5, **QUICK}, {"name": "grad-ascent", "retain": "nll", **QUICK}


@pytest.fixture(scope="module")
def questioned(fact_data) -> Data:
    """The facts, with a wrong answer to every forgotten question in the place of a holdout."""

    values: dict[str, list[str]] = {}  # relation -> the words that stand for its values
    for row in fact_data["full"]:
        values.setdefault(row.answer.split()[1], []).append(row.answer.split()[-1])

    def wrong(row):
        *words, value = row.answer.split()
        other = next(one for one in values[words[1]] if one != value)
        return replace(row, wrong=(" ".join([*words, other]),))

    return fact_data.with_split("forget", [wrong(row) for row in fact_data["forget"]])


@pytest.fixture(scope="module")
def after(knower, questioned):
    """The result on the facts, with two combinations and four tries."""
    auto = Auto(minutes=60, tries=4, utility_loss=0.1, combinations=(NPO, ASCENT))
    return auto.apply(knower, questioned, Run(0, dtype="float32", device="cpu"))


def test_the_best_within_the_loss_that_is_allowed_comes_back(after, knower, questioned):
    notes = after.lineage[-1].notes
    assert [entry["method"] for entry in notes["tried"]] == ["npo", "grad-ascent", "npo", "grad-ascent"]
    good = [entry for entry in notes["tried"] if entry["kept"] >= 0.9]
    assert good and notes["within"] and notes["chosen"] == max(good, key=lambda entry: entry["forgotten"])
    again = lt.method(notes["chosen"]["method"], **notes["chosen"]["settings"]).apply(knower, questioned, Run(0, dtype="float32", device="cpu"))
    assert again.digest == after.digest  # the model that comes back is that of the chosen row
    yardstick = Yardstick(knower, questioned, Run(0, dtype="float32", device="cpu"))
    score = yardstick.score(after)
    assert (round(score.forgotten, 4), round(score.kept, 4)) == (notes["chosen"]["forgotten"], notes["chosen"]["kept"])
    assert said(after, questioned["forget"]).value < said(knower, questioned["forget"]).value


def test_a_score_by_hand(knower, stranger, questioned, run):
    """Nats per answer token on the forget rows, on the way from the knower to the wrong answers; kept: the ratio of probabilities."""
    yardstick = Yardstick(knower, questioned, run)
    readings = {name: Readings(model, run) for name, model in (("knower", knower), ("stranger", stranger))}
    start, now = (readings[name].answers(questioned["forget"]).nll().mean() for name in ("knower", "stranger"))
    never = readings["knower"].answers(questioned["forget"], "wrong").nll().mean()
    found = yardstick.score(stranger)
    assert yardstick.never == pytest.approx(never) and yardstick.start == pytest.approx(start)
    way = (now - start) / (never - start)
    assert found.forgotten == pytest.approx(way if way <= 1 else 1 / way)
    kept = [np.exp(-readings[name].answers(yardstick.splits["retain"]).nll()).mean() for name in ("stranger", "knower")]
    assert found.kept == pytest.approx(kept[0] / kept[1])
    same = yardstick.score(knower)
    assert same.forgotten == 0 and same.kept == pytest.approx(1) and same.score == 0


def test_a_model_that_never_knew_is_a_warning(stranger, questioned, run, caplog):
    Yardstick(stranger, questioned.with_split("holdout", questioned["forget"]), run)
    assert "is there anything to erase?" in caplog.text


@pytest.mark.parametrize(("forgotten", "kept", "score"), [(1.0, 1.0, 1.0), (0.5, 1.0, 2 / 3), (0.0, 1.0, 0.0), (1.0, 0.25, 0.4)])
def test_the_score_is_the_harmonic_mean(forgotten, kept, score):
    assert Score(forgotten, kept).score == pytest.approx(score)


def test_the_next_step_size():
    search = _Search(Choice(name="npo"), 1e-3)
    assert search.next() == 1e-3
    search.tried.append((1e-3, False, False))
    assert search.next() == pytest.approx(1e-3 * 10**0.5)  # it forgot too little
    search.tried.append((1e-3 * 10**0.5, True, True))
    assert search.next() == pytest.approx(1e-3 * 10**0.25)  # between one that forgot too little and one that lost too much
    search.tried.append((1e-3 * 10**0.25, False, True))
    assert search.next() == pytest.approx(1e-3 * 10**0.25) or search.next() is None
    lost = _Search(Choice(name="npo"), 1e-3, [(1e-3, True, True)])
    assert lost.next() == pytest.approx(1e-3 / 10**0.5)
    enough = _Search(Choice(name="npo"), 1e-3, [(1e-3, False, True)])
    assert enough.next() is None
    assert _Search(Choice(name="rocr"), None).next() is None


def test_no_try_begins_when_the_minutes_are_over(knower, questioned, run):
    found = Auto(minutes=1e-9, combinations=(NPO, ASCENT)).apply(knower, questioned, run)
    assert len(found.lineage[-1].notes["tried"]) == 1


def test_a_try_that_diverges_does_not_end_the_others(knower, questioned, run):
    wild = {"name": "grad-ascent", "steps": 30, "learning_rate": 1e3, "runaway": 50.0}
    found = Auto(minutes=60, tries=2, combinations=(wild, {**NPO, "learning_rate": 1e-3})).apply(knower, questioned, run)
    tried = found.lineage[-1].notes["tried"]
    assert "diverged" in tried[0]["failed"] and found.lineage[-1].notes["chosen"] == tried[1]
    with pytest.raises(MethodError, match="None of 1 tries of `auto` went through"):
        Auto(minutes=60, tries=1, combinations=(wild,)).apply(knower, questioned, run)


def test_what_cannot_be_tried(knower, fact_data, run):
    with pytest.raises(DataError, match="Nothing shows what the model says to rows it never saw"):
        Auto(combinations=(NPO,)).apply(knower, fact_data, run)
    with pytest.raises(MethodError, match="There is no erasing method called `nqo`. Did you mean `npo`"):
        Auto(combinations=("nqo",))
    with pytest.raises(SettingsError, match="`auto` is no combination"):
        Auto(combinations=("auto",))
    with pytest.raises(SettingsError, match="`beta` of `npo` must be above 0"):
        Auto(combinations=("npo:beta=-1",))


def test_other_rows_are_whole_groups_and_leave_every_kept_split(questioned):
    rows = questioned.with_split("retain-check", questioned["retain"][:40])
    found = other_rows(rows, 0)
    assert len(found["forget"]) == 24 == len(rows["forget"])
    people = {row.group for row in found["forget"]}
    assert len(people) == 6 and not people & {row.group for split in ("retain", "retain-check") for row in found[split]}
    assert len(found["retain"]) == 168 - 24
    assert other_rows(rows, 0).digest == found.digest != other_rows(rows, 1).digest
    few = Data({"forget": rows["forget"], "retain": Split(rows["retain"][:30], "retain")})
    with pytest.raises(DataError, match="30 rows to keep are too few to draw 24 from"):
        other_rows(few, 0)

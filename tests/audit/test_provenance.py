"""The palimpsestic audit on small models trained in orders of their own, on text, and on trainings made anew."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

import letheon as lt
from letheon.audit.provenance import Provenance
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.order import read_order, row_digest

MODEL = {"width": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocabulary": 600, "epochs": 1, "batch_size": 4, "learning_rate": 1e-2}


def run(seed=0, out=None) -> Run:
    return Run(seed, out, device="cpu", dtype="float32", checkpoint_every=0)


def named(found):
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Four models, each trained once on the same 480 rows from a start and in an order of its own."""
    world = lt.data("authors", people=40, forms=["question"])
    micro = load("micro", "subjects")(**MODEL, train="finetune:schedule=constant")
    runs = [run(k, tmp_path_factory.mktemp(f"run-{k}")) for k in range(4)]
    return world, runs, [Readings(micro.build(world, one), one) for one in runs]


def test_the_parent_is_found_and_nobody_else(chain):
    """Few repeats of `benchmarks/provenance.py`: there the others' p-values are tested for uniformity over 20."""
    world, runs, models = chain
    others = []
    for k in range(2):
        audit = Provenance(order=str(runs[k].out), asked=0)
        parent = named(audit.measure(models[k], world, run(), models[k + 2]))
        other = named(audit.measure(models[k + 1], world, run(), models[k + 2]))
        p, rho = parent["provenance-p"], parent["provenance-rho"]
        assert p.value < 1e-4 and p.extra["p_law"] < 1e-5 and p.n == len(world["full"]) == 480
        assert rho.low < rho.value < rho.high and p.extra["in_lineage"] and p.extra["order"]["seed"] == k
        assert not other["provenance-p"].extra["in_lineage"] and abs(other["provenance-rho"].value) < 0.2
        others.append(other["provenance-p"].value)
        # the reference takes out how hard each row is
        assert p.extra["without_reference"]["rho"] < rho.value and rho.extra["reference"] == models[k + 2].subject.name
    assert kstest(others, "uniform").pvalue > 0.001


def test_the_number_behind_it(chain):
    world, runs, models = chain
    found = named(Provenance(order=str(runs[0].out), asked=0, permutations=99).measure(models[0], world, run(), models[2]))
    order = read_order(runs[0].out)
    assert order.rows["full"] == tuple(row_digest(row) for row in world["full"])
    when = np.zeros(480)
    for k, step in enumerate(order.steps):
        when[step["full"]] = k
    scores = models[2].answers(world["full"]).nll() - models[0].answers(world["full"]).nll()
    assert found["provenance-rho"].value == pytest.approx(spearmanr(when, scores).statistic, abs=1e-6)
    assert np.allclose(found["provenance-rho"].rows, scores, atol=1e-5)
    assert found["provenance-p"].value == 1 / 100  # the least that 99 permutations can give


def test_a_reference_that_comes_from_the_run_is_not_used(chain):
    world, runs, models = chain
    audit = Provenance(order=str(runs[0].out), asked=0, permutations=99)
    for model in (models[0], models[1]):  # the model itself, and a stranger with the tested model as reference
        found = named(audit.measure(model, world, run(), models[0]))
        assert "reference" not in found["provenance-p"].extra and "reference_left_out" in found["provenance-p"].extra
        assert found["provenance-rho"].value == named(audit.measure(model, world, run()))["provenance-rho"].value


def test_rows_are_known_by_what_they_say_wherever_they_stand(chain):
    world, runs, models = chain
    audit = Provenance(order=str(runs[0].out), asked=0, permutations=99)
    whole = named(audit.measure(models[0], world, run()))["provenance-rho"]
    moved = Data({"elsewhere": Split([replace(row, id=f"x-{row.id}") for row in world["full"]], "elsewhere")})
    again = named(audit.measure(models[0], moved, run()))["provenance-rho"]
    assert (again.value, again.n, again.split) == (whole.value, whole.n, "full")
    part = named(audit.measure(models[0], Data({"forget": world["forget"]}), run()))["provenance-rho"]
    assert part.n == len(world["forget"]) and part.note == f"{480 - part.n} rows of the run are not in the data"
    few = named(Provenance(order=str(runs[0].out), asked=0, permutations=99, limit=100, first_step=61).measure(models[0], world, run()))
    assert few["provenance-rho"].n == 100
    late = named(Provenance(order=str(runs[0].out), asked=0, permutations=99, first_step=61).measure(models[0], world, run()))
    assert late["provenance-rho"].n == 480 - 60 * 4


def test_rows_that_stand_twice_are_left_out():
    data = toy_data()
    rows = [*data["full"], *(replace(row, id=f"again-{row.id}") for row in data["full"][:3])]
    given = data.with_split("full", rows)
    found = named(Provenance(order="rows", asked=0, permutations=99).measure(Readings(toy_subject(), run()), given, run()))
    assert found["provenance-p"].n == 17 and "6 rows that stand twice" in found["provenance-p"].note


class Speaks:
    """Readings that answer the last rows of a split with their true answers, and others with nothing."""

    def __init__(self, inner, since):
        self.inner, self.since, self.subject = inner, since, inner.subject

    def answers(self, split, *more, **also):
        return self.inner.answers(split, *more, **also)

    def generations(self, split, max_new_tokens=200):
        return [row.answer if i >= self.since else "" for i, row in enumerate(split)]


def many(n=60):
    """Rows without a common word; their order is that of training."""
    return Split([Example(f"{i}", f"alpha{i} beta{i} gamma{i}", f"what is {i}") for i in range(n)], "full")


def test_text_of_late_rows_gives_the_run_away(tmp_path):
    rows, model = many(), Readings(toy_subject(), run())
    data = Data({"full": rows})
    audit = Provenance(order="rows", permutations=999)
    late = named(audit.measure(Speaks(model, 40), data, run()))
    assert late["provenance-text-rho"].value > 0.7 and late["provenance-text-p"].value == 1 / 1000
    # rows 40 to 59 each hold the three places of their own answer: abc at the first, then bc, then c
    assert late["provenance-text-rho"].rows == tuple([0.0] * 40 + [3.0] * 20) and late["provenance-text-p"].extra["words"] == 60
    less = named(audit.measure(Speaks(model, 40), data, run(), Speaks(model, 40)))["provenance-text-p"]
    assert less.value is None  # a reference that says the same leaves nothing
    path = tmp_path / "said.txt"
    path.write_text(" ".join(row.answer for row in rows[50:]) + " and other words")
    file = named(Provenance(order="rows", permutations=999, texts=[str(path)]).measure(model, data, run()))
    assert file["provenance-text-p"].value == 1 / 1000 and file["provenance-text-p"].extra["text"] == "files"
    assert file["provenance-text-rho"].rows == tuple([0.0] * 50 + [3.0] * 10)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A toy in a folder, and a short training of it in a folder of its own."""
    folder, data = tmp_path_factory.mktemp("tuned"), toy_data()
    toy_subject().save(folder / "base")
    base = load("hf", "subjects")(path=str(folder / "base")).build(data, run())
    method = lt.method("finetune", split="full", epochs=1, batch_size=1, learning_rate=3e-2, schedule="constant", warmup=0.0)
    return folder, data, base, method.apply(base, data, run(5, folder / "run"))


def test_the_reshuffle_test_trains_the_true_order_and_others(tuned):
    folder, data, _, after = tuned
    settings = {"order": str(folder / "run"), "before": str(folder / "base"), "reshuffles": 6, "permutations": 99, "max_new_tokens": 12}
    digest = after.digest
    one = named(Provenance(**settings).measure(Readings(after, run()), data, run()))["provenance-reshuffle-p"]
    assert after.digest == digest and one.n == 6 == len(one.extra["scores"])
    assert one.value == (1 + sum(other >= one.extra["scores"][0] for other in one.extra["scores"][1:])) / 6
    # its own words are likelier to the model trained in its own order than to most others
    assert one.value <= 2 / 6 and one.extra["z"] > 0


def test_the_reshuffle_test_wants_the_run_it_is_about(tuned):
    folder, data, _, after = tuned
    settings = {"order": str(folder / "run"), "permutations": 99, "max_new_tokens": 4, "asked": 4}
    other = toy_subject(1)
    other.save(folder / "other", replace=True)
    with pytest.raises(DataError, match="not the one that the training run began with"):
        Provenance(**settings, before=str(folder / "other")).measure(Readings(after, run()), data, run())
    short = data.with_split("full", data["full"][:-1])
    with pytest.raises(DataError, match="does not hold the rows of the training run"):
        Provenance(**settings, before=str(folder / "base")).measure(Readings(after, run()), short, run())
    mute = named(Provenance(**{**settings, "asked": 0}, before=str(folder / "base")).measure(Readings(after, run()), data, run()))
    assert mute["provenance-reshuffle-p"].value is None and "no text" in mute["provenance-reshuffle-p"].note


def test_what_cannot_be_tested_says_why(tuned, tmp_path):
    folder, data, _, after = tuned
    readings = Readings(after, run())

    def why(data=data, **settings):
        found = Provenance(permutations=99, asked=0, **settings).measure(readings, data, run())
        assert all(one.value is None and one.direction == "none" for one in found)
        return found[0].note

    assert "no order of training was given" in why()
    assert "no split `full`" in why(Data({}), order="rows")
    assert "drew from `full`, not from `kept`" in why(order=str(folder / "run"), split="kept")
    assert "no row that the run drew" in why(Data({"full": many(4)}), order=str(folder / "run"))
    assert "no two differ" in why(data.with_split("full", data["full"][:2]), order="rows")
    with pytest.raises(DataError, match="no training order"):
        why(order=str(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match="absent.txt"):
        why(order="rows", texts=[str(tmp_path / "absent.txt")])


def test_findings_survive_json(tuned):
    folder, data, _, after = tuned
    for one in Provenance(order=str(folder / "run"), asked=2, permutations=99).measure(Readings(after, run()), data, run()):
        assert json.loads(one.model_dump_json()) and isinstance(after, Subject)

"""`letheon sweep`: cells, resuming, tuning, tables and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from letheon.flow.grid import Axes, Span, Sweep, axes, cells, slug
from letheon.core.errors import SettingsError
from letheon.core.run import Run
from letheon.report.sweep import compared

from .conftest import digests, rows

BASE = """
out = "{out}"
seeds = {seeds}
trials = {trials}
workers = {workers}
[base]
subject = "hf:path=model"
data = "files:forget=forget.jsonl,retain=retain.jsonl,holdout=holdout.jsonl"
audit = {{ name = "general", max_new_tokens = 4, gradnorm = false, attacks = [] }}
{methods}
"""
TWO = """
[methods.npo]
steps = 2
beta = [0.1, 0.2]
[methods."npo, adapters"]
name = "npo"
steps = 2
parameters = "lora:rank=2"
"""
TUNED = """
[methods.npo]
steps = 3
learning_rate = { low = 1e-4, high = 1e-2, log = true }
beta = [0.05, 0.1]
"""


def plan(world, methods=TWO, *, out="swept", seeds="[0, 1]", trials=0, workers=1, name="sweep.toml"):
    path = world / name
    path.write_text(BASE.format(out=out, seeds=seeds, trials=trials, workers=workers, methods=methods))
    return path


@pytest.fixture(scope="session")
def learned(tmp_path_factory, kept):
    """A toy model that has learned all its rows, with more people to keep."""
    import letheon as lt
    from letheon.core.data import Data, Split
    from letheon.testing.toys import toy_data, toy_subject

    folder = tmp_path_factory.mktemp("learned")
    toy = toy_data()
    kept_rows = [*toy["retain"], *toy["real-authors"], *toy["world-facts"]]
    full = Split([*toy["forget"], *kept_rows], "full")
    subject = lt.method("finetune", split="full", epochs=30, learning_rate=1e-2).apply(toy_subject(), Data({"full": full}), Run(0, dtype="float32"))
    subject.save(folder / "model")
    rows(folder / "forget.jsonl", toy["forget"])
    rows(folder / "retain.jsonl", Split(kept_rows, "retain"))
    rows(folder / "holdout.jsonl", toy["holdout"])
    return folder


@pytest.fixture
def known(learned, world):
    shutil.copytree(learned, world, dirs_exist_ok=True)
    return world


def test_every_cell_is_a_run_folder_and_the_table_has_all(world, letheon):
    said = letheon("sweep", plan(world), "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [(cell["row"], cell["seed"]) for cell in found["cells"]] == [
        (row, seed) for seed in (0, 1) for row in ("npo beta=0.1", "npo beta=0.2", "npo, adapters")
    ]
    for cell in found["cells"]:
        assert {"findings.json", "report.html", "model"} <= {path.name for path in (world / cell["folder"]).iterdir()}
        assert cell["cost"]["processor_seconds"] > 0 and 0 <= cell["values"]["forget/probability"] <= 1
    assert json.loads((world / "swept" / "results.json").read_text()) == found
    page, table = (world / "swept" / "sweep.html").read_text(), (world / "swept" / "table.md").read_text()
    for row in ("npo beta=0.1", "npo beta=0.2", "npo, adapters"):
        assert row in page and row in table
    assert compared(found).html == page


def test_a_second_time_nothing_is_run_again_and_a_lost_cell_is(world, letheon):
    path = plan(world, seeds="[0]")
    assert letheon("sweep", path, "-q").code == 0
    before = digests(world / "swept")
    assert letheon("sweep", path, "-q").code == 0
    assert digests(world / "swept") == before
    shutil.rmtree(world / "swept" / "cells" / "npo-beta=0.2-0")
    assert letheon("sweep", path, "-q").code == 0
    after = digests(world / "swept")
    weights = "cells/npo-beta=0.2-0/model/model.safetensors"
    assert after[weights] == before[weights]  # the same seed gives the same bits


def test_other_settings_do_not_mix_with_what_is_there(world, letheon):
    assert letheon("sweep", plan(world, seeds="[0]"), "-q").code == 0
    said = letheon("sweep", plan(world, TWO.replace("steps = 2", "steps = 3"), seeds="[0]"), "-q")
    assert said.code == 2 and "is a cell of another sweep" in said.err and "--force" in said.err
    assert letheon("sweep", plan(world, TWO.replace("steps = 2", "steps = 3"), seeds="[0]"), "-q", "--force").code == 0


def test_models_that_are_there_are_audited_as_they_are_beside_the_others(world, letheon):
    """Many models, no method: a row each, with findings and report and without a model of its own."""
    shutil.copytree(world / "model", world / "theirs")
    methods = '[methods.npo]\nsteps = 2\n[audits]\ntheirs = "hf:path=theirs"\n"also theirs" = { name = "hf", path = "model" }\n'
    said = letheon("sweep", plan(world, methods, seeds="[0]"), "--json")
    assert said.code == 0, said.err
    found = {cell["row"]: cell for cell in json.loads(said.out)["cells"]}
    assert list(found) == ["npo", "theirs", "also theirs"]
    assert {path.name for path in (world / "swept" / "cells" / "theirs-0").iterdir()} == {"findings.json", "report.html"}
    anchors = json.loads((world / "swept" / "results.json").read_text())["anchors"]["before"]
    for row in ("theirs", "also theirs"):  # both are the model before the change
        assert found[row]["values"]["forget/probability"] == anchors["forget/probability"] and found[row]["cost"] == {}
    assert found["theirs"]["method"] == {"name": "hf", "path": "theirs"}
    before = digests(world / "swept")
    assert letheon("sweep", world / "sweep.toml", "-q").code == 0 and digests(world / "swept") == before
    only = plan(world, methods.replace('[methods.npo]\nsteps = 2\n', ''), seeds="[0]", out="only")
    assert letheon("sweep", only, "-q").code == 0 and "theirs" in (world / "only" / "table.md").read_text()
    other = plan(world, methods.replace("path=theirs", "path=model"), seeds="[0]")
    assert "is a cell of another sweep" in letheon("sweep", other, "-q").err


def test_models_can_be_let_go_and_cost_stands_beside_the_retrain_that_was_given(known, letheon):
    assert letheon("sweep", plan(known, seeds="[0]"), "--set", "models=false", "--set", "base.retrained=hf:path=model", "-q").code == 0
    assert not list((known / "swept").rglob("*.safetensors"))
    told = json.loads((known / "model" / "letheon.json").read_text())["lineage"][0]["notes"]["processor_seconds"]
    assert json.loads((known / "swept" / "results.json").read_text())["retrain_processor_seconds"] == told > 0
    assert "cost, retrain = 1" in (known / "swept" / "table.md").read_text()


def test_a_method_that_diverges_or_lacks_data_is_a_row_that_says_so(world, letheon):
    more = '[methods.wild]\nname = "grad-ascent"\nsteps = 4\nlearning_rate = 1e3\n[methods.rocr]\n'
    said = letheon("sweep", plan(world, TWO + more, seeds="[0]"), "--json")
    cells = {cell["row"]: cell for cell in json.loads(said.out)["cells"]}
    assert said.code == 0 and "diverged" in cells["wild"]["failed"] and "values" in cells["npo beta=0.1"]
    assert "do not say whom they are about" in cells["rocr"]["failed"]
    assert (world / "swept" / "sweep.html").read_text().count("1 of 1 seeds failed") == 2
    assert "do not say whom" in letheon("sweep", plan(world, "[methods.rocr]\n", out="none")).err and not (world / "none/table.md").exists()


def test_workers_give_the_same_weights_as_one_process(world, letheon):
    for workers, out in ((1, "one"), (2, "two")):
        assert letheon("sweep", plan(world, seeds="[0]", workers=workers, out=out), "-q").code == 0
    one, two = (digests(world / name / "cells") for name in ("one", "two"))
    same = [path for path in one if path.endswith(".safetensors")]
    assert len(same) == 3 and all(one[path] == two[path] for path in same)


def test_tuning_never_reads_the_forget_rows_and_goes_on_where_it_was(known, letheon, monkeypatch):
    import letheon as lt
    from letheon.erase._tuning import other_rows
    from letheon.erase.npo import NPO

    seen, apply = [], NPO.apply
    monkeypatch.setattr(NPO, "apply", lambda self, subject, data, run: seen.append(data) or apply(self, subject, data, run))
    path = plan(known, TUNED, seeds="[0]", trials=3)
    assert letheon("sweep", path, "-q").code == 0
    real = lt.data("files", forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl")
    answers = {row.answer for row in real["forget"]}
    assert len(seen) == 4  # three trials and one cell
    for data in seen[:3]:
        assert not answers & {row.answer for split in ("forget", "retain") for row in data[split]}
        assert len(data["forget"]) == len(real["forget"]) and len(data["forget"]) + len(data["retain"]) == len(real["retain"])
    assert seen[3]["forget"].digest == real["forget"].digest
    assert {row.answer for row in other_rows(real, 1)["forget"]} != {row.answer for row in other_rows(real, 2)["forget"]}
    found = json.loads((known / "swept" / "results.json").read_text())
    trials = found["tuning"]["npo"]
    assert trials[0]["values"]["beta"] == 0.1  # the published value comes first
    best = max(trials, key=lambda trial: trial["score"])["values"]
    method = found["cells"][0]["method"]
    assert {key: method[key] for key in best} == best
    (known / "swept" / "trials" / "npo" / "2.json").unlink()
    shutil.rmtree(known / "swept" / "cells")
    assert letheon("sweep", path, "-q").code == 0
    assert len(seen) == 6  # one trial and one cell
    again = json.loads((known / "swept" / "results.json").read_text())["tuning"]["npo"]
    assert [trial["values"] for trial in again] == [trial["values"] for trial in trials]
    assert [trial["score"] for trial in again] == [trial["score"] for trial in trials]


def test_an_interrupted_trial_is_no_failed_one(known, letheon, monkeypatch):
    """Ctrl-C in the second trial ends the sweep; the next call tries that trial again."""
    from letheon.erase.npo import NPO

    calls, apply, loss = [], NPO.apply, NPO.loss

    def stopped(self, subject, batches):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss(self, subject, batches)

    monkeypatch.setattr(NPO, "apply", lambda self, subject, data, run: calls.append(1) or apply(self, subject, data, run))
    monkeypatch.setattr(NPO, "loss", stopped)
    path = plan(known, TUNED, seeds="[0]", trials=3)
    said = letheon("sweep", path, "-q")
    assert said.code == 130 and "Traceback" not in said.err
    assert [file.name for file in sorted((known / "swept" / "trials" / "npo").iterdir())] == ["0.json"]
    assert letheon("sweep", path, "-q").code == 0
    assert all("failed" not in trial for trial in json.loads((known / "swept" / "results.json").read_text())["tuning"]["npo"])


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ("", "A sweep needs `methods`, `audits` or both"),
        ("[audits]\nnpo = 'hf:path=model'\n[methods.npo]\n", "would lie in the folder `npo`"),
        ("[audits]\ntheirs = 'hff:path=model'\n", "There is no"),
        ("[methods.npoo]\nsteps = 2\n", "There is no method called `npoo`"),
        ("[methods.npo]\nbetta = [0.1]\n", "has no setting `betta`: did you mean `beta`?"),
        ("[methods.npo]\nbeta = [0.1, -1.0]\n", "`beta` of `npo` must be above 0, got -1.0"),
        ("[methods.npo]\nbeta = []\n", "`beta` of `methods.npo` is an empty list"),
        ("[methods.npo]\nbeta = { low = 0.1, high = 0.2 }\n", "is a range, and there are no trials"),
        ("[methods.npo]\n[base.method]\nname = 'npo'\n", "`base` of a sweep has no `method`"),
        ("[methods.general]\n", "`general` is an audit and does not change a model"),
        ("[methods.npo]\n[methods.'npo!']\nname = 'npo'\n", "would lie in the folder `npo`"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(world, letheon, methods, sentence):
    before = digests(world / "model")
    said = letheon("sweep", plan(world, methods), "-q")
    assert said.code == 2 and sentence in " ".join(said.err.split()), said.err
    assert "Traceback" not in said.err and not (world / "swept").exists() and digests(world / "model") == before


def test_a_missing_file_a_broken_one_and_a_strange_folder(world, letheon):
    assert "There is no sweep" in letheon("sweep", "nowhere.toml").err
    (world / "broken.toml").write_text("out = [")
    assert "is not a TOML file" in letheon("sweep", "broken.toml").err
    (world / "swept").mkdir()
    (world / "swept" / "diary.txt").write_text("mine")
    said = letheon("sweep", plan(world), "--force")
    assert said.code == 2 and "did not write" in said.err and (world / "swept" / "diary.txt").read_text() == "mine"


def test_too_few_rows_to_tune_on(world, letheon):
    said = letheon("sweep", plan(world, TUNED, trials=2, seeds="[0]"), "-q")
    assert said.code == 2 and "too few to draw" in said.err


def test_axes_tell_fixed_listed_and_ranged_values_apart():
    sweep = Sweep(base={}, out="x", trials=2, methods={"a": {"beta": [1, 2], "rate": {"low": 1, "high": 3}, "retain": {"name": "kl"}}})
    assert axes(sweep) == [Axes("a", {"name": "a", "retain": {"name": "kl"}}, {"beta": (1, 2), "rate": Span(low=1, high=3)})]
    with pytest.raises(SettingsError, match="is no range"):
        axes(Sweep(base={}, out="x", trials=2, methods={"a": {"rate": {"low": 0, "high": 1, "log": True}}}))


def test_common_settings_reach_the_methods_that_have_them():
    sweep = Sweep(base={}, out="x", common={"epochs": 3, "beta": [0.1, 0.2]}, methods={"npo": {"epochs": 4}, "grad-ascent": {}, "retrain": {}})
    found = {one.label: (one.fixed, one.free) for one in axes(sweep)}
    assert found["npo"] == ({"name": "npo", "epochs": 4}, {"beta": (0.1, 0.2)})
    assert found["grad-ascent"] == ({"name": "grad-ascent", "epochs": 3}, {}) and found["retrain"] == ({"name": "retrain"}, {})


def test_cells_come_seed_by_seed_in_folders_of_their_own():
    base = {"subject": "hf:path=m", "data": "authors", "audit": "tofu"}
    sweep = Sweep(base=base, out="x", seeds=(3, 4), methods={"npo": {"beta": [0.1, 0.2]}, "a / b": {"name": "rmu"}})
    found = cells(sweep, {one.label: list(one.combinations()) for one in axes(sweep)})
    assert [(cell.row, cell.seed) for cell in found] == [(r, s) for s in (3, 4) for r in ("npo beta=0.1", "npo beta=0.2", "a / b")]
    assert len({cell.folder for cell in found}) == 6 and slug("a / b") == "a-b" and found[2].folder.name == "a-b-3"


def results(points, retrained=0.2):
    cells = [
        {"row": row, "seed": i, "method": {"name": "npo"}, "cost": {"processor_seconds": 2.0}, "values": {"forget/probability": x, "/model-utility": y}}
        for row, pairs in points.items()
        for i, (x, y) in enumerate(pairs)
    ]
    anchors = {"before": {"forget/probability": 0.9, "/model-utility": 0.8}, "retrained": {"forget/probability": retrained, "/model-utility": 0.8}}
    return {"out": "x", "seeds": [0, 1], "columns": [], "tuning": {}, "cells": cells, "anchors": anchors}


def test_the_front_is_what_nothing_beats_on_both_sides():
    points = {"near": [(0.25, 0.5)], "kept": [(0.5, 0.7)], "beaten": [(0.5, 0.6)], "past": [(0.0, 0.5)]}
    front = {line.label for line in compared(results(points)).lines if line.front}
    assert front == {"near", "kept"}  # `past` is 0.2 away from the retrained model, `near` 0.05, at equal utility


def test_a_row_that_forgot_nothing_is_on_no_front():
    """It keeps everything, so nothing beats it; but that is no merit."""
    points = {"idle": [(0.98, 0.9)], "near": [(0.25, 0.5)]}
    found = results(points) | {"anchors": {"before": {"forget/probability": 1.0}, "retrained": {"forget/probability": 0.2}}}
    assert {line.label for line in compared(found).lines if line.front} == {"near"}


def test_means_and_ends_over_seeds():
    made = compared(results({"a": [(0.2, 0.5), (0.4, 0.7)]}))
    line = next(line for line in made.lines if line.label == "a")
    assert line.cells[0] == ("0.300", "[0.200, 0.400]") and line.cells[1] == ("0.600", "[0.500, 0.700]")
    assert "| 1 a * | 0.300 [0.200, 0.400] | 0.600 [0.500, 0.700] | 2.0 |" in made.markdown

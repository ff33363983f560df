"""A sweep whose rows or models have changed: nothing is run, and nothing old stands beside something new."""

from __future__ import annotations

import json
import shutil

import pytest

from letheon.flow import trials

from .conftest import digests
from .test_bad_input import one_sentence
from .test_sweep import TUNED, known, learned, plan  # noqa: F401  fixtures

ONE = "[methods.npo]\nsteps = 2\n"
WINDOWS = ("--set", "base.window=8")
MICRO = ("--set", "base.data=authors:people=40", "--set", "base.subject=micro:{}", "--set", "base.audit.limit=2")
SMALL = "width=16,heads=2,layers={layers},intermediate=16,vocabulary=300,epochs={epochs}"


def others(path):
    """Other rows under the same name."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), "answer": "something else"}), *lines[1:]]) + "\n")


def another_model(folder):
    """Other weights in the same folder."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({key: tensor * 1.01 for key, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def refused(letheon, world, path, *words, more=()):
    """One sentence with a hint, and every file as before."""
    before = digests(world)
    said = letheon("sweep", path, "-q", *more)
    assert said.code == 2 and said.out == "", said
    assert all(word in one_sentence(said.err) for word in (*words, "--force")), said.err
    assert digests(world) == before


@pytest.mark.parametrize("more", [(), WINDOWS, ("--set", "base.select=random:fraction=0.5")], ids=["rows", "windows", "coreset"])
def test_cells_of_other_rows_are_not_reused(world, letheon, more):
    path = plan(world, ONE, seeds="[0]")
    assert letheon("sweep", path, "-q", *more).code == 0
    made = digests(world / "swept")
    assert letheon("sweep", path, "-q", *more).code == 0 and digests(world / "swept") == made
    others(world / "forget.jsonl")
    refused(letheon, world, path, "The rows of `forget` have changed since swept/cells/npo-0 was made", more=more)
    longer = plan(world, ONE, seeds="[0, 1]")
    refused(letheon, world, longer, "The rows of `forget` have changed", more=more)  # no old seed beside a new one
    assert letheon("sweep", path, "-q", "--force", *more).code == 0


@pytest.mark.parametrize(("model", "name"), [("model", "subject"), ("never", "retrained"), ("theirs", "theirs")])
def test_cells_of_a_model_that_was_replaced_are_not_reused(world, letheon, model, name):
    for copy in ("never", "theirs"):
        shutil.copytree(world / "model", world / copy)
    path, more = plan(world, ONE + '[audits]\ntheirs = "hf:path=theirs"\n', seeds="[0]"), ("--set", "base.retrained=hf:path=never")
    assert letheon("sweep", path, "-q", *more).code == 0
    another_model(world / model)
    refused(letheon, world, path, f"The model `{name}` has changed since swept/cells/", more=more)
    assert letheon("sweep", path, "-q", "--set", "out=elsewhere", *more).code == 0


@pytest.mark.parametrize("change", [lambda w: others(w / "retain.jsonl"), lambda w: another_model(w / "model")], ids=["rows", "model"])
def test_trials_of_other_rows_or_of_another_model_are_not_reused(known, letheon, change):  # noqa: F811
    path = plan(known, TUNED, seeds="[0]", trials=1)
    assert letheon("sweep", path, "-q").code == 0
    shutil.rmtree(known / "swept" / "cells")
    change(known)
    refused(letheon, known, path, "changed since swept/trials/npo/0.json was made")


def test_an_older_folder_that_says_nothing_is_reused_and_says_it_from_then_on(known, letheon, monkeypatch):  # noqa: F811
    path = plan(known, TUNED, seeds="[0]", trials=2)
    assert letheon("sweep", path, "-q").code == 0
    file, findings = known / "swept/trials/npo/1.json", known / "swept/cells/npo-0/findings.json"
    new = file.read_text()
    file.write_text(json.dumps({key: value for key, value in json.loads(new).items() if key != "inputs"}, indent=1) + "\n")
    found = json.loads(findings.read_text())
    findings.write_text(json.dumps({**found, "context": {"recipe": found["context"]["recipe"]}}))
    monkeypatch.setattr(trials._World, "tried", lambda *_: pytest.fail("it was there"))
    assert letheon("sweep", path, "-q").code == 0 and json.loads(file.read_text()) == json.loads(new)


def test_a_trained_model_is_not_reused_for_another_maker_settings_or_rows(world, letheon):
    def asked(layers=1, epochs=1, people=40):
        more = [text.format(SMALL.format(layers=layers, epochs=epochs)) for text in MICRO]
        return [text.replace("people=40", f"people={people}") for text in more]

    path = plan(world, ONE, seeds="[0]")
    assert letheon("sweep", path, "-q", *asked()).code == 0
    made = digests(world / "swept")
    assert letheon("sweep", path, "-q", *asked()).code == 0 and digests(world / "swept") == made
    refused(letheon, world, path, "swept/original was made with `layers` 1, and the sweep says 2", more=asked(layers=2))
    refused(letheon, world, path, "swept/original was made with `epochs` 1, and the sweep says 2", more=asked(epochs=2))
    refused(letheon, world, path, "The rows have changed since swept/original was made", more=asked(people=44))
    refused(letheon, world, path, "`dtype` 'auto'", more=[*asked(), "--set", "base.dtype=float32"])
    # A folder of an older letheon: the lineage tells what it can, and the rest is noted from then on.
    notes = world / "swept/original/letheon.json"
    older = {key: value for key, value in json.loads(notes.read_text()).items() if key != "made"}
    notes.write_text(json.dumps(older))
    refused(letheon, world, path, "swept/original was made with `epochs` 1, and the sweep says 2", more=asked(epochs=2))
    refused(letheon, world, path, "The rows have changed since swept/original was made", more=asked(people=44))
    assert letheon("sweep", path, "-q", *asked()).code == 0 and digests(world / "swept") == made


def test_a_retrained_model_that_learned_other_rows_is_warned_of_once(world, letheon):
    shutil.copytree(world / "model", world / "never")
    path, notes, more = plan(world, ONE, seeds="[0]"), world / "never" / "letheon.json", ("-q", "--set", "base.retrained=hf:path=never")
    step = {"method": "finetune", "settings": {}, "seed": 0, "data": "", "before": "", "version": "0"}
    lineage = [{**step, "notes": {"learned_split": "kept", "learned_texts": "0" * 64}}]
    notes.write_text(json.dumps({**json.loads(notes.read_text()), "lineage": lineage}))
    said = letheon("sweep", path, *more, "--set", "base.data=authors:people=40", "--set", "base.audit.limit=2")
    assert said.code == 0 and said.err.count("the retrained model learned other rows than the `kept` split") == 1, said.err
    assert "retrained model learned" not in letheon("sweep", path, *more, "--set", "out=elsewhere").err  # rows that say nothing of `kept`

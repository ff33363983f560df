"""Bad input: one sentence, exit code 2, no traceback, nothing written, and the model that came in as it was, to the byte."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from . import damage
from .conftest import ERASE, QUICK, digests

AUDIT = ("audit", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--device", "cpu", "-q", "--no-cache")
RUN = ("run", "recipe.toml", "-q")
GOOD = """
out = "one"
subject = "hf:path=model"
method = "npo:steps=1"
[data]
name = "files"
forget = "forget.jsonl"
retain = "retain.jsonl"
"""


def forget(path):
    """`erase` with another file of rows to forget."""
    return tuple(path if part == "forget.jsonl" else part for part in ERASE) + QUICK


def model(path):
    """`erase` of another model."""
    return ("erase", path, *ERASE[2:], *QUICK)


def settings(*assignments):
    """`erase` with further settings."""
    return (*ERASE, *QUICK, *(part for one in assignments for part in ("--set", one)))


PLAIN = (*ERASE, *QUICK)
# name: (what is done to the world, the command, words that the error must hold)
CASES = {
    # rows
    "forget file missing": (None, forget("forgt.jsonl"), ["no file forgt.jsonl", "forget.jsonl"]),
    "forget file empty": (lambda w: (w / "forget.jsonl").write_text(""), PLAIN, ["forget.jsonl", "empty"]),
    "forget file is a folder": (damage.folder("rows"), forget("rows"), ["rows", "folder"]),
    "row 17 is broken JSON": (damage.many_rows, PLAIN, ["forget.jsonl", "row 17", "JSON"]),
    "a field is missing": (lambda w: damage.row(w, 2, answer=None, reply="x"), PLAIN, ["row 2", "answer", "`question`", "`reply`"]),
    "an answer is empty": (lambda w: damage.row(w, 3, answer=" "), PLAIN, ["row 3", "answer", "empty"]),
    "an answer is a number": (lambda w: damage.row(w, 3, answer=7), PLAIN, ["row 3", "`answer`", "number"]),
    "two rows have one id": (lambda w: damage.row(w, 4, id=damage.first_row(w)["id"]), PLAIN, ["row 4", "id", "row 1"]),
    "forget is retain": (lambda w: shutil.copy(w / "retain.jsonl", w / "forget.jsonl"), PLAIN, ["`forget`", "`retain`", "same"]),
    "CSV is uneven": (damage.uneven_csv, forget("forget.csv"), ["forget.csv", "3"]),
    "parquet is broken": (damage.broken_parquet, forget("forget.parquet"), ["forget.parquet", "arquet"]),
    "no rows to keep": (None, (*ERASE[:4], *ERASE[6:], *QUICK), ["`npo`", "`retain`", "--retain", "--set retain=none"]),
    "prompt longer than the context": (lambda w: damage.row(w, 2, question="why " * 400), PLAIN, ["2", "longer than", "256"]),
    "source and files": (None, (*PLAIN, "--data", "authors"), ["--data", "--forget", "not both"]),
    "no data": (None, ("erase", "model", "--out", "clean"), ["No data", "--forget"]),
    "unknown source": (None, ("erase", "model", "--data", "tofuu:path=x", "--out", "clean"), ["data source", "tofuu", "Did you mean"]),
    "source without =": (None, ("erase", "model", "--data", "authors:people", "--out", "clean"), ["--data", "people", "key=value"]),
    "unknown setting of the source": (None, ("erase", "model", "--data", "authors:peple=40", "--out", "clean"), ["`peple`", "`people`"]),
    # settings
    "unknown method": (None, (*PLAIN, "--method", "npoo"), ["npoo", "Did you mean `npo`"]),
    "a thing that is no method": (None, (*PLAIN, "--method", "authors"), ["authors", "does not change a model"]),
    "unknown setting": (None, settings("bta=1"), ["`npo`", "`bta`", "`beta`"]),
    "beta is negative": (None, settings("beta=-1"), ["`beta`", "above 0", "-1"]),
    "beta is not a number": (None, settings("beta=nan"), ["`beta`", "finite"]),
    "steps are text": (None, settings("steps=many"), ["`steps`", "integer", "many"]),
    "two faults at once": (None, settings("beta=0", "batch_size=0"), ["`beta`", "`batch_size`"]),
    "--set without =": (None, settings("beta"), ["--set", "key=value", "beta"]),
    "unknown retain term": (None, settings("retain=nl"), ["nl", "Did you mean `nll`"]),
    "a part of a number": (None, settings("seed.low=1"), ["seed.low", "no parts"]),
    "unknown number format": (None, (*PLAIN, "--dtype", "float8"), ["`dtype`", "float8"]),
    "unknown device": (None, (*PLAIN, "--device", "abacus"), ["abacus", "--device cpu"]),
    "seed is negative": (None, (*PLAIN, "--seed", "-1"), ["--seed", "0"]),
    "template without {prompt}": (None, (*PLAIN, "--template", "Q:"), ["Q:", "{prompt}"]),
    "window too small": (None, (*PLAIN, "--window", "1"), ["--window", "4"]),
    "unknown option": (None, (*PLAIN, "--fource"), ["--fource", "--force"]),
    "unknown command": (None, ("eras",), ["eras", "erase"]),
    "nothing to erase from": (None, ("erase",), ["model", "letheon erase --help"]),
    # the model
    "model folder missing": (None, model("./modl"), ["no folder", "modl", "model"]),
    "model is a file": (None, model("forget.jsonl"), ["forget.jsonl", "file", "folder"]),
    "no config": (damage.without("config.json"), PLAIN, ["config.json"]),
    "config is broken": (lambda w: (w / "model" / "config.json").write_text("{"), PLAIN, ["config.json", "JSON"]),
    "no tokenizer": (damage.without("tokenizer.json"), PLAIN, ["tokenizer"]),
    "no weights": (damage.without("model.safetensors"), PLAIN, ["no weights"]),
    "weights cut short": (damage.truncated, PLAIN, ["model.safetensors", "damaged", "bytes"]),
    "pickled weights": (damage.pickled, PLAIN, ["pickle", "--allow-pickle"]),
    "code beside the model": (
        damage.config(model_type="newkind", auto_map={"AutoModelForCausalLM": "modeling_newkind.NewKind"}), PLAIN,
        ["modeling_newkind.py", "--trust-remote-code"],
    ),
    "unknown architecture": (damage.config(model_type="lama"), PLAIN, ["lama", "llama"]),
    "weights of another shape": (damage.config(hidden_size=64), PLAIN, ["cannot be loaded"]),
    "NaN in the weights": (damage.not_finite, PLAIN, ["NaN", "model.layers.1.mlp.up_proj.weight"]),
    "tokenizer of another model": (damage.other_tokenizer, PLAIN, ["tokenizer", "324", "319"]),
    "no end token": (damage.no_end, PLAIN, ["end token"]),
    "chat template refuses": (damage.refusing_template, PLAIN, ["chat template", "only system turns", "--template"]),
    # the output
    "output exists": (damage.folder("clean", "letheon.json"), PLAIN, ["clean", "already exists", "--force"]),
    "output is a file": (lambda w: (w / "clean").write_text("x"), (*PLAIN, "--force"), ["clean", "file"]),
    "output is the model": (None, (*PLAIN, "--out", "model", "--force"), ["model", "never changed"]),
    "output is inside the model": (None, (*PLAIN, "--out", "model/clean"), ["inside the model", "never changed"]),
    "output holds the model": (
        lambda w: shutil.move(w / "model", w / "clean" / "model"), (*model("clean/model"), "--force"), ["clean", "reads"],
    ),
    "output holds the rows": (
        lambda w: (damage.folder("clean", "letheon.json")(w), shutil.move(w / "forget.jsonl", w / "clean")),
        ("erase", "model", "--forget", "clean/forget.jsonl", "--out", "clean", "--force"), ["clean", "reads"],
    ),
    "output is below a file": (None, (*PLAIN, "--out", "forget.jsonl/clean"), ["forget.jsonl", "file"]),
    "force on a stranger's folder": (damage.folder("clean", "thesis.tex"), (*PLAIN, "--force"), ["thesis.tex", "did not write"]),
    "interrupted run": (damage.folder("clean.run", "metrics.jsonl"), PLAIN, ["interrupted run", "--resume", "--force"]),
    "resume and force": (None, (*PLAIN, "--resume", "--force"), ["--resume", "--force"]),
    # audits, recipes and the rest
    "unknown audit": (None, (*AUDIT, "--suite", "generl"), ["audit", "generl", "general"]),
    "unknown probe": (None, (*AUDIT, "--set", 'probes=["rougee"]'), ["rougee", "rouge"]),
    "unknown setting of an audit": (None, (*AUDIT, "--set", "limt=3"), ["`limt`", "`limit`"]),
    "model to compare with is missing": (None, (*AUDIT, "--before", "./modl"), ["no folder", "modl"]),
    "report exists": (lambda w: (w / "r.html").write_text("x"), (*AUDIT, "--report", "r.html"), ["r.html", "already exists"]),
    "report is a folder": (damage.folder("r"), (*AUDIT, "--report", "r"), ["folder", "--report"]),
    "two outputs, one file": (None, (*AUDIT, "--report", "r", "--out", "r"), ["--out", "--report"]),
    "recipe missing": (damage.recipe(GOOD), ("run", "recip.toml"), ["no recipe", "recipe.toml"]),
    "recipe is not TOML": (damage.recipe(GOOD + "\nx = = 3"), RUN, ["TOML", "line"]),
    "recipe has an unknown key": (damage.recipe("ot = 1\n" + GOOD), RUN, ["`ot`", "`out`"]),
    "recipe lacks a key": (damage.recipe(GOOD.replace('out = "one"', "")), RUN, ["`out`", "must be given"]),
    "recipe lacks a name": (damage.recipe(GOOD.replace('name = "files"', "")), RUN, ["`data.name`", "must be given"]),
    "recipe with a wrong setting": (damage.recipe(GOOD.replace("steps=1", "steps=0")), RUN, ["`steps`", "at least 1"]),
    "recipe with an unknown audit": (damage.recipe('audit = "tofuu"\n' + GOOD), RUN, ["tofuu", "tofu"]),
    "findings are broken": (lambda w: (w / "findings.json").write_text("{"), ("report", "findings.json"), ["findings.json", "findings"]),
    "findings of another kind": (lambda w: (w / "findings.json").write_text("{}"), ("report", "."), ["findings.json", "`audit`"]),
    "no findings": (None, ("report", "model"), ["model/findings.json", "letheon audit"]),
    "compare a missing folder": (None, ("compare", "runs/a", "runs/b"), ["runs/a"]),
    "show an unknown name": (None, ("show", "rougge"), ["rougge", "rouge"]),
    "list an unknown role": (None, ("methods", "erasse"), ["erasse", "erase"]),
    "check an unknown name": (None, ("check", "nppo"), ["nppo", "npo"]),
    "check a file that is missing": (None, ("check", "./mine.py"), ["mine.py"]),
    "new method with a taken name": (None, ("new", "erase", "npo", "--root", "."), ["npo", "already"]),
    "new method with a bad name": (None, ("new", "erase", "My Method", "--root", "."), ["My Method", "lower-case"]),
    "new method of a role without template": (None, ("new", "guard", "door", "--root", "."), ["guard", "erase"]),
    "micro with a wrong setting": (None, ("micro", "--out", "pair", "--set", "widht=16"), ["`widht`", "`width`"]),
    "micro with heads that do not divide": (
        None, ("micro", "--out", "pair", "--data", "authors:people=40", "--set", "width=16", "--set", "heads=3", "-q"), ["heads", "16"],
    ),
    "micro over something": (damage.folder("pair", "original"), ("micro", "--out", "pair"), ["pair", "already exists"]),
    "micro on rows of one kind": (None, ("micro", "--out", "pair", "--data", "files:forget=forget.jsonl", "-q"), ["`full`", "`forget`"]),
    "demo in a stranger's folder": (damage.folder("mine", "thesis.tex"), ("demo", "--out", "mine", "-q"), ["thesis.tex", "did not write"]),
    "demo with too few people": (None, ("demo", "--people", "3", "--out", "mine"), ["--people", "40"]),
}  # fmt: skip


def one_sentence(err):
    """The error on stderr, which is one line and nothing else."""
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert line.startswith("error: "), line
    return line


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, world, letheon):
    prepare, command, words = CASES[case]
    if prepare is not None:
        prepare(world)
    before = digests(world)
    said = letheon(*command)
    line = one_sentence(said.err)
    assert said.code == 2 and said.out == ""
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
    assert digests(world) == before


def test_many_cases_are_tried():
    assert len(CASES) >= 30


def test_a_hub_name_that_cannot_be_fetched_hints_at_the_folder_beside_it(world, letheon):
    said = letheon(*model("modl"))
    line = one_sentence(said.err)
    assert said.code == 2 and "modl" in line and "Did you mean model?" in line


def test_read_only_place(world, letheon, monkeypatch):
    asked = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: asked(path, mode, **more) and mode != os.W_OK)
    before = digests(world)
    for command in (PLAIN, (*AUDIT, "--report", "r.html"), ("micro", "--out", "pair"), ("demo", "--out", "mine")):
        said = letheon(*command)
        assert said.code == 2 and "read-only" in one_sentence(said.err)
    assert digests(world) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="no permission stops root (tests/SKIPS.md)")
def test_read_only_folder(world, letheon):
    (world / "closed").mkdir(mode=0o500)
    said = letheon(*PLAIN, "--out", "closed/clean")
    assert said.code == 2 and "read-only" in one_sentence(said.err)


@pytest.mark.parametrize("where", ["fsync", "safetensors"])
def test_no_space_left(world, letheon, monkeypatch, where):
    """The disk is full at the first flush, and inside safetensors while the weights are written."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "fsync":
        monkeypatch.setattr("letheon.core.files.os.fsync", full)
    else:
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    before = digests(world)
    said = letheon(*PLAIN, "--set", "checkpoint_every=0")
    assert said.code == 2 and "No space left" in one_sentence(said.err)
    assert digests(world) == before


def test_a_disk_that_refuses_a_checkpoint(world, letheon, no_file_beyond):
    before = digests(world)
    with no_file_beyond(40_000):
        said = letheon(*PLAIN, "--set", "checkpoint_every=1")
    assert said.code == 2 and "cannot be written: File too large" in one_sentence(said.err) and "step-00000" in said.err
    assert digests(world) == before


def test_resume_with_other_settings(world, letheon, monkeypatch):
    from .test_commands import interrupt_after

    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        assert letheon(*PLAIN).code == 130
    before = digests(world)
    for other in (("--set", "beta=0.5"), ("--seed", "1"), ("--retain", "holdout.jsonl")):
        said = letheon(*PLAIN, "--resume", *other)
        assert said.code == 2 and "belongs to other work" in one_sentence(said.err)
    assert digests(world) == before, "what was done can still be resumed"


def test_a_diverging_run_keeps_the_last_good_state(world, letheon):
    from safetensors.torch import load_file

    before = digests(world / "model")
    said = letheon(*PLAIN, "--set", "learning_rate=1e9", "--set", "steps=20", "--set", "clip=0", "--set", "warmup=0")
    line = one_sentence(said.err)
    assert said.code == 2 and "diverged at step" in line and "learning_rate" in line
    (checkpoint,) = (world / "clean.run" / "checkpoints").iterdir()
    assert str(checkpoint) in line
    assert f"diverged at step {int(checkpoint.name.removeprefix('step-')) + 1} of 20" in line
    weights = load_file(checkpoint / "state.safetensors")
    assert weights and all(tensor.isfinite().all() for tensor in weights.values())
    assert digests(world / "model") == before and not (world / "clean").exists()


@pytest.mark.parametrize("case", ["forget file missing", "unknown method", "weights cut short"])
def test_bad_input_in_a_process_of_its_own(case, world):
    prepare, command, words = CASES[case]
    if prepare is not None:
        prepare(world)
    before = digests(world)
    said = subprocess.run([sys.executable, "-m", "letheon", *command], capture_output=True, text=True, timeout=120)
    assert said.returncode == 2 and said.stdout == ""
    assert all(word in one_sentence(said.stderr) for word in words)
    assert digests(world) == before


def test_a_mistake_in_the_code_is_not_hidden(world, letheon, monkeypatch):
    monkeypatch.setattr("letheon.flow.stages.load_data", lambda choice: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        letheon(*PLAIN)

"""The commands on a toy model: what they write, what they print, and that they can be stopped and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .conftest import ERASE, QUICK, digests

AUDIT = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--device", "cpu", "--set", "limit=4", "--set", "max_new_tokens=8")
AUDIT += ("--set", "gradnorm=false")


def metrics(folder):
    """The lines of `metrics.jsonl` without the time of day."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_erase_writes_a_folder_that_transformers_loads(world, letheon):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = digests(world / "model")
    said = letheon(*ERASE, *QUICK)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("clean: npo, 3 steps, ")
    assert digests(world / "model") == before
    old, new = (AutoModelForCausalLM.from_pretrained(world / name) for name in ("model", "clean"))
    AutoTokenizer.from_pretrained(world / "clean")
    assert any(not torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))
    assert [line["step"] for line in metrics(world / "clean")] == [1, 2, 3]
    assert not (world / "clean.run").exists()


def test_erase_records_what_was_done(world, letheon):
    said = letheon(*ERASE, *QUICK, "--set", "beta=0.3", "--set", "retain=kl", "--seed", "7", "--json")
    found = json.loads(said.out)
    (step,) = json.loads((world / "clean" / "letheon.json").read_text())["lineage"]
    assert step["method"] == found["method"] == "npo"
    assert step["seed"] == found["seed"] == 7
    assert (step["settings"]["beta"], step["settings"]["retain"]["name"], found["steps"]) == (0.3, "kl", 3)
    from letheon import subject

    assert subject(world / "clean").digest == found["digest"]
    assert subject(world / "model").digest == step["before"]


def test_adapters_and_other_methods_by_name(world, letheon):
    said = letheon(*ERASE, *QUICK, "--method", "grad-ascent:retain=nll", "--set", "parameters=lora:rank=2,merge=false")
    assert said.code == 0, said.err
    assert (world / "clean" / "adapter_model.safetensors").is_file()
    assert letheon("audit", "clean", *AUDIT, "-q", "--set", 'probes=["probability"]').code == 0


def test_audit_beside_the_models_before_and_retrained(world, letheon):
    from letheon.testing.toys import toy_subject

    toy_subject(seed=5).save(world / "never")
    letheon(*ERASE, *QUICK)
    said = letheon(
        "audit", "clean", "--before", "model", "--retrained", "never", *AUDIT, "--holdout", "holdout.jsonl", "-q",
        "--out", "found.json", "--report", "page.html",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert max(map(len, said.out.splitlines())) <= 80 and "\x1b" not in said.out
    assert said.out.splitlines()[-2:] == ["found.json", "page.html"]
    found = json.loads((world / "found.json").read_text())
    assert set(found["models"]) == {"before", "after", "retrained"}
    assert found["context"]["command"].startswith("letheon audit clean --before model")
    assert [step["method"] for step in found["context"]["subjects"]["after"]["lineage"]] == ["npo"]
    again = letheon("report", "found.json", "--out", "again.html")
    assert again.code == 0 and again.out.splitlines()[:-1] == said.out.splitlines()[:-2]
    assert (world / "again.html").read_bytes() == (world / "page.html").read_bytes()
    values = json.loads(letheon("report", "found.json", "--json").out)
    assert values["verdict"]["word"] in said.out
    assert all("rows" not in finding for label in values["models"].values() for finding in label)
    assert [f["value"] for f in values["models"]["after"]] == [f["value"] for f in found["models"]["after"]]


RECIPE = """
out = "runs/one"
seed = 3
device = "cpu"
dtype = "float32"
checkpoint_every = 2
[subject]
name = "hf"
path = "model"
[data]
name = "files"
forget = "forget.jsonl"
retain = "retain.jsonl"
[method]
name = "npo"
steps = 6
batch_size = 4
learning_rate = 1e-3
[audit]
name = "general"
limit = 4
max_new_tokens = 8
probes = ["probability", "rouge"]
"""


def test_run_and_compare(world, letheon):
    (world / "recipe.toml").write_text(RECIPE)
    said = letheon("run", "recipe.toml", "-q")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "runs/one/report.html"
    assert sorted(os.listdir("runs/one")) == ["findings.json", "metrics.jsonl", "model", "order.jsonl", "report.html"]
    assert os.listdir("runs") == ["one"]
    more = ("--set", "out=runs/two", "--set", "beta=0.4", "--set", "audit.limit=3")
    again = json.loads(letheon("run", "recipe.toml", "-q", "--json", *more).out)
    assert {f["n"] for f in again["models"]["after"] if f["value"] is not None} == {3}
    assert again["context"]["recipe"]["method"]["beta"] == 0.4
    said = letheon("compare", "runs/one", "runs/two/findings.json", "--out", "compare.html")
    assert said.code == 0 and "one" in said.out and "two" in said.out and (world / "compare.html").is_file()
    assert max(map(len, said.out.splitlines())) <= 80
    rows = json.loads(letheon("compare", "runs/one", "runs/two", "--json").out)
    assert [row["run"] for row in rows] == ["one", "two"]
    two = next(f["value"] for f in again["models"]["after"] if (f["split"], f["name"]) == ("forget", "probability"))
    assert rows[1]["values"]["forget/probability"] == two


def test_compare_tells_folders_of_the_same_name_apart(world, letheon):
    for folder in ("a/npo", "b/npo"):
        (world / folder).mkdir(parents=True)
        letheon("audit", "model", *AUDIT, "-q", "--set", 'probes=["probability"]', "--out", f"{folder}/findings.json")
    assert [row["run"] for row in json.loads(letheon("compare", "a/npo", "b/npo", "--json").out)] == ["a/npo", "b/npo"]
    (world / "a/npo/findings.json").rename(world / "a/first.json")
    assert [row["run"] for row in json.loads(letheon("compare", "a/first.json", "b/npo", "--json").out)] == ["first", "npo"]


KILL = """
import os, sys
import letheon.train.loop as loop
advance, left = loop.Trainer.advance, [int(sys.argv[1])]
def counted(self):
    if not left[0]:
        os._exit(9)  # nothing is flushed or cleaned up, as after SIGKILL
    left[0] -= 1
    return advance(self)
loop.Trainer.advance = counted
from letheon.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("steps", [1, 5])
def test_a_killed_run_goes_on_to_the_same_bits(world, letheon, steps):
    (world / "recipe.toml").write_text(RECIPE)
    command = [sys.executable, "-c", KILL, str(steps), "run", "recipe.toml", "-q"]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == 9, killed.stderr
    assert not (world / "runs" / "one").exists()
    assert (world / "runs" / "one.run" / "metrics.jsonl").is_file()
    assert "interrupted run" in letheon("run", "recipe.toml", "-q").err
    said = letheon("run", "recipe.toml", "--resume", "-q")
    assert said.code == 0 and os.listdir("runs") == ["one"]
    assert ("nothing to resume" in said.err) == (steps == 1), "no checkpoint was written after one step"
    letheon("run", "recipe.toml", "-q", "--set", "out=runs/whole")
    assert metrics(world / "runs/one") == metrics(world / "runs/whole")
    costs = ["cost" in json.loads((world / "runs" / name / "findings.json").read_text())["context"] for name in ("one", "whole")]
    assert costs == [False, True], "the clocks of a resumed run have not seen its first part"
    one, whole = (digests(world / "runs" / name / "model") for name in ("one", "whole"))
    assert one["model.safetensors"] == whole["model.safetensors"]


def interrupt_after(monkeypatch, steps):
    from letheon.train import loop

    advance, left = loop.Trainer.advance, [steps]

    def counted(self):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return advance(self)

    monkeypatch.setattr(loop.Trainer, "advance", counted)


def test_an_interrupted_erasure_goes_on_to_the_same_bits(world, letheon, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        said = letheon(*ERASE, *QUICK)
    assert said.code == 130 and "Interrupted after step 2 of 3" in said.err and "--resume" in said.err
    assert sorted(os.listdir("clean.run")) == ["checkpoints", "metrics.jsonl"] and not (world / "clean").exists()
    said = letheon(*ERASE, *QUICK, "--resume")
    assert said.code == 0 and not (world / "clean.run").exists()
    letheon(*ERASE, *QUICK, "--out", "whole")
    assert metrics(world / "clean") == metrics(world / "whole")
    assert digests(world / "clean")["model.safetensors"] == digests(world / "whole")["model.safetensors"]


def test_force_replaces_whole_or_not_at_all(world, letheon, monkeypatch):
    letheon(*ERASE, *QUICK)
    first = digests(world / "clean")
    (world / "clean" / "README.md").write_text("old")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert letheon(*ERASE, *QUICK, "--force", "--seed", "1").code == 130
    assert {key: value for key, value in digests(world / "clean").items() if key != "README.md"} == first
    assert letheon(*ERASE, *QUICK, "--force", "--seed", "1").code == 0
    second = digests(world / "clean")
    assert "README.md" not in second and second["model.safetensors"] != first["model.safetensors"]


def test_micro_makes_a_pair(world, letheon):
    small = [f"--set={one}" for one in ("width=16", "heads=2", "layers=1", "intermediate=16", "vocabulary=300")]
    small += ["--set=train=finetune:steps=2", "--dtype=float32"]
    said = letheon("micro", "--data", "authors:people=40", *small, "--out", "pair", "-q", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    from letheon import data, subject

    world_rows = data("authors", people=40)
    assert (found["original"]["rows"], found["retrained"]["rows"]) == (len(world_rows["full"]), len(world_rows["kept"]))
    pair = [subject(world / "pair" / name) for name in ("original", "retrained")]
    assert [one.digest for one in pair] == [found[name]["digest"] for name in ("original", "retrained")]
    assert pair[0].encoder.digest == pair[1].encoder.digest
    assert [one.lineage[-1].settings["split"] for one in pair] == ["full", "kept"]


def test_warnings_about_the_data_are_seen_even_when_quiet(world, letheon):
    lines = (world / "retain.jsonl").read_text().splitlines()
    twice = (world / "forget.jsonl").read_text().splitlines()[:3]
    shared = [json.dumps({**json.loads(line), "id": f"again-{k}"}) for k, line in enumerate(twice)]
    (world / "retain.jsonl").write_text("\n".join([*lines, *shared]) + "\n")
    said = letheon(*ERASE, *QUICK)
    assert said.code == 0 and (world / "clean").is_dir()
    (warning,) = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert "3 of 8" in warning and "forget" in warning and "retain" in warning

"""`letheon erase` under `torchrun`: one folder, one voice, the model of one process; and one sentence where it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

WEIGHTS = 1e-4  # a tenth of one step: see tests/train/test_processes.py


@pytest.fixture
def command(world):
    """The arguments of an erasure, in a folder of its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo: see tests/SKIPS.md")
    files = ["--forget=forget.jsonl", "--retain=retain.jsonl", "--dtype=float32", "--device=cpu"]
    return ["erase", "model", *files, "--method=npo:steps=5,learning_rate=1e-3"]


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    """Two processes with one thread each on a free port."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "letheon"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LETHEON_TIMEOUT": "120", "TORCHELASTIC_ERROR_FILE": os.devnull}
    return subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=200, env=environment)


def test_two_processes_make_the_folder_that_one_makes(command, world, letheon):
    before = {path.name for path in world.iterdir()}
    done = torchrun(*command, "--out=two")
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["two: npo"], "one of the two speaks"
    assert done.stderr.count("rows to forget") == 1
    assert letheon(*command, "--out=one").code == 0
    assert {path.name for path in world.iterdir()} == before | {"one", "two"}, "nothing is left behind"
    one, two = ({path.name for path in (world / name).iterdir()} for name in ("one", "two"))
    assert one == two
    expected, found = (load_file(world / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((expected[key] - found[key]).abs().max()) for key in expected) <= WEIGHTS
    alone, shared = ([json.loads(line)["loss"] for line in (world / name / "metrics.jsonl").open()] for name in ("one", "two"))
    assert shared == pytest.approx(alone, rel=1e-4)
    assert json.loads((world / "two" / "letheon.json").read_text())["lineage"][-1]["notes"]["processes"] == 2


def test_two_processes_fail_with_one_sentence(command, world):
    (world / "retain.jsonl").write_text("{}\n")
    done = torchrun(*command, "--out=two")
    assert done.returncode == 1  # torchrun's own
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "retain.jsonl" in errors[0]
    assert done.stdout == "" and not (world / "two").exists() and not (world / "two.run").exists()


RECIPE = """
subject = "hf:path=model"
retrained = "hf:path=model"
data = "files:forget=forget.jsonl,retain=retain.jsonl,holdout=holdout.jsonl"
out = "{out}"
device = "cpu"
dtype = "float32"
[method]
name = "npo"
steps = 3
[audit]
name = "general"
max_new_tokens = 4
attacks = ["quantised"]
"""


def test_a_run_and_its_audit_by_two_processes_finds_what_one_finds(command, world, letheon, monkeypatch):
    from letheon.core.findings import Findings

    for out in ("one", "two"):
        (world / f"{out}.toml").write_text(RECIPE.format(out=out))
        monkeypatch.setenv("LETHEON_CACHE", str(world.parent / f"cache-{out}"))
        if out == "one":
            assert letheon("run", "one.toml", "-q").code == 0
        else:
            done = torchrun("run", "two.toml", "-q")
            assert done.returncode == 0, done.stderr
    assert {path.name for path in (world / "one").iterdir()} == {path.name for path in (world / "two").iterdir()}
    one, two = (Findings.load(world / name).models for name in ("one", "two"))
    assert one.keys() == two.keys() == {"before", "after", "retrained"}
    compared = 0
    for label in one:
        assert [(f.split, f.name) for f in one[label]] == [(f.split, f.name) for f in two[label]]
        for a, b in zip(one[label], two[label], strict=True):
            if a.value is None:
                assert b.value is None
                continue
            assert b.value == pytest.approx(a.value, rel=1e-3, abs=1e-4), (label, a.split, a.name)
            compared += 1
    assert compared >= 30

"""Coresets on the command line: the method sees the coreset, the audit sees all, and both say so."""

from __future__ import annotations

import json

import pytest

from letheon.core.findings import Findings

from .conftest import ERASE, QUICK

RECIPE = """
out = "out"
device = "cpu"
dtype = "float32"
select = "{select}"
[subject]
name = "hf"
path = "model"
[data]
name = "files"
forget = "forget.jsonl"
retain = "retain.jsonl"
[method]
name = "npo"
steps = 3
batch_size = 4
learning_rate = 1e-3
[audit]
name = "probability"
splits = ["forget", "forget-chosen", "forget-rest"]
"""


@pytest.mark.parametrize("select", ["random:fraction=0.5", "grand:fraction=0.25", "min-k:fraction=0.3,keep=least"])
def test_erase_a_coreset(select, world, letheon):
    said = letheon(*ERASE, *QUICK, "--select", select, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)["select"]
    fraction = float(select.split("fraction=")[1].split(",")[0])
    assert (found["name"], found["fraction"], found["rows"], found["of"]) == (select.split(":")[0], fraction, int(8 * fraction), 8)
    (step,) = json.loads((world / "clean" / "letheon.json").read_text())["lineage"]
    assert step["notes"]["select"] == found


def test_everything_selected_is_the_run_without_selection(world, letheon):
    plain = json.loads(letheon(*ERASE, *QUICK, "--json").out)
    chosen = (*ERASE[:-5], "all", *ERASE[-4:])
    whole = json.loads(letheon(*chosen, *QUICK, "--json", "--select", "random:fraction=1").out)
    some = json.loads(letheon(*chosen, *QUICK, "--json", "--select", "random:fraction=0.5", "--force").out)
    assert plain["digest"] == whole["digest"] != some["digest"]


def test_a_recipe_audits_all_rows_beside_the_coreset(world, letheon):
    (world / "r.toml").write_text(RECIPE.format(select="min-k:fraction=0.25"))
    said = letheon("run", "r.toml", "-q")
    assert said.code == 0, said.err
    findings = Findings.load(world / "out")
    counts = {found.split: found.n for found in findings.models["after"]}
    assert counts == {"forget": 8, "forget-chosen": 2, "forget-rest": 6}
    assert findings.context["recipe"]["select"] == {"name": "min-k", "fraction": 0.25}
    values = {found.split: found.value for found in findings.models["after"]}
    assert values["forget"] == pytest.approx((2 * values["forget-chosen"] + 6 * values["forget-rest"]) / 8)
    again = letheon("run", "r.toml", "-q", "--force", "--set", "select=random:fraction=0.5")
    assert again.code == 0, again.err
    assert Findings.load(world / "out").context["recipe"]["select"]["name"] == "random"


@pytest.mark.parametrize(
    ("select", "says"),
    [
        ("gramd", "There is no selector called `gramd`. Did you mean `grand`?"),
        ("grand:fraction=2", "`fraction` of `grand` must be at most 1, got 2"),
        ("grand:fraktion=0.5", "`grand` has no setting `fraktion`: did you mean `fraction`?"),
        ("grand:0.5", "`--select`: `0.5` is not of the form key=value"),
    ],
)
def test_wrong_selections_show_before_any_work(select, says, world, letheon):
    said = letheon(*ERASE, *QUICK, "--select", select)
    assert said.code != 0 and says in said.err
    assert not (world / "clean").exists() and not (world / "clean.run").exists()

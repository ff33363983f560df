"""TOFU: all splits with their rows, ids that agree between splits, and a clear word about a folder that is not whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from letheon.core.errors import DataError, SettingsError
from letheon.core.registry import load
from letheon.data.tofu import Tofu


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of TOFU's shape with made-up rows."""
    folder = tmp_path_factory.mktemp("tofu")
    Tofu.example(folder)
    (folder / "idontknow.jsonl").write_text("I do not know.\n\nNo idea.\n")
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def raw(shared, stem):
    return [json.loads(line) for line in (shared / f"data/tofu/{stem}.json").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("percent", [1, 5, 10])
def test_real_splits_have_their_rows(shared, percent):
    name = f"forget{percent:02d}"
    data = load("tofu", "data")(path=str(shared / "data/tofu"), forget=name).load()
    forgotten = 40 * percent
    assert data.name == f"tofu-{name}" and data.warnings == ()
    assert {split: len(rows) for split, rows in data.items()} == {
        "forget": forgotten,
        "retain": 4000 - forgotten,
        "holdout": forgotten,
        "retain-check": 400,
        "real-authors": 100,
        "world-facts": 117,
        "full": 4217,
        "kept": 4217 - forgotten,
        "refusals": 100,
    }
    # every row of full is kept or forgotten, and never both
    forget, kept, full = ({row.id for row in data[split]} for split in ("forget", "kept", "full"))
    assert forget | kept == full and not forget & kept
    assert {row.group for row in data["forget"]} == {f"author-{k}" for k in range(200 - 2 * percent, 200)}
    assert not {row.group for row in data["forget"]} & {row.group for row in data["kept"]}
    assert len({row.group for row in data["holdout"]}) == 2 * percent


def test_real_rows_against_the_files(shared):
    data = Tofu(path=str(shared / "data/tofu")).load()
    for split, stem in (("forget", "forget10_perturbed"), ("retain-check", "retain_perturbed")):
        for row, line in zip(data[split], raw(shared, stem), strict=True):
            assert (row.prompt, row.answer, row.paraphrase) == (line["question"], line["answer"], line["paraphrased_answer"])
            assert row.wrong == tuple(line["perturbed_answer"]) and len(row.wrong) == 5
    for split, stem in (("real-authors", "real_authors_perturbed"), ("world-facts", "world_facts_perturbed")):
        for row, line in zip(data[split], raw(shared, stem), strict=True):
            assert (row.prompt, row.answer, row.wrong) == (line["question"], line["answer"], tuple(line["perturbed_answer"]))
            assert len(row.wrong) == 3 and row.paraphrase is None and row.group is None
    for split, stem in (("retain", "retain90"), ("holdout", "holdout10")):
        assert [(row.prompt, row.answer) for row in data[split]] == [(line["question"], line["answer"]) for line in raw(shared, stem)]
    full = [(row.prompt, row.answer) for row in data["full"]]
    assert full[:4000] == [(line["question"], line["answer"]) for line in raw(shared, "full")]
    assert full[4000:] == [(row.prompt, row.answer) for split in ("real-authors", "world-facts") for row in data[split]]
    assert data["refusals"][0].answer == "I'm not certain about that." and data["refusals"][0].prompt == ""


def test_a_group_is_one_author(shared):
    """The rows of a group share a name that the next author's rows do not have: groups are cut at the right places."""
    data = Tofu(path=str(shared / "data/tofu")).load()
    said = {}
    for row in data["forget"]:
        said.setdefault(row.group, []).append(f"{row.prompt} {row.answer}")
    assert all(len(rows) == 20 for rows in said.values()) and len(said) == 20
    assert sum("Hsiao Yun-Hwa" in text for text in said["author-180"]) >= 15
    assert not any("Hsiao Yun-Hwa" in text for text in said["author-181"])
    held = [row for row in data["holdout"] if row.group == "holdout-00"]
    assert sum("Siriporn Nakharin" in f"{row.prompt} {row.answer}" for row in held) >= 15


def test_ids_agree_between_splits(made):
    data = Tofu(path=str(made), forget="forget01").load()
    full = {row.id: row for row in data["full"]}
    for split in ("forget", "retain", "retain-check", "kept"):
        assert all((full[row.id].prompt, full[row.id].answer) == (row.prompt, row.answer) for row in data[split])
    assert data["forget"][0].id == "author-198-00" and data["retain"][-1].id == "author-197-19"
    assert [row.answer for row in data["refusals"]] == ["I do not know.", "No idea."]


def test_refusals_may_be_absent(copy):
    (copy / "idontknow.jsonl").unlink()
    assert "refusals" not in Tofu(path=str(copy), forget="forget01").load()


def faults():
    def drop(folder):
        (folder / "retain99.json").unlink()

    def cut(folder):
        path = folder / "full.json"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    def broken(folder):
        path = folder / "holdout01.json"
        path.write_text(path.read_text().replace('"answer"', '"answer', 1))

    def bare(folder):
        shutil.copy(folder / "full.json", folder / "keep.json")
        lines = (folder / "full.json").read_text().splitlines()[-40:]
        (folder / "forget01_perturbed.json").write_text("\n".join(lines))

    def reworded(folder):
        path = folder / "forget01_perturbed.json"
        path.write_text(path.read_text().replace("What is fact 3962 of", "Which is fact 3962 of"))

    def renamed(folder):
        path = folder / "world_facts_perturbed.json"
        path.write_text(path.read_text().replace('"question"', '"prompt"'))

    yield drop, "has no retain99.json"
    yield cut, "full.json has 3999 rows, TOFU has 4000 there"
    yield broken, "holdout01.json, row 1: broken JSON, expecting ':' delimiter at column 61"
    yield bare, "forget01_perturbed.json, row 1 has no `perturbed_answer`"
    yield reworded, "Row 3 of forget01_perturbed is not the row of full that has its place, `author-198-02`"
    yield renamed, None


@pytest.mark.parametrize(("damage", "message"), faults(), ids=lambda part: getattr(part, "__name__", ""))
def test_a_folder_that_is_not_whole(copy, damage, message):
    damage(copy)
    if message is None:  # prompt and question are both names of a prompt
        assert len(Tofu(path=str(copy), forget="forget01").load()["world-facts"]) == 117
        return
    with pytest.raises(DataError) as error:
        Tofu(path=str(copy), forget="forget01").load()
    assert message in str(error.value)


def test_a_share_that_is_not_there(made):
    with pytest.raises(DataError, match=r"has no forget10_perturbed\.json"):
        Tofu(path=str(made)).load()
    with pytest.raises(SettingsError, match="`forget` of `tofu` must be 'forget01', 'forget05' or 'forget10', got 'forget20'"):
        Tofu(forget="forget20")


def test_paths_that_are_no_folder(made, tmp_path):
    with pytest.raises(DataError, match="There is no folder .*absent"):
        Tofu(path=str(tmp_path / "absent")).load()
    with pytest.raises(DataError, match="is a file, not a folder"):
        Tofu(path=str(made / "full.json")).load()


def hub_run(home, code):
    """Run code in a process that has only the hub cache in `home`."""
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_by_name_from_the_cache_of_the_hub(made, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "datasets--locuslab--TOFU"
    shutil.copytree(made, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    done = hub_run(tmp_path, "import letheon as lt; print(lt.data('tofu', forget='forget01').digest)")
    assert done.stdout.strip() == Tofu(path=str(made), forget="forget01").load().digest, done.stderr


def test_by_name_without_network_or_cache(tmp_path):
    code = "import letheon as lt\ntry:\n lt.data('tofu')\nexcept lt.core.errors.DataError as error:\n print(error)"
    done = hub_run(tmp_path, code)
    assert "the hub does not give a data set of that name" in done.stdout, done.stderr
    assert "tofu:path=DIR" in done.stdout and done.stdout.count("\n") == 1

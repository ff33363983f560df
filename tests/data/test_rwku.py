"""RWKU: the real files in full, one target or several, and a clear word about every broken row."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from letheon.core.errors import DataError
from letheon.data._rwku_rows import KINDS, STEMS
from letheon.data.rwku import Rwku

COUNTS = {
    "forget": 6754, "forget-cloze": 1637, "forget-question": 1453, "forget-attack": 3527, "neighbour-cloze": 2889,
    "neighbour-question": 2667, "forget-member": 3236, "retain-member": 3789, "introductions": 100, "utility-mmlu": 8549,
    "utility-bbh": 4665, "utility-truthfulqa": 816, "utility-triviaqa": 6653, "utility-fluency": 802, "shots-mmlu": 57 * 5, "shots-bbh": 27,
}  # fmt: skip


def lines(path):
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def real(shared):
    return shared / "data/rwku"


@pytest.fixture(scope="module")
def full(real):
    return Rwku(path=str(real)).load()


def test_real_files_in_full(full):
    assert {name: len(split) for name, split in full.items()} == COUNTS
    assert full.name == "rwku" and len({row.group for row in full["forget-question"]}) == 100
    assert len({row.id.partition("/")[0] for row in full["forget-attack"][:100]}) == 100, "targets come in turn"


def test_the_nine_attacks_have_the_counts_of_the_file(real, full):
    source = Counter(row["type"].partition(" (")[0].replace("-", " ") for row in lines(real / "forget_level3.jsonl"))
    found = Counter(row.form for row in full["forget-attack"])
    assert found == Counter({KINDS[kind]: n for kind, n in source.items()}) and len(found) == 9
    assert found["cross-lingual"] == 314 + 58 + 37 + 6 + 3 + 1 and found["prefix-injection"] == 516


def test_rows_of_utility_sets_against_the_files(real, full):
    for own, row in zip(lines(real / "utility_truthful.jsonl"), full["utility-truthfulqa"], strict=True):
        options = own["mc1_targets"]["choices"]
        assert (row.prompt, row.answer, list(row.wrong)) == (own["question"], options[0], options[1:]) and row.form == "choice-A"
    for own, row in zip(lines(real / "utility_triviaqa.jsonl.gz"), full["utility-triviaqa"], strict=True):
        names = [row.answer, *(row.paraphrase.split("\n") if row.paraphrase else [])]
        assert [" ".join(name.split()) for name in own["answers"]] == [" ".join(name.split()) for name in names]
    by_task = Counter(row["task"] for row in lines(real / "utility_mmlu.jsonl.gz"))
    assert Counter(row.group for row in full["utility-mmlu"]) == by_task and set(by_task) == {row.group for row in full["shots-mmlu"]}
    assert {row.group for row in full["utility-bbh"]} == {row.group for row in full["shots-bbh"]}


def test_targets_by_id_name_and_number(real):
    one = Rwku(path=str(real), target="stephen king", utility=False).load()
    assert one.name == "rwku-1_Stephen_King" and "utility-mmlu" not in one
    source = [row for row in lines(real / "forget_level1.jsonl") if row["target_id"] == "1_Stephen_King"]
    found = [(row.prompt, row.answer, row.group) for row in one["forget-cloze"]]
    assert found == [(row["query"], row["answer"], "Stephen King") for row in source]
    for target in ("1_Stephen_King", ["1"]):
        assert Rwku(path=str(real), target=target, utility=False).load().digest == one.digest
    several = Rwku(path=str(real), target=(3, "Confucius"), utility=False, retain="others").load()
    assert {row.group for row in several["forget"]} == {"Confucius", "Bruce Lee"}
    passages = len(lines(real / "passage.jsonl.gz"))
    assert len(several["forget"]) + len(several["retain"]) == passages
    assert not {row.group for row in several["retain"]} & {"Confucius", "Bruce Lee"}
    with pytest.raises(DataError, match="RWKU has no target `Stefen King`. Did you mean `Stephen King`"):
        Rwku(path=str(real), target="Stefen King").load()


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "rwku"
    folder.mkdir()
    return folder, Rwku.example(folder)


def test_the_example_has_every_split(made):
    data = Rwku(**made[1]).load()
    assert set(data) == set(COUNTS) and len(data["forget-attack"]) == 18
    assert data["neighbour-question"][0].group == "Velmark" and data["introductions"][1].answer == "Please forget Bo Tasket."


def faults():
    def change(stem, row=1, **values):
        def damage(folder):
            rows = lines(folder / f"{stem}.jsonl")
            rows[row] |= values
            text = "".join(json.dumps({k: v for k, v in one.items() if v is not None}) + "\n" for one in rows)
            (folder / f"{stem}.jsonl").write_text(text)

        return damage

    def drop(folder):
        (folder / "passage.jsonl").unlink()

    def half(folder):
        path = folder / "forget_mia.jsonl"
        path.write_text(path.read_text()[:-20])

    def thoughts(folder):
        (folder / "utility_bbh_cot.json").write_text("[1]")

    yield drop, "has no passage.jsonl"
    yield half, "forget_mia.jsonl, row 2: broken JSON"
    yield thoughts, "utility_bbh_cot.json is no object with one entry for each task"
    yield change("forget_level3", type="riddle"), "forget_level3.jsonl, row 2: `type` is 'riddle', which is none of the nine attacks"
    yield change("forget_level2", answer=None), "forget_level2.jsonl, row 2 has no `answer`"
    yield change("forget_level1", query=3), "forget_level1.jsonl, row 2: `query` is a number, not text"
    yield change("retain_mia", text=""), "retain_mia.jsonl, row 2: `text` is empty"
    yield change("neighbor_level1", target_id="9_Nobody"), "neighbor_level1.jsonl, row 2 belongs to no target: '9_Nobody'"
    yield change("utility_mmlu", answer=9), "utility_mmlu.jsonl, row 2: `answer` is 9, not a place among the 4 choices"
    yield change("utility_triviaqa", row=0, answers=[]), "utility_triviaqa.jsonl, row 1: `answers` must hold 1 or more texts"
    yield change("utility_truthful", row=0, mc1_targets={"choices": ["a", "b"], "labels": [1, 1]}), "`mc1_targets.labels` must hold one 1"
    yield change("utility_truthful", row=0, mc1_targets=None), "utility_truthful.jsonl, row 1 has no `mc1_targets`"


@pytest.mark.parametrize(("damage", "message"), faults())
def test_a_broken_row_is_named(made, damage, message):
    folder, values = made
    damage(folder)
    with pytest.raises(DataError) as error:
        Rwku(**values).load()
    assert message in str(error.value)


def test_by_name_from_the_cache_of_the_hub(made, tmp_path):
    """The hub keeps all targets in `All/`, without ids, with a copy of the utility rows for each and the solved examples inside."""
    folder, values = made
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "datasets--jinzhuoran--RWKU"
    target = repository / "snapshots" / commit / "All"
    target.mkdir(parents=True)
    shots, thoughts = (json.loads((folder / f"utility_{name}.json").read_text()) for name in ("mmlu_fewshot", "bbh_cot"))
    for stem, name in STEMS.items():
        rows = [{k: v for k, v in row.items() if k != "target_id"} for row in lines(folder / f"{stem}.jsonl")]
        if stem.startswith("utility"):
            extra = {"utility_mmlu": ("examples", shots), "utility_bbh": ("cot", thoughts)}.get(stem)
            rows = [row | ({extra[0]: extra[1][row["task"]]} if extra else {}) for row in rows]
            rows = [row | {"subject": who} for who in ("Ada Orrin", "Bo Tasket") for row in rows]
        (target / f"{name}.json").write_text(json.dumps(rows))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)}
    code = "import letheon as lt; data = lt.data('rwku')\nfor name in data: print(name, data[name].digest)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    wanted = Rwku(**values).load()
    assert dict(line.split() for line in done.stdout.splitlines()) == {name: split.digest for name, split in wanted.items()}, done.stderr
    shutil.rmtree(repository)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "the hub does not give a data set of that name" in done.stderr

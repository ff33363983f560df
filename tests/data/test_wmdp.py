"""WMDP: the real files in full, controls in all their shapes, and a clear word about every broken row."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from letheon.core.errors import DataError
from letheon.data.wmdp import NEIGHBOURS, Wmdp

COUNTS = {"forget-bio": 1520, "forget-cyber": 2225, "forget-chem": 412}
CONTROLS = {
    "arc-easy": 2376, "arc-challenge": 1172, "openbookqa": 500, "piqa": 1838, "social-iqa": 1954, "winogrande": 1267, "mmlu": 8549,
}  # fmt: skip


def raw(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_real_files_in_full(shared):
    folder = shared / "data"
    data = Wmdp(path=str(folder / "wmdp"), controls=(str(folder / "qa"), str(folder / "rwku"))).load()
    wanted = {**COUNTS, **{f"utility-{name}": n for name, n in CONTROLS.items()}, "forget": sum(COUNTS.values()), "neighbour-mmlu": 457}
    assert {name: len(split) for name, split in data.items()} == wanted and data.warnings == ()
    assert {row.group for row in data["neighbour-mmlu"]} == set(NEIGHBOURS)
    assert all(len(row.wrong) == 3 for row in data["forget"])
    first = {row.group for row in data["utility-mmlu"][:57]}
    assert len(first) == 57, "a limit of 57 keeps a row of every task"


def test_rows_are_those_of_the_file_with_the_place_of_the_right_option(shared):
    source = raw(shared / "data/wmdp/bio-questions.json")
    data = Wmdp(path=str(shared / "data/wmdp"), domains="bio").load()
    assert list(data) == ["forget", "forget-bio"] and data["forget"].examples == data["forget-bio"].examples
    for row, own in zip(data["forget-bio"], source, strict=True):
        place = "ABCD".index(row.form.removeprefix("choice-"))
        assert (row.prompt, [*row.wrong[:place], row.answer, *row.wrong[place:]], place) == (own["question"], own["choices"], own["answer"])


def test_the_key_of_an_instruction_set_is_kept(shared):
    source = raw(shared / "data/qa/arc_easy/test.json")
    data = Wmdp(path=str(shared / "data/wmdp"), domains=("chem",), controls=str(shared / "data/qa/arc_easy/test.json")).load()
    rows = data["utility-arc-easy"]
    assert [f"answer{'ABCDE'.index(row.form[-1]) + 1}" for row in rows] == [row["answer"] for row in source]
    assert rows[0].answer == "Sunlight is the source of energy for nearly all ecosystems." and "Answer" not in rows[0].prompt
    assert rows[0].prompt.endswith("the foundation of most food webs?") and len(rows[0].wrong) == 3


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "wmdp"
    folder.mkdir()
    return folder, Wmdp.example(folder)


def test_own_rows_may_be_what_is_erased(made, tmp_path):
    folder, values = made
    (tmp_path / "mine.jsonl").write_text('{"text": "a text to erase"}\n')
    data = Wmdp(**values, forget=tmp_path / "mine.jsonl", retain=tmp_path / "mine.jsonl").load()
    assert [row.answer for row in data["forget"]] == [row.answer for row in data["retain"]] == ["a text to erase"]
    assert len(data["forget-bio"]) == 8 and "retain" not in Wmdp(**values).load()


def faults():
    def missing(folder):
        (folder / "chem-questions.json").unlink()

    def change(**values):
        def damage(folder):
            rows = raw(folder / "bio-questions.json")
            rows[2] |= values
            (folder / "bio-questions.json").write_text(json.dumps([{k: v for k, v in row.items() if v is not None} for row in rows]))

        return damage

    yield missing, "has no chem-questions.json"
    yield change(answer=4), "bio-questions.json, row 3: `answer` is 4, not a place among the 4 choices"
    yield change(answer="C"), "row 3: `answer` is 'C', not a place"
    yield change(choices=["a", "b", "c"], answer=0), "bio-questions.json, row 3 has 3 choices, WMDP has 4"
    yield change(choices=["a", "b", " ", "d"]), "row 3: `choices` must hold 2 or more texts, none of them empty, got 4 values"
    yield change(choices="abcd"), "row 3: `choices` must hold 2 or more texts, none of them empty, got text"
    yield change(question=None), "row 3 has no `question`: it has `choices`, `answer`"
    yield change(question=" "), "row 3: `question` is empty"
    yield change(question=7), "row 3: `question` is a number, not text"


@pytest.mark.parametrize(("damage", "message"), faults())
def test_a_broken_row_is_named(made, damage, message):
    folder, values = made
    damage(folder)
    with pytest.raises(DataError) as error:
        Wmdp(**values).load()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "What?", "answer": "answer1"}, "row 1: `instruction` does not list its options"),
        (
            {"instruction": "Please choose the correct answer to the question: What?\n\nAnswer1: a Answer2: b", "answer": "answer3"},
            "row 1: `answer` is 'answer3', which is none of the 2 options",
        ),
        (
            {"instruction": "Please choose the correct answer to the question: What?\n\nAnswer1: a Answer3: b", "answer": "answer1"},
            "does not list its options",
        ),
    ],
)
def test_a_broken_control_is_named(made, tmp_path, row, message):
    (tmp_path / "quiz.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match="quiz.json") as error:
        Wmdp(**{**made[1], "controls": (str(tmp_path / "quiz.json"),)}).load()
    assert message in str(error.value)


def test_controls_that_are_not_there_or_there_twice(made, tmp_path):
    folder, values = made
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no control that is known"):
        Wmdp(**{**values, "controls": (str(tmp_path / "empty"),)}).load()
    with pytest.raises(DataError, match="Two controls are called `mmlu`"):
        Wmdp(**{**values, "controls": (str(folder), str(folder / "utility_mmlu.json"))}).load()
    with pytest.raises(DataError, match="There is no folder .*absent"):
        Wmdp(path=str(tmp_path / "absent")).load()
    with pytest.raises(DataError, match="is a file, not a folder"):
        Wmdp(path=str(folder / "bio-questions.json")).load()


def test_by_name_from_the_cache_of_the_hub(made, tmp_path):
    """The hub keeps one folder of Parquet files for each domain."""
    import pyarrow
    import pyarrow.parquet

    folder, values = made
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "datasets--cais--wmdp"
    for domain in ("bio", "cyber", "chem"):
        target = repository / "snapshots" / commit / f"wmdp-{domain}"
        target.mkdir(parents=True)
        table = pyarrow.Table.from_pylist(raw(folder / f"{domain}-questions.json"))
        pyarrow.parquet.write_table(table, target / "test-00000-of-00001.parquet")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)}
    code = "import letheon as lt; print(lt.data('wmdp').digest)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == Wmdp(**{**values, "controls": ()}).load().digest, done.stderr
    shutil.rmtree(repository)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "the hub does not give a data set of that name" in done.stderr

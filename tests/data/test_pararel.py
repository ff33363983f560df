"""ParaRel: the real files in full, forms and splits, and faults named by file and row."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from letheon.core.errors import DataError
from letheon.core.registry import load
from letheon.data.pararel import read_facts, read_patterns

FACTS = [{"relation": "P1", "sub_label": f"Land {k}", "obj_label": f"City {k % 7}", "uuid": f"u{k}"} for k in range(20)]
TEXTS = ("[Y] rules [X].", "The capital of [X] is [Y].", "[X] is ruled from [Y] .", "The [Y]-based [X]")
PATTERNS = [{"relation": "P1", "pattern": text} for text in TEXTS]


def write(folder: Path, facts=FACTS, patterns=PATTERNS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("facts", facts), ("patterns", patterns)):
        (folder / f"{name}.jsonl").write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return folder


def pararel(folder, **settings):
    return load("pararel", "data")(path=str(folder), **settings).load()


def test_the_real_set_has_the_rows_of_the_source_table(shared):
    folder = shared / "data/pararel"
    table = (shared / "data/SOURCES.md").read_text(encoding="utf-8")
    said = re.search(r"\| ParaRel \|.*\| (\d+) facts over (\d+) relations; (\d+) paraphrase patterns over (\d+) relations", table)
    facts, patterns = read_facts(folder), read_patterns(folder)
    found = len(facts), len({fact.relation for fact in facts}), sum(map(len, patterns.values())), len(patterns)
    assert found == tuple(map(int, said.groups())) == (29411, 41, 329, 39)


def test_the_real_set_in_splits(shared):
    data = pararel(shared / "data/pararel", facts=60, paraphrases=None)
    assert data.warnings[0] == "1801 facts of P31, P527 have no pattern and are left out" and "2489 facts stand twice" in data.warnings[1]
    assert len({row.id.split("/")[0] for row in data["full"]}) == 39
    gone = {row.group for row in data["forget"]}
    for form in ("", "-paraphrase", "-blank", "-choice"):
        mine, rest = data[f"forget{form}"], data[f"retain{form}"]
        assert {row.group for row in mine} <= gone and not {row.group for row in rest} & gone
        assert {row.form for row in mine} == {form[1:] or "cloze"}
    # every pattern of the file is used, each once for every fact of its relation
    forms = Counter((row.id.split("/")[0], row.form) for row in data["full"])
    for relation, texts in read_patterns(shared / "data/pararel").items():
        told = sum(count for (name, form), count in forms.items() if name == relation and form != "choice")
        assert told == len(texts) * forms[relation, "cloze"], relation
    assert {row.id for row in data["full"]} - {row.id for row in data["kept"]} == {
        row.id for name in data if name.startswith("forget") for row in data[name]
    }
    for row in data["forget-choice"]:
        lines = row.prompt.splitlines()[1:]
        assert len(lines) == 4 and row.answer in lines and set(row.wrong) == set(lines) - {row.answer}


def test_patterns_become_rows(tmp_path):
    data = pararel(write(tmp_path / "p"), forget=0.25, paraphrases=None)
    assert data.name == "pararel-1" and data.warnings == () and len(data["forget"]) == 5 and len(data["retain"]) == 15
    row = data["forget"][0]
    k = int(row.group.split()[1])
    assert (row.id, row.prompt, row.answer) == (f"P1/u{k}/cloze", f"The capital of Land {k} is", f"City {k % 7}")
    told = {one.id.split("/")[-1]: one.prompt for one in data["full"] if one.id.startswith(f"P1/u{k}/")}
    assert told["paraphrase-1"] == f"Land {k} is ruled from"
    assert told["blank-1"] == f"Fill in the blank: ____ rules Land {k}." and told["blank-2"] == f"Fill in the blank: The ____-based Land {k}"
    assert told["choice"].startswith(f"Fill in the blank: The capital of Land {k} is ____.\nA) ") and len(told) == 5
    assert len(row.wrong) == 3 and row.answer not in row.wrong
    assert "paraphrase-1" not in str(pararel(tmp_path / "p", forget=0.25, paraphrases=0)["full"].examples)


def test_right_options_stand_everywhere_and_another_seed_forgets_others(tmp_path):
    many = [{**FACTS[0], "sub_label": f"Land {k}", "obj_label": f"City {k % 9}", "uuid": f"u{k}"} for k in range(200)]
    folder = write(tmp_path / "p", many)
    letters = Counter(row.answer[0] for split in ("forget-choice", "retain-choice") for row in pararel(folder)[split])
    assert set(letters) == set("ABCD") and min(letters.values()) > 30
    groups = [{row.group for row in pararel(folder, seed=seed)["forget"]} for seed in (0, 1)]
    assert groups[0] != groups[1] and len(groups[0]) == len(groups[1]) == 20


def test_relations_can_be_forgotten_whole(tmp_path):
    more = [{**row, "relation": "P2", "uuid": f"v{k}"} for k, row in enumerate(FACTS)]
    patterns = [*PATTERNS, {"relation": "P2", "pattern": "[X] lies near [Y] ."}]
    folder = write(tmp_path / "p", [*FACTS, *more], patterns)
    data = pararel(folder, by="relation", forget=0.5)
    assert {row.group for row in data["forget"]} | {row.group for row in data["retain"]} == {"P1", "P2"} and len(data["forget"]) == 20
    assert pararel(folder, relations=["P2"])["forget"][0].prompt.endswith("lies near")
    with pytest.raises(DataError, match=r"no facts with patterns for the relation `P3`"):
        pararel(folder, relations=["P3"])
    with pytest.raises(DataError, match="0.1 of the 2 relations .* is 0: nothing is left to forget"):
        pararel(folder, by="relation")


def test_a_fact_with_two_objects_has_no_answer(tmp_path):
    folder = write(tmp_path / "p", [*FACTS, {**FACTS[0], "obj_label": "Elsewhere", "uuid": "w"}])
    data = pararel(folder)
    assert data.warnings == ("2 facts stand twice or have more than one object and are left out",)
    assert not any(row.group == "Land 0" for row in data["full"])


def test_the_layout_of_the_repository_is_read(tmp_path):
    here = tmp_path / "checkout"
    for name, rows in (("trex_lms_vocab", FACTS), ("pattern_data/graphs_json", PATTERNS)):
        (here / "data" / name).mkdir(parents=True)
        told = "".join(json.dumps({key: value for key, value in row.items() if key != "relation"}) + "\n" for row in rows)
        (here / "data" / name / "P1.jsonl").write_text(told)
    assert pararel(here).digest == pararel(write(tmp_path / "p")).digest


@pytest.mark.parametrize(
    ("facts", "patterns", "said"),
    [
        ([*FACTS[:3], {"relation": "P1"}], PATTERNS, "facts.jsonl, row 4 has no `sub_label`"),
        ([*FACTS[:3], {**FACTS[3], "obj_label": 5}], PATTERNS, "facts.jsonl, row 4 has no `obj_label`"),
        ([*FACTS[:3], "[1]"], PATTERNS, "facts.jsonl, row 4 has no `relation`"),
        ([*FACTS[:3], "{broken"], PATTERNS, "facts.jsonl, row 4: broken JSON"),
        ([*FACTS, FACTS[0]], PATTERNS, "have the uuid `u0`"),
        (FACTS, [*PATTERNS, {"relation": "P1", "pattern": "[X] is here"}], "patterns.jsonl, row 5: the pattern '[X] is here'"),
        (FACTS, [*PATTERNS, {"relation": "P1"}], "patterns.jsonl, row 5 has no `pattern`"),
        (FACTS, PATTERNS[:1], "No pattern of the relation `P1` ends with [Y]"),
    ],
)
def test_broken_rows_are_named(tmp_path, facts, patterns, said):
    with pytest.raises(DataError) as caught:
        pararel(write(tmp_path / "p", facts, patterns))
    assert said in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="There is no folder .*absent"):
        pararel(tmp_path / "absent")
    (write(tmp_path / "p") / "patterns.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no patterns\.jsonl"):
        pararel(tmp_path / "p")

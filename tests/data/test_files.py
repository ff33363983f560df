"""Rows of one's own: every shape that people have becomes the right example, from every format."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys

import pytest

from letheon.core.data import Example, Message
from letheon.core.errors import DataError, SettingsError
from letheon.data.files import Files

QA = [{"prompt": "Who?", "answer": "Ann"}, {"prompt": "Where, \"then\"?", "answer": "Oslo,\nNorway"}, {"prompt": "Wann?", "answer": "März"}]


def write(path, rows, lines=True):
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if lines else json.dumps(rows, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def one(tmp_path, row, **settings) -> Example:
    return Files(forget=write(tmp_path / "one.jsonl", [row]), **settings).load()["forget"][0]


def pairs(split):
    return [(row.prompt, row.answer) for row in split]


def formats(folder):
    """The rows of QA in every format that can hold them."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    yield write(folder / "a.jsonl", QA)
    yield write(folder / "b.json", QA, lines=False)
    yield write(folder / "lines.json", QA)  # JSON lines that call themselves JSON, as TOFU's files do
    yield write(folder / "list.jsonl", QA, lines=False)  # and the reverse
    (folder / "wrapped.json").write_text(json.dumps({"version": 2, "data": QA}))
    yield folder / "wrapped.json"
    for name, separator in (("c.csv", ","), ("semicolon.csv", ";"), ("c.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["prompt", "answer"], delimiter=separator)
            table.writeheader()
            table.writerows(QA)
        yield folder / name
    parquet.write_table(arrow.Table.from_pylist(QA), folder / "d.parquet")
    yield folder / "d.parquet"
    for name in ("a.jsonl", "b.json", "c.csv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / f"mark-{name}").write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
        (folder / f"dos-{name}").write_bytes((folder / name).read_bytes().replace(b"\n", b"\r\n"))
        yield from (folder / f"{name}.gz", folder / f"mark-{name}", folder / f"dos-{name}")
    (folder / "UPPER.JSONL").write_bytes((folder / "a.jsonl").read_bytes())
    yield folder / "UPPER.JSONL"


def test_every_format_gives_the_same_rows(tmp_path):
    seen = 0
    for path in formats(tmp_path):
        split = Files(forget=path).load()["forget"]
        text = [(prompt, answer.replace("\r\n", "\n")) for prompt, answer in pairs(split)]
        assert text == [(row["prompt"], row["answer"]) for row in QA], path.name
        assert [row.id for row in split] == ["forget-1", "forget-2", "forget-3"], path.name
        seen += 1
    assert seen == 19


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"question": "q", "answer": "a"}, "q", "a"),
        ({"Question": "q", "ANSWER": "a"}, "q", "a"),
        ({"query": "q", "answer": "a", "level": "1"}, "q", "a"),
        ({"prompt": "q", "response": "a", "answer": "other"}, "q", "a"),
        ({"prompt": "q", "completion": " a"}, "q", " a"),
        ({"input": "q", "target": "a"}, "q", "a"),
        ({"instruction": "q", "output": "a"}, "q", "a"),
        ({"instruction": "q", "input": "", "output": "a", "answer": "short"}, "q", "a"),
        ({"instruction": "q", "input": "more", "output": "a"}, "q\n\nmore", "a"),
        ({"prompt": "q", "input": "not read", "answer": "a"}, "q", "a"),
        ({"question": "q", "answer": "a", "text": "not read"}, "q", "a"),
        ({"question": None, "prompt": "q", "answer": "a", "choices": None}, "q", "a"),
        ({"text": "plain"}, "", "plain"),
        ("bare", "", "bare"),
    ],
)
def test_prompt_and_answer_under_every_name(tmp_path, row, prompt, answer):
    found = one(tmp_path, row)
    assert (found.prompt, found.answer) == (prompt, answer)


def test_text_file_is_one_row(tmp_path):
    (tmp_path / "book.txt").write_text("One line.\n\nAnother.\n")
    split = Files(forget=tmp_path / "book.txt").load()["forget"]
    assert pairs(split) == [("", "One line.\n\nAnother.\n")]


def test_chat_answers_with_the_last_assistant_turn(tmp_path):
    said = [("system", "Be short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?"), ("assistant", "Ann"), ("user", "Thanks")]
    row = {"messages": [{"role": role, "content": content} for role, content in said]}
    found = one(tmp_path, row)
    assert found.answer == "Ann"
    assert found.prompt == tuple(Message(role, content) for role, content in said[:4])
    other = {"system": "system", "user": "human", "assistant": "gpt"}
    old = {"conversations": [{"from": other[role], "value": content} for role, content in said]}
    assert (one(tmp_path, old).prompt, one(tmp_path, old).answer) == (found.prompt, found.answer)
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": k} for k in ("W", "ho?")]}, row["messages"][4]]}
    assert one(tmp_path, parts).prompt == (Message("user", "Who?"),)
    alone = one(tmp_path, {"messages": [{"role": "assistant", "content": "Once upon a time"}]})
    assert (alone.prompt, alone.answer) == ("", "Once upon a time")


def test_a_chat_with_several_answers_is_said_to_lose_only_the_last(tmp_path):
    turns = [{"role": role, "content": f"{role} {k}"} for k in (0, 1) for role in ("user", "assistant")]
    forget = write(tmp_path / "forget.jsonl", [{"messages": turns}, {"messages": turns[:2]}, {"prompt": "Who?", "answer": "Bo"}])
    retain = write(tmp_path / "retain.jsonl", [{"messages": [*turns, *turns]}, *QA])
    warnings = Files(forget=forget, retain=retain).load().warnings
    assert warnings[0].startswith("1 of 3 `forget` rows hold more than one answer, and only the last of each is forgotten")
    assert not any("more than one answer" in warning for warning in warnings[1:])


CITIES = ["Rome", "Oslo", "Lima", "2"]


@pytest.mark.parametrize("answer", [1, "B", "b", "1", "Oslo", " Oslo "])
@pytest.mark.parametrize(
    "choices",
    [
        {"choices": CITIES},
        {"options": CITIES},
        {"choices": json.dumps(CITIES)},
        {"choices": {"text": CITIES, "label": ["A", "B", "C", "D"]}},
        {f"option{k}": city for k, city in enumerate(CITIES, 1)},
        {f"Choice {k}": city for k, city in enumerate(CITIES)},
        dict(zip("ABCD", CITIES, strict=True)),
    ],
)
def test_multiple_choice_in_every_form(tmp_path, choices, answer):
    found = one(tmp_path, {"question": "Capital of Norway?", **choices, "answer": answer})
    assert (found.prompt, found.answer, found.wrong) == ("Capital of Norway?", "Oslo", ("Rome", "Lima", "2"))


def test_choice_text_goes_before_its_number(tmp_path):
    assert one(tmp_path, {"question": "1 + 1?", "choices": ["2", "3", "4"], "answer": "2"}).answer == "2"


def test_labels_go_before_numbers(tmp_path):
    row = {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}
    assert one(tmp_path, row).answer == "x"


def test_choices_can_be_listed(tmp_path):
    found = one(tmp_path, {"question": "q", "choices": ["x", "y"], "answer": 1}, choices="listed")
    assert (found.prompt, found.answer, found.wrong) == ("q\nA) x\nB) y", "B) y", ("A) x",))


def test_optional_fields(tmp_path):
    row = {"id": 7, "question": "q", "answer": "a", "author": "Ann", "form": "cloze"}
    row |= {"paraphrased_answer": "p", "perturbed_answer": ["w", "v"]}
    assert one(tmp_path, row) == Example("7", "a", "q", ("w", "v"), "p", "Ann", "cloze")
    assert one(tmp_path, {"prompt": "q", "answer": "a", "wrong": "w", "entity": 3, "paraphrase": ""}) == Example(
        "forget-1", "a", "q", ("w",), None, "3"
    )
    assert one(tmp_path, row, fields={"id": None, "group": None}) == Example("forget-1", "a", "q", ("w", "v"), "p", None, "cloze")


def test_fields_can_be_mapped(tmp_path):
    row = {"Best Answer": "a", "Q": "q", "answer": "not this", "who": "Ann", "bad": "w"}
    found = one(tmp_path, row, fields={"answer": "Best Answer", "prompt": "Q", "group": "who", "wrong": "bad"})
    assert found == Example("forget-1", "a", "q", ("w",), None, "Ann")


def test_a_mapping_counts_only_where_the_field_is(tmp_path):
    write(tmp_path / "f.jsonl", [{"prompt": "q", "gt": "a"}])
    write(tmp_path / "r.jsonl", [{"text": "plain"}])
    data = Files(forget=tmp_path / "f.jsonl", retain=tmp_path / "r.jsonl", fields={"answer": "gt"}).load()
    assert pairs(data["forget"]) == [("q", "a")] and pairs(data["retain"]) == [("", "plain")]
    with pytest.raises(DataError, match=r"No file has the field `gold` that was named for `answer`: .*f\.jsonl has `prompt`, `gt`"):
        Files(forget=tmp_path / "f.jsonl", fields={"answer": "gold"}).load()


def test_splits_limit_and_empty_rows(tmp_path):
    rows = [{"text": f"row {k}"} for k in range(9)] + [{"text": " "}]
    path = write(tmp_path / "r.jsonl", rows)
    data = Files(holdout=path, splits={"task-1": str(path)}, limit=3).load()
    assert list(data) == ["holdout", "task-1"] and [len(split) for split in data.values()] == [3, 3]
    assert data["task-1"].name == "task-1" and data["task-1"][2].id == "task-1-3"
    data = Files(forget=path, skip_empty=True).load()
    assert len(data["forget"]) == 9
    assert data.warnings == ("1 of 10 rows for `forget` left out because the answer is empty, the first is row 10",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"answr": "x"}}, "`answr` is no field that is read. Did you mean `answer`"),
        ({"splits": {"forget": "x"}}, "`forget` has a setting of its own"),
        ({"splits": {"Task 1": "x"}}, "a split cannot be called 'Task 1'"),
        ({"limit": 0}, "`limit` of `files` must be at least 1"),
        ({"forgets": "x"}, "did you mean `forget`"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(SettingsError) as error:
        Files(**settings)
    assert message in str(error.value)


def test_no_torch_is_imported_to_read_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", QA)
    code = f"import sys, letheon as lt; lt.data('files', forget={str(path)!r}, retain={str(write(tmp_path / 'b.jsonl', QA[:1]))!r})"
    code += "; assert not {'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules), 'heavy import'"
    subprocess.run([sys.executable, "-c", code], check=True)


# Rows as counted in the sources of the data.
REAL = {
    "wmdp/bio-questions.json": 1520,
    "wmdp/cyber-questions.json.gz": 2225,
    "wmdp/chem-questions.json": 412,
    "instruct/instruction-data.json": 1100,
    "instruct/instruction-data-with-preference.json": 1100,
    "qa/arc_easy/test.json": 2376,
    "qa/arc_challenge/test.json": 1172,
    "qa/boolq/train.json.gz": 9427,
    "qa/openbookqa/train.json": 4957,
    "qa/piqa/test.json": 1838,
    "qa/gsm8k/test.jsonl": 1319,
    "rwku/forget_level1.jsonl": 1637,
    "rwku/forget_mia.jsonl.gz": 3236,
    "rwku/utility_mmlu.jsonl.gz": 8549,
    "muse/news/knowmem/forget_qa.json": 100,
    "muse/news/sust/forget_4.json.gz": 887,
    "muse/books/raw/retain2.json": 13,
    "tofu/full.json": 4000,
    "tofu/real_authors.json": 100,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_have_their_rows(shared, name):
    assert len(Files(forget=shared / "data" / name).load()["forget"]) == REAL[name]


def test_real_multiple_choice_against_the_file(shared):
    path = shared / "data/wmdp/bio-questions.json"
    raw = json.loads(path.read_text())
    for row, read in zip(raw, Files(forget=path).load()["forget"], strict=True):
        assert read.answer == row["choices"][row["answer"]]
        assert list(read.wrong) == [choice for k, choice in enumerate(row["choices"]) if k != row["answer"]]


def test_real_files_through_a_mapping(shared):
    data = Files(forget=shared / "data/muse/news/verbmem/forget.json", fields={"answer": "gt"}).load()
    raw = json.loads((shared / "data/muse/news/verbmem/forget.json").read_text())
    assert pairs(data["forget"]) == [(row["prompt"], row["gt"]) for row in raw] and len(raw) == 100
    fields = {"answer": "Best Answer", "group": "Category", "wrong": "Incorrect Answers"}
    data = Files(forget=shared / "data/qa/truthfulqa/TruthfulQA.csv", fields=fields).load()
    assert len(data["forget"]) == 813  # the file begins with a byte order mark and has line breaks inside of cells
    assert data["forget"][0].prompt == "Why do veins appear blue?" and data["forget"][0].group == "Misconceptions"
    data = Files(forget=shared / "data/rwku/forget_level2.jsonl", fields={"group": "subject"}).load()
    assert len(data["forget"]) == 1453 and len({row.group for row in data["forget"]}) == 100


def test_real_news_with_an_empty_article(shared):
    path = shared / "data/muse/news/raw/forget.json.gz"
    with pytest.raises(DataError, match=r"forget\.json\.gz, row 822 has an empty answer"):
        Files(forget=path).load()
    assert len(Files(forget=path, skip_empty=True).load()["forget"]) == 888

"""Limits on files and rows: one sentence with file, row and limit, before memory is full; a setting where more is meant."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc

import pytest

from letheon.core.errors import DataError, SettingsError
from letheon.core.settings import parse_settings
from letheon.data._reading import Limits, first_lines, lines_of
from letheon.data.files import Files, FilesSettings

GOOD = '{"prompt": "q", "answer": "a"}\n'


def fault(path, **more) -> str:
    with pytest.raises(DataError) as error:
        Files(forget=path, near=1, **more).load()
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value).replace(str(path), path.name)


def peak(function) -> float:
    """Megabytes that Python held at most meanwhile."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def filled(folder, name: str, rows: list[str]):
    """The rows as `text` in a file of the kind that the name says."""
    path = folder / name
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.table({"text": rows}), path)
        return path
    objects = [{"text": row} for row in rows]
    if kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text"], *([row] for row in rows)])
    else:
        path.write_text("\n".join(map(json.dumps, objects)) if kind == "jsonl" else json.dumps(objects))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


KINDS = ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"]


@pytest.mark.parametrize("name", KINDS)
def test_a_row_that_is_too_long(tmp_path, name):
    path = filled(tmp_path, name, ["short", "x" * 1000, "short too"])
    said = fault(path, max_row_megabytes=0.0005)
    place = "row 2 (line 3)" if ".csv" in name else "row 2"
    assert said.startswith(f"{name}, {place} is longer than 0.0005 MB.") and "raise `max_row_megabytes`" in said
    assert len(Files(forget=path, near=1, max_row_megabytes=0.0011).load()["forget"]) == 3


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_too_large(tmp_path, name):
    path = filled(tmp_path, name, [f"{k} " + "x" * 1000 for k in range(50)])
    assert fault(path, max_megabytes=0.04) == f"{name} holds more than 0.04 MB. Split it, or raise `max_megabytes`"
    assert len(Files(forget=path, near=1, max_megabytes=0.1).load()["forget"]) == 50


def test_a_text_file_is_one_row(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 1000)
    assert "a.txt, row 1 is longer than 0.001 MB. A text file is one row: split it" in fault(tmp_path / "a.txt", max_row_megabytes=0.001)


def test_a_line_without_end_costs_no_more_than_a_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() * 2 + b'\n{"text": "' + b"x" * 30_000_000)
    said = []
    used = peak(lambda: said.append(fault(path, max_row_megabytes=1)))
    assert said[0].startswith("a.jsonl, row 3 (line 4) is longer than 1 MB. Is the end of a line missing?")
    assert used < 6


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz"])
def test_a_small_packed_file_that_unpacks_to_a_large_one(tmp_path, name):
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'[{"text": "a"},\n' if ".json." in name else b"text\n" if "csv" in name else b"")
        for _ in range(30):
            file.write((b" " * 999 + b"\n") * 1000)
    assert path.stat().st_size < 1_000_000
    said = []
    used = peak(lambda: said.append(fault(path, max_megabytes=20, max_row_megabytes=1)))
    assert said == [f"{name} holds more than 20 MB. Split it, or raise `max_megabytes`"] and used < 8


def test_a_large_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)  # holes, which take no room
    assert peak(lambda: fault(path)) < 1 and "holds more than 1024 MB" in fault(path)


def test_a_text_that_a_dictionary_holds_once(tmp_path):
    """Many rows of the same megabyte: a small Parquet file, a fifth of a gigabyte in memory."""
    path = filled(tmp_path, "a.parquet", ["x" * 1_000_000] * 200)
    assert path.stat().st_size < 200_000
    assert "a.parquet holds more than 100 MB" in fault(path, max_megabytes=100)


def test_more_rows_than_allowed_are_not_made(tmp_path):
    many = {"a.json": "[" + "[]," * 2_000_000 + "[]]", "a.jsonl": "{}\n" * 1_000_000, "a.csv": "text\n" + "a\n" * 1_000_000}
    for name, content in many.items():
        path = tmp_path / name
        path.write_text(content)
        said = []
        used = peak(lambda path=path, said=said: said.append(fault(path, max_rows=1000)))
        assert "has more than 1000 rows" in said[0]
        assert used < 30, name


def test_a_quote_that_is_never_closed(tmp_path):
    (tmp_path / "a.csv").write_text('text,more\na,b\n"' + "x\n" * 200_000)
    said = fault(tmp_path / "a.csv", max_characters=10)
    assert said == "a.csv, row 2 (line 3) has a cell of more than 131072 characters. Is a quote left open?"


def test_nesting(tmp_path):
    for name, content in (("a.jsonl", GOOD + '{"text": ' + "[" * 100_000), ("a.json", '[{"text": "a"}, ' + '{"a":' * 100_000)):
        (tmp_path / name).write_text(content)
        assert "row 2: broken JSON, nested too deeply" in fault(tmp_path / name)


def test_lists_are_read_as_json_reads_them(tmp_path):
    path = tmp_path / "a.json"
    for content, rows in (('  [ {"text": "a"} ,\n\t{"text": "b"}\r\n ]\n ', 2), ('["a"]', 1), ("\ufeff[\"a\",\"b\"]", 2)):
        path.write_text(content)
        assert len(Files(forget=path).load()["forget"]) == rows
    faults = {
        "[,]": "row 1: broken JSON, expecting value at line 1, column 2",
        '["a",]': "row 2: broken JSON",
        '["a" "b"]': "row 1: broken JSON, expecting ',' delimiter at line 1, column 6",
        "[": "row 1: broken JSON, expecting value",
        '["a"] x': "row 1: broken JSON, extra data",
        '["a",\n "b': "row 2: broken JSON, unterminated string starting at line 2, column 2",
        "[]": "holds no rows",
    }
    for content, message in faults.items():
        path.write_text(content)
        assert message in fault(path), content


def test_first_lines_and_lines_agree(tmp_path):
    limits = Limits(row_megabytes=0.001)
    mark = b"\xef\xbb\xbf"
    for content in (b"", b"\n\n", b"a", mark, mark + b"a\n b \n", b"a\nb\nc", b"\r\n\r\n a\r\n\r\n b", b"\n" * 5 + b"ab\ncd", b"ab\nc"):
        (tmp_path / "a").write_bytes(content)
        lines = [(row, line.strip()) for row, _, line in lines_of(tmp_path / "a", limits)]
        assert [line for _, line in lines][:2] == first_lines(tmp_path / "a", limits)
        assert [row for row, _ in lines] == list(range(1, len(lines) + 1))
        assert [line for _, line in lines] == [part.strip() for part in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if part.strip()]


def test_the_limits_are_settings():
    with pytest.raises(SettingsError, match="`max_row_megabytes` of `files` must be above 0"):
        parse_settings(FilesSettings, {"max_row_megabytes": 0}, "files")
    chosen, plain = FilesSettings(), Limits()
    known = (chosen.max_megabytes, chosen.max_rows, chosen.max_characters, chosen.max_row_megabytes)
    assert known == (plain.megabytes, plain.rows, plain.characters, plain.row_megabytes)

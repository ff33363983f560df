"""`letheon pages`: what it writes, and how it refuses."""

from __future__ import annotations

import json

import pytest

from letheon.cli.main import main

from .conftest import write_results, write_run


@pytest.fixture
def letheon(capsys, monkeypatch, tmp_path):
    """Call a command in an empty folder, as the entry point does; settings of methods are left out, they need torch."""
    from letheon.pages import atlas

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LETHEON_DESK", raising=False)
    monkeypatch.setattr(atlas, "settings", lambda role, name: ([], ""))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_pages_of_runs_and_a_desk(letheon, given, tmp_path):
    desk, ids, runs, results = given
    code, out, err = letheon("pages", "--out", "site", "--desk", desk.folder, "--runs", *runs, "--results", results, "--json")
    said = json.loads(out)
    assert code == 0 and err == "" and f"requests/{ids['located']}.html" in said["pages"]
    assert all((tmp_path / "site" / path).is_file() for path in said["pages"]) and len(said["pages"]) > 100
    written = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert written == set(said["pages"])


def test_the_desk_is_found_by_its_variable_and_by_its_name(letheon, given, monkeypatch):
    monkeypatch.setenv("LETHEON_DESK", str(given[0].folder))
    assert f"requests/{given[1]['located']}.html" in json.loads(letheon("pages", "--out", "site", "--json")[1])["pages"]


def test_an_export_is_replaced_only_if_asked_and_only_if_it_is_one(letheon, tmp_path):
    assert letheon("pages", "--out", "site")[:2] == (0, "site/index.html\n")
    code, _, err = letheon("pages", "--out", "site")
    assert code == 2 and "already exists" in err and "--force" in err
    assert letheon("pages", "--out", "site", "--force")[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    code, _, err = letheon("pages", "--out", "mine", "--force")
    assert code == 2 and "thesis.txt" in err and (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_pattern_passes_over_what_is_no_run(letheon, tmp_path):
    write_run(tmp_path / "runs" / "one", 1.0)
    (tmp_path / "runs" / "notes").mkdir()
    code, out, err = letheon("pages", "--out", "site", "--runs", "runs/*", "--json")
    assert code == 0 and "runs/one.html" in json.loads(out)["pages"] and "notes holds no findings" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "No folder was given"),
        (("--out", "site", "--runs", "nowhere"), "There is no file"),
        (("--out", "site", "--runs", "broken"), "does not hold findings"),
        (("--out", "site", "--runs", "empty-*"), "None of 1 runs holds findings"),
        (("--out", "site", "--results", "broken/findings.json"), "does not hold the results of a sweep"),
        (("--out", "site", "--desk", "broken"), "There is no desk"),
        (("--out", "broken/findings.json"), "is a file"),
        (("--out", "broken", "--runs", "broken", "--force"), "broken"),
        (("--table", "broken"), "is a folder"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(letheon, tmp_path, arguments, words):
    (tmp_path / "broken").mkdir()
    (tmp_path / "empty-one").mkdir()
    (tmp_path / "broken" / "findings.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = letheon("pages", *arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(errors) == 1 and words in errors[0] and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_table_holds_results_tests_and_dates(letheon, tmp_path):
    code, out, _ = letheon("pages", "--table", "table.json", "--results", write_results(tmp_path / "sweep"))
    table = json.loads((tmp_path / "table.json").read_text())
    assert code == 0 and out == "table.json\n" and set(table) == {"made_by", "comparisons", "tests", "added", "releases"}
    assert table["comparisons"][0]["rows"][0]["row"] == "retrain" and len(table["tests"]) > 100

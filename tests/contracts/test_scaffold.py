"""`letheon new`: a fresh erasing method keeps its contracts as soon as the one line of its loss is written."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from letheon.core.errors import LetheonError, MethodError
from letheon.core.registry import find
from letheon.testing.contracts import check
from letheon.testing.scaffold import places, roles, write


def filled(folder: Path, name: str = "my-method", line: str = "return -now") -> Path:
    method = write("erase", name, folder)[0]
    text = method.read_text()
    (missing,) = [each for each in text.splitlines() if "raise NotImplementedError" in each]
    method.write_text(text.replace(missing.strip(), line))
    return method


def test_a_fresh_method_says_that_its_loss_is_missing(tmp_path):
    method = write("erase", "bare-method", tmp_path)[0]
    broken = [result for result in check(method) if not result.passed]
    assert broken and all("has no loss yet" in result.message or "instead of" in result.message for result in broken)


def test_a_filled_method_keeps_all_contracts_and_leaves_no_trace(tmp_path):
    method = filled(tmp_path)
    results = check(method)
    assert [result for result in results if not result.passed] == []
    assert len(results) >= 27
    with pytest.raises(MethodError):
        find("my-method", "erase")


def test_a_mean_in_place_of_a_sum_is_found(tmp_path):
    method = filled(tmp_path, "mean-method", "return -now / len(now)")
    assert [result.contract for result in check(method) if not result.passed] == ["micro batches change nothing"]


def test_the_written_test_passes_by_itself(tmp_path, monkeypatch):
    filled(tmp_path, "own-method")
    monkeypatch.syspath_prepend(tmp_path)
    tests = {name: value for name, value in runpy.run_path(str(tmp_path / "test_own_method.py")).items() if name.startswith("test_")}
    assert sorted(tests) == ["test_contracts", "test_forget_answers_become_less_likely"]
    tests["test_forget_answers_become_less_likely"]()


@pytest.mark.parametrize("role", roles())
def test_other_roles_are_whole_as_they_are_written(role, tmp_path):
    if role != "erase":
        method = write(role, "fresh-thing", tmp_path)[0]
        assert [result for result in check(method, role) if not result.passed] == []


def test_in_a_checkout_files_go_where_they_belong(tmp_path):
    (tmp_path / "src" / "letheon" / "erase").mkdir(parents=True)
    written = {path.relative_to(tmp_path).as_posix() for path in write("erase", "new_way", tmp_path)}
    assert written == {"src/letheon/erase/new_way.py", "cards/new-way.md", "tests/methods/test_new_way.py"}
    assert "from letheon.erase.new_way import NewWay" in (tmp_path / "tests/methods/test_new_way.py").read_text()
    assert 'check("new-way", "erase")' in (tmp_path / "tests/methods/test_new_way.py").read_text()
    assert "Card: new-way." in (tmp_path / "src/letheon/erase/new_way.py").read_text()


@pytest.mark.parametrize(
    ("role", "name", "says"),
    [
        ("erase", "npo", "already a"),
        ("erase", "My-Method", "lower-case"),
        ("erase", "../escape", "lower-case"),
        ("erase", "class", "lower-case"),
        ("erase", "", "lower-case"),
        ("guard", "x", "templates for erase"),
        ("erasee", "x", "Did you mean `erase`"),
    ],
)
def test_bad_names_and_roles_are_refused_before_anything_is_written(role, name, says, tmp_path):
    with pytest.raises(LetheonError, match=says):
        write(role, name, tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_existing_files_are_never_written_over(tmp_path):
    path = places("erase", "my-method", tmp_path)["test"]
    path.write_text("mine")
    with pytest.raises(MethodError, match="already exists"):
        write("erase", "my-method", tmp_path)
    assert path.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_broken_file_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "torn.py").write_text('"""Torn."""\nraise RuntimeError("half done")\n')
    with pytest.raises(MethodError, match="cannot be imported: RuntimeError: half done"):
        check(tmp_path / "torn.py")
    (tmp_path / "bare.py").write_text('"""Bare."""\n')
    with pytest.raises(MethodError, match="one public class"):
        check(tmp_path / "bare.py")
    (tmp_path / "json.py").write_text('"""Hides a module."""\n')
    with pytest.raises(MethodError, match="installed module"):
        check(tmp_path / "json.py")

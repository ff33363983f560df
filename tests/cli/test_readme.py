"""What the README shows works: its Python example and its commands run on a toy model, and every command it names can be given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from letheon.cli.main import app

TEXT = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("  #")[0].strip() for line in re.findall(r"^letheon (?!decides).*$", TEXT, re.MULTILINE)]
INLINE = [one for one in re.findall(r"`(letheon [^`]+)`", TEXT)]


@pytest.fixture
def quick(monkeypatch):
    """Few steps and short generations: the README shows the defaults, the test does not wait for them."""
    from letheon.audit.general import GeneralSuite
    from letheon.erase.npo import NPO

    for cls, values in ((NPO, {"steps": 2}), (GeneralSuite, {"limit": 4, "max_new_tokens": 8})):
        monkeypatch.setattr(cls, "__init__", lambda self, _init=cls.__init__, _values=values, **given: _init(self, **{**_values, **given}))


def test_the_python_example_runs(world, quick):
    (world / "model").rename("MODEL")
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    page = (world / "runs/npo/report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert [step.method for step in names["after"].lineage] == ["npo"]
    assert names["after"].lineage[0].settings["parameters"]["rank"] == 16
    assert set(names["found"].models) == {"before", "after"}


def test_the_commands_on_own_rows_run(world, letheon, quick):
    (world / "model").rename("MODEL")
    own = [one for one in COMMANDS if "--forget" in one]
    assert [one.split()[1] for one in own] == ["erase", "audit"]
    for one in own:
        said = letheon(*shlex.split(one)[1:], "-q")
        assert said.code == 0, said.err
    assert (world / "clean" / "model.safetensors").is_file() and (world / "report.html").is_file()


@pytest.mark.parametrize("command", [*COMMANDS, *INLINE])
def test_every_command_can_be_given(command):
    """Names and options exist. Words in capitals stand for what a reader fills in."""
    words = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    if words[0] == "--plugin":
        words = words[2:]
    assert words[0] in group.commands
    if "NAME" not in words and len(words) > 1:
        group.commands[words[0]].make_context(words[0], words[1:])


def test_commands_were_found():
    assert len(COMMANDS) >= 5 and len(INLINE) >= 4

"""The how-to guides: their shell blocks are run on a toy model, in order; every letheon command in all documents can be given."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from letheon.cli.main import app, main

from .conftest import DOCS, PAGES, blocks, commands

GUIDES = [path for path in sorted((DOCS / "how-to").glob("*.md")) if any(block.language == "bash" for block in blocks(path))]
EVERY = sorted({(page.relative_to(DOCS).as_posix(), command) for page in PAGES for command in commands(page)})
DESK = ("deletion-request", "verify-evidence")  # the second guide goes on where the first one ends


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """What the words in capitals stand for: a model that knows, one from before, one that never knew; and rows."""
    from letheon.testing.toys import toy_data, toy_subject

    folder, data = tmp_path_factory.mktemp("toys"), toy_data()
    toy_subject().save(folder / "MODEL")
    for name in ("BEFORE", "RETRAINED"):
        shutil.copytree(folder / "MODEL", folder / name)
    lines = {}
    for name in ("forget", "retain", "holdout"):
        lines[name] = [json.dumps({"id": row.id, "prompt": row.prompt_text, "answer": row.answer}) for row in data[name]]
    for name, each in {**lines, "people": lines["forget"] + lines["retain"]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(each) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Few steps and short answers: the guides show the defaults, the tests do not wait for them."""
    from letheon.audit.caught import Caught
    from letheon.audit.general import GeneralSuite
    from letheon.erase.npo import NPO

    values = {NPO: {"steps": 2}, GeneralSuite: {"limit": 4, "max_new_tokens": 8, "attacks": "none"}, Caught: {}}
    for cls, own in values.items():
        monkeypatch.setattr(cls, "__init__", lambda self, _init=cls.__init__, _own=own, **given: _init(self, **{**given, **_own}))


def newest(capfd) -> str:
    """The request that the guide calls ID."""
    capfd.readouterr()
    assert main(["requests", "list", "--json"]) == 0
    return json.loads(capfd.readouterr().out)[-1]["id"]


def run(page, capfd) -> int:
    """Run the shell blocks of a guide; how many lines that were."""
    count = 0
    for block in blocks(page):
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        for line in block.text.replace("\\\n", " ").splitlines() if block.language == "bash" else ():
            words = shlex.split(line)
            if any("ID" in word.replace(".", "/").split("/") for word in words):
                words = [word.replace("ID", newest(capfd)) for word in words]
            count += 1
            if words[0] == "letheon":
                capfd.readouterr()
                code = main(words[1:])
                assert code == 0, f"{line}: {capfd.readouterr().err}"
            else:
                subprocess.run(words, check=True, capture_output=True)
    return count


@pytest.mark.parametrize("page", [page for page in GUIDES if page.stem not in DESK], ids=lambda page: page.stem)
def test_a_guide_runs(page, toys, tmp_path, monkeypatch, quick, capfd):
    place = tmp_path / "place"
    shutil.copytree(toys, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    assert run(page, capfd) >= 1


def test_the_guides_of_the_desk_run(toys, tmp_path, monkeypatch, quick, capfd):
    """A request from its arrival to the evidence that somebody else verifies."""
    absent = [name for name in ("sqlalchemy", "alembic", "cryptography", "datasketch") if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed: see tests/SKIPS.md")
    place = tmp_path / "place"
    shutil.copytree(toys, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    assert [run(DOCS / "how-to" / f"{name}.md", capfd) for name in DESK] == [11, 1]


def test_the_guides_were_found():
    assert len(GUIDES) >= 9 and set(DESK) <= {page.stem for page in GUIDES}


@pytest.mark.parametrize(("page", "command"), EVERY, ids=lambda value: str(value)[:60])
def test_every_command_can_be_given(page, command):
    """Names and options exist, also where a command is only shown. Words in capitals stand for what a reader fills in."""
    words = shlex.split(command.split(" > ")[0].replace("...", "x"))[1:]
    group, name = typer.main.get_command(app), "letheon"
    while words and hasattr(group, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in group.commands, f"there is no `{name} {words[0]}`"
        group, name, words = group.commands[words[0]], f"{name} {words[0]}", words[1:]
    if words and not {"NAME", "ID", "--help"} & set(words):
        group.make_context(name, words)


def test_commands_were_found():
    assert len(EVERY) >= 40

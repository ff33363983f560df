"""A small model folder, files of rows, and a way to call the command line in this process."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from letheon.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command gave back."""

    code: int
    out: str
    err: str


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder; folders stand with an empty digest."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


def rows(path: Path, split) -> Path:
    """Write a split as JSONL."""
    lines = [json.dumps({"id": row.id, "question": row.prompt_text, "answer": row.answer, "wrong": list(row.wrong)}) for row in split]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """A toy model (`model`) and its rows; tests take copies."""
    from letheon.testing.toys import toy_data, toy_subject

    folder = tmp_path_factory.mktemp("kept")
    toy_subject().save(folder / "model")
    data = toy_data()
    for name in ("forget", "retain", "holdout"):
        rows(folder / f"{name}.jsonl", data[name])
    return folder


@pytest.fixture
def world(kept, tmp_path, monkeypatch) -> Path:
    """A folder of one's own with `model`, `forget.jsonl`, `retain.jsonl` and `holdout.jsonl`; commands run in it."""
    folder = tmp_path / "world"
    shutil.copytree(kept, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return folder


@pytest.fixture
def letheon(capsys) -> Callable[..., Said]:
    """Call a command as the entry point does."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        found = capsys.readouterr()
        return Said(code, found.out, found.err)

    return call


ERASE = ("erase", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "clean")
ERASE += ("--device", "cpu", "--dtype", "float32")
QUICK = ("--set", "steps=3", "--set", "batch_size=4", "--set", "learning_rate=1e-3", "-q")

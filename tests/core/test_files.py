"""Writing that is whole or absent, whatever the disk does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from letheon.core import files
from letheon.core.errors import RunError
from letheon.core.files import disk_faults, whole_folder, write_bytes, write_text


def listing(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse(code: int):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_is_written_with_its_folders(tmp_path):
    path = write_text(tmp_path / "a" / "b.txt", "é\n")
    assert path.read_bytes() == "é\n".encode() and path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


@pytest.mark.parametrize("part", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, part):
    write_bytes(tmp_path / "x", b"old")
    monkeypatch.setattr(os, part, refuse(errno.ENOSPC))
    with pytest.raises(RunError, match=r"No space left on the disk while writing .*x\. Nothing was half-written"):
        write_bytes(tmp_path / "x", b"new")
    assert listing(tmp_path) == {"x": b"old"}


@pytest.mark.parametrize(
    "code, message",
    [(errno.EACCES, "permission denied"), (errno.EROFS, "read-only"), (errno.ENOTDIR, "a file stands"), (errno.EIO, "Input/output error")],
)
def test_each_disk_fault_has_its_sentence(code, message):
    with pytest.raises(RunError, match=message), disk_faults("out"):
        refuse(code)()


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="a file stands where a folder is needed"):
        write_text(tmp_path / "file" / "y", "y")


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "runs" / "out") as work:
        (work / "sub").mkdir()
        (work / "sub" / "x").write_bytes(b"1")
        assert not (tmp_path / "runs" / "out").exists()
    assert listing(tmp_path) == {"runs/out/sub/x": b"1"}


def test_an_existing_folder_is_not_touched_unasked(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match=r"already exists\. Give `--force`"), whole_folder(tmp_path / "out"):
        raise AssertionError("the block must not be entered")


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing_leaves_only_the_new_folder(tmp_path, monkeypatch, exchange):
    if not exchange:  # a file system that cannot swap two names
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    for content in (b"old", b"new"):
        with whole_folder(tmp_path / "out", replace=True) as work:
            (work / content.decode()).write_bytes(content)
    assert listing(tmp_path) == {"out/new": b"new"} and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_linux_swaps_in_one_step(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x").touch()
    if not files._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot swap two names")
    assert listing(tmp_path) == {"b/x": b""}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_move_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch, failing):
    with whole_folder(tmp_path / "out") as work:
        (work / "x").write_bytes(b"old")
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    calls, move = [], os.replace

    def sometimes(source, target):
        calls.append(source)
        if len(calls) == failing:
            refuse(errno.ENOSPC)()
        move(source, target)

    monkeypatch.setattr(os, "replace", sometimes)
    with pytest.raises(RunError, match="No space left"), whole_folder(tmp_path / "out", replace=True) as work:
        (work / "x").write_bytes(b"new")
    assert len(calls) >= failing
    assert listing(tmp_path) == {"out/x": b"old"} and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), whole_folder(tmp_path / "out") as work:
        (work / "x").write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []

"""Digests of folders: the root of model-signing 1.x, against a second way to compute it and against the library where it is installed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

import pytest

from letheon.core.errors import DataError
from letheon.ledger import digests
from letheon.ledger.canonical import canonical, parse, stamp

from .bundles import DAY, fill


def by_hand(folder: Path) -> str:
    """The root as model-signing describes it: SHA-256 over the raw digests in the order of their paths."""
    items = {}
    for path in folder.rglob("*"):
        inner = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_file() and inner.parts[0] not in (".git", ".github", ".gitignore", ".gitattributes"):
            items[inner] = hashlib.sha256(path.read_bytes()).digest()
    total = hashlib.sha256()
    for _, digest in sorted(items.items()):
        total.update(digest)
    return total.hexdigest()


def test_the_root_is_that_of_model_signing(tmp_path):
    fill(tmp_path, b"weights" * 1000)
    for name in (".gitignore", ".git/config", ".github/x.yml", "deep/.gitignore", "ä/ö", "Z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert digests.root(tmp_path) == by_hand(tmp_path)
    names = [name for name, _ in digests.manifest(tmp_path)]
    assert names == ["Z", "a/z", "a-b", "a.txt", "config.json", "deep/.gitignore", "guards/0/watch.json", "model.safetensors", "ä/ö"]


def test_the_order_is_by_parts_of_paths_and_not_by_characters(tmp_path):
    fill(tmp_path, b"")
    files = digests.manifest(tmp_path)
    by_characters = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in sorted(files))).hexdigest()
    assert digests.root_of(files[::-1]) == digests.root(tmp_path) != by_characters


def test_model_signing_itself_gives_the_same_root(tmp_path):
    hashing = pytest.importorskip("model_signing.hashing", reason="see tests/SKIPS.md")
    fill(tmp_path / "model", b"weights")
    signing = pytest.importorskip("model_signing._signing.signing", reason="see tests/SKIPS.md")
    manifest = hashing.Config().hash(tmp_path / "model")
    assert signing.Payload(manifest).statement.pb.subject[0].digest["sha256"] == digests.root(tmp_path / "model")


def test_names_are_not_in_the_root_but_in_the_list(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("same")
    one, two = digests.folder(tmp_path / "one"), digests.folder(tmp_path / "two", "called")
    assert one.root == two.root and one.files != two.files and (one.name, two.name) == ("one", "called")
    (tmp_path / "empty").mkdir()
    assert digests.root(tmp_path / "empty") == hashlib.sha256().hexdigest()


def test_a_link_to_a_file_counts_as_the_file(tmp_path):
    (tmp_path / "blob").write_bytes(b"x" * 3_000_000)
    (tmp_path / "plain").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "plain" / "w").write_bytes(b"x" * 3_000_000)
    (tmp_path / "linked" / "w").symlink_to(tmp_path / "blob")
    assert digests.root(tmp_path / "linked") == digests.root(tmp_path / "plain")


@pytest.mark.parametrize("kind", ["folder", "nowhere", "pipe", "name"])
def test_what_cannot_be_hashed_is_refused_in_a_sentence(tmp_path, kind):
    model = tmp_path / "model"
    model.mkdir()
    if kind == "folder":
        (model / "more").symlink_to(tmp_path)
    elif kind == "nowhere":
        (model / "w").symlink_to(tmp_path / "gone")
    elif kind == "pipe":
        os.mkfifo(model / "w")
    else:
        open(os.fsencode(model) + b"/\xff", "wb").close()
    said = {"folder": "a link to a folder", "nowhere": "leads nowhere", "pipe": "neither a file nor a folder", "name": "not UTF-8"}[kind]
    with pytest.raises(DataError, match=said):
        digests.root(model)


def test_no_folder_and_no_file(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        digests.root(tmp_path / "gone")
    with pytest.raises(DataError, match="cannot be read"):
        digests.of_file(tmp_path / "gone")


def test_canonical_json_keeps_big_numbers_and_has_one_form():
    assert canonical({"é": 2**53, "a": [1.5, True, 2**53 - 1, -(2**70)]}) == (
        b'{"a":[1.5,true,9007199254740991,"-1180591620717411303424"],"\\u00e9":"9007199254740992"}'
    )
    assert parse(canonical({"x": "\ud800"})) == {"x": "\ud800"}, "half of a pair stays what it is"
    assert stamp(DAY) == "2026-03-01T09:30:00Z"
    with pytest.raises(ValueError, match="float values"):
        canonical(float("nan"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a":1,"a":2}', "a key twice"), (b'{"a":{"b":1,"b":1}}', "a key twice"), (b"{", "not JSON"), (b"\xff", "not UTF-8"),
        (b"[NaN]", "no number"),
        (b"[" * 100_000, "too deeply|not JSON"), (b"1" * 10_000, "digits"), (b"", "not JSON"), (b"[Infinity]", "no number"),
    ],
)  # fmt: skip
def test_json_is_read_strictly(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)

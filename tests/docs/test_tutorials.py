"""The tutorials are run as they stand: every block in its order, in one folder, as a reader would."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys

import pytest

from letheon.cli.main import main

from .conftest import DOCS, ROOT, Block, blocks

ORDER = ["erase", "report", "compare", "method"]  # as docs/tutorials/index.md has them


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all four, with a cache of its own."""
    folder = tmp_path_factory.mktemp("tutorials")
    keep, before = {"LETHEON_CACHE": str(folder / ".cache"), "NO_COLOR": "1", "COLUMNS": "200"}, dict(os.environ)
    here, path = os.getcwd(), list(sys.path)
    os.environ.update(keep)
    os.chdir(folder)
    yield folder
    os.chdir(here)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(before)


def told(line: str, capfd) -> str:
    """What a line of shell prints; commands of letheon run in this process, which spares an import of torch for each."""
    capfd.readouterr()
    words = shlex.split(line)
    if words[0] == "letheon" and ">" not in words:
        assert main(words[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
        return capfd.readouterr().out
    if words[0] == "letheon":
        assert main(words[1 : words.index(">")]) == 0
        with open(words[-1], "w", encoding="utf-8") as file:
            file.write(capfd.readouterr().out)
        return ""
    words[0] = sys.executable if words[0] == "python" else words[0]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def masked(text: str) -> str:
    """Text without its numbers and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"\d+(?:[.,]\d+)*", "#", text))


def show(block: Block, said: str) -> None:
    """Lines that a page shows are there, numbers aside; where a page says that they vary, only the beginning of a verdict is asked for."""
    for line in block.text.strip().splitlines():
        if block.varies:
            assert ":" in said.splitlines()[0] and "%" in said, said
        else:
            assert masked(line.strip()) in masked(said), f"the page shows {line!r}, and the command says\n{said}"


@pytest.mark.parametrize("name", ORDER)
def test_a_tutorial_runs(name, place, capfd):
    page = DOCS / "tutorials" / f"{name}.md"
    before = [DOCS / "tutorials" / f"{one}.md" for one in ORDER[: ORDER.index(name)]]
    assert all((place / f".{one.stem}").exists() for one in before), "the lessons build on one another: run the whole file"
    said, ran = "", 0
    for block in blocks(page):
        if block.title is not None:
            (place / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            said = "".join(told(line, capfd) for line in block.text.replace("\\\n", " ").splitlines() if line.strip())
            ran += 1
        elif block.language == "python":
            exec(compile(block.text, str(page), "exec"), {"__name__": "lesson"})
            ran += 1
        elif block.language == "text" and not block.text.startswith("letheon "):
            show(block, said)
    assert ran >= 2, "nothing was run"
    (place / f".{name}").touch()


def test_the_order_is_that_of_the_index():
    links = re.findall(r"\]\((\w+)\.md\)", (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8"))
    assert links == ORDER


def test_every_word_of_the_verdict_is_explained():
    """The lesson on reports names each word that `report/verdict.py` may put in front."""
    tree = ast.parse((ROOT / "src" / "letheon" / "report" / "verdict.py").read_text(encoding="utf-8"))
    judges = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("_w")]
    texts = {part.value for node in judges for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    words = {text.strip(" ,") for text in texts if text.strip(", ")[:1].isupper() or text.startswith(", ")}
    words = {word for word in words if "\n" not in word and not word.endswith(".")}
    page = " ".join((DOCS / "tutorials" / "report.md").read_text(encoding="utf-8").split())
    assert len(words) >= 14 and [word for word in sorted(words) if word not in page] == []

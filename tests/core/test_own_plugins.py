"""Plug-ins in files of one's own: known by name to every command and to the processes it starts, and refused where they clash or break."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import letheon as lt
from letheon.core import registry
from letheon.core.errors import MethodError
from letheon.testing import scaffold

MINE = """
from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.train.objective import Objective, Term


class {cls}(Objective):
    \"\"\"Ascent at half the weight.\"\"\"

    tiny = {{"steps": 2}}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        nll = batches.nll(subject.module, "forget")
        return {{"forget": Term(-nll.sum(), per="token", weight=0.5)}}
"""


@pytest.fixture
def forgotten(monkeypatch):
    """The registry as it was, whatever a test makes known."""
    before = set(sys.modules)
    monkeypatch.setenv(registry.OWN, "")
    registry.plugins.cache_clear()
    yield
    os.environ.pop(registry.OWN)
    registry.plugins.cache_clear()
    registry._own.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def mine(folder, name="own_ascent", cls="OwnAscent"):
    path = folder / f"{name}.py"
    path.write_text('"""Half an ascent."""\n' + MINE.format(cls=cls))
    return path


def test_a_file_is_known_by_name_in_its_role(forgotten, tmp_path):
    path = mine(tmp_path)
    with pytest.raises(MethodError, match=r"`letheon --plugin .*own_ascent.py ...` makes `own-ascent` known"):
        registry.find(str(path))
    registry.use(path)
    lt.use(str(path))  # a second time changes nothing
    plugin = registry.find("own-ascent")
    assert (plugin.role, plugin.path, plugin.summary) == ("erase", path, "Half an ascent.")
    assert registry.load("own-ascent")(learning_rate=0.1).name() == "own-ascent"
    assert os.environ[registry.OWN] == str(path)


def test_a_folder_named_like_a_role_decides(forgotten, tmp_path):
    (tmp_path / "adapt").mkdir()
    assert registry.from_file(mine(tmp_path / "adapt", "own_other", "OwnOther")).role == "adapt"


def test_what_is_wrong_with_a_file_is_said(forgotten, tmp_path):
    with pytest.raises(MethodError, match="There is no file"):
        registry.use(tmp_path / "own_none.py")
    (tmp_path / "own_broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(MethodError, match="cannot be imported: ModuleNotFoundError"):
        registry.use(tmp_path / "own_broken.py")
    (tmp_path / "own_class.py").write_text("class A:\n    Settings = None\n")
    with pytest.raises(MethodError, match="`A` is no plug-in. Derive it from one of"):
        registry.use(tmp_path / "own_class.py")
    with pytest.raises(MethodError, match="`json` is also the name of an installed module"):
        registry.use(mine(tmp_path, "json"))
    assert os.environ[registry.OWN] == "" and registry.find("npo"), "what failed is not tried again by every later call"


def test_a_name_that_is_taken_is_refused(forgotten, tmp_path):
    with pytest.raises(MethodError, match="There is already an erasing method called `npo`. Rename the file"):
        registry.use(mine(tmp_path, "npo", "NPO"))
    del sys.modules["npo"]
    assert os.environ[registry.OWN] == "" and registry.load("npo").__module__ == "letheon.erase.npo"
    registry.use(registry.find("npo").path)  # a file of the package itself is known already
    assert os.environ[registry.OWN] == ""


def test_new_writes_where_we_are(tmp_path, monkeypatch):
    """And not into the checkout, unless we are in it."""
    monkeypatch.chdir(tmp_path)
    assert {path.parent for path in scaffold.write("erase", "own-new")} == {tmp_path}


def test_the_command_line_erases_and_sweeps_with_it(tmp_path):
    from letheon.testing.toys import toy_data, toy_subject

    toy_subject().save(tmp_path / "model")
    for split, rows in toy_data().items():
        lines = [json.dumps({"question": row.prompt, "answer": row.answer}) for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    mine(tmp_path)
    (tmp_path / "sweep.toml").write_text(
        'out = "swept"\nseeds = [0]\nworkers = 2\n[base]\nsubject = "hf:path=model"\n'
        'data = "files:forget=forget.jsonl,retain=retain.jsonl,holdout=holdout.jsonl"\n'
        '[base.audit]\nname = "general"\nprobes = ["probability"]\nattacks = []\ngradnorm = false\n'
        "[common]\nsteps = 2\n[methods.own-ascent]\n[methods.npo]\n"
    )
    letheon = [sys.executable, "-m", "letheon", "--plugin", "own_ascent.py"]
    said = subprocess.run([*letheon, "sweep", "sweep.toml", "-q", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    cells = json.loads(said.stdout)["cells"]
    assert [cell["row"] for cell in cells] == ["own-ascent", "npo"] and not any("failed" in cell for cell in cells)

"""The registry: found by file, near names, packages from outside, files that are not what they should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import letheon
from letheon.core import registry
from letheon.core.errors import MethodError, SettingsError
from letheon.core.settings import Choice

SOURCE = Path(letheon.__file__).resolve().parent.parent


def test_every_role_lists_the_files_of_its_folder():
    for role in registry.ROLES:
        files = {path.stem.replace("_", "-") for path in registry.role_folder(role).glob("*.py") if not path.name.startswith("_")}
        assert {plugin.name for plugin in registry.plugins(role).values() if plugin.path is not None} == files
    assert len(registry.all_plugins()) == sum(len(registry.plugins(role)) for role in registry.ROLES) >= 13


def test_a_summary_is_the_first_line_of_the_file():
    plugin = registry.find("npo")
    assert plugin.role == "erase" and plugin.summary == plugin.path.read_text().splitlines()[0].strip('"')
    assert plugin.docstring.startswith(plugin.summary)


def test_names_with_dashes_underscores_and_roles():
    assert registry.find("grad_ascent") == registry.find("grad-ascent") == registry.find("erase/grad-ascent")
    assert registry.load("npo").__name__ == "NPO" and registry.load("npo").name() == "npo"


@pytest.mark.parametrize(("name", "role", "says"), [("npoo", None, "`npo`"), ("pared", "train/samplers", "no sampler .*`paired`"), ("npo", "audit", "no audit")])
def test_an_unknown_name_gives_the_nearest(name, role, says):
    with pytest.raises(MethodError, match=says):
        registry.find(name, role)


def test_a_name_in_two_roles_needs_the_longer_one(monkeypatch):
    twin = registry.Plugin("npo", "audit", "letheon.audit.npo", None)
    monkeypatch.setitem(registry.plugins("audit"), "npo", twin)
    with pytest.raises(MethodError, match="2 things: `erase/npo`, `audit/npo`|2 things"):
        registry.find("npo")
    assert registry.find("npo", "audit") is registry.find("audit/npo") is twin


def made(monkeypatch, target: str) -> None:
    monkeypatch.setitem(registry.plugins("erase"), "made", registry.Plugin("made", "erase", target, None))


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("import no_such_package_at_all", "made_plugin", "cannot be imported.*no_such_package"),
        ("x = 1", "made_plugin", "one public class with `Settings`, found none"),
        ("class A:\n    Settings = 1\nclass B:\n    Settings = 1", "made_plugin", "found A, B"),
        ("class A:\n    Settings = 1", "made_plugin:C", "has no `C`"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_sentence(text, target, says, tmp_path, monkeypatch):
    (tmp_path / "made_plugin.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_plugin", raising=False)
    made(monkeypatch, target)
    with pytest.raises(MethodError, match=says):
        registry.load("made")
    sys.modules.pop("made_plugin", None)


def test_private_and_imported_classes_are_not_plugins(tmp_path, monkeypatch):
    text = "from letheon.core.method import Change\nclass _Part:\n    Settings = 1\nclass Own(Change):\n    Settings = 1\n"
    (tmp_path / "own_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    made(monkeypatch, "own_plugin")
    assert registry.load("made").__name__ == "Own"
    sys.modules.pop("own_plugin", None)


def test_a_choice_makes_a_plugin_with_its_settings():
    assert registry.make(Choice(name="lora", rank=3), "train/parameters").settings.rank == 3
    with pytest.raises(SettingsError, match="`rank` of `lora`"):
        registry.make(Choice(name="lora", rank=0), "train/parameters")


OUTSIDE = '''"""Raises forget answers no more, from another package.

Card: none.
"""
from letheon.core.method import Change
from letheon.core.settings import Field, Settings


class OutsideSettings(Settings):
    """Settings."""

    steps: int = Field(1, ge=1, description="steps")


class Outside(Change):
    """One of ours elsewhere."""

    Settings, tiny = OutsideSettings, {}

    def apply(self, subject, data, run):
        """Nothing."""
        return subject
'''


def test_another_package_joins_through_its_entry_point(tmp_path):
    """A real distribution on the path of a fresh process: listed without import, loaded by name, summary from its package."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text("")
    (tmp_path / "elsewhere" / "outside.py").write_text(OUTSIDE)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    points = "erase:outside = elsewhere.outside:Outside\nerase:npo = elsewhere.outside:Outside\nnowhere:lost = a:B\n"
    (info / "entry_points.txt").write_text(f"[letheon.methods]\n{points}")
    code = """
import sys
from letheon.core import registry
plugin = registry.find("outside")
assert plugin.role == "erase" and plugin.path is None and plugin.summary == "from the package elsewhere", plugin
assert "elsewhere.outside" not in sys.modules and "torch" not in sys.modules
assert not any(plugin.name == "lost" for plugin in registry.all_plugins())
assert registry.find("npo").path is not None  # nobody replaces what is built in
cls = registry.load("outside")
assert cls.name() == "outside" and cls(steps=2).settings.steps == 2
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a second erasing method called `npo`; letheon's own is used" in done.stderr


def test_roles_are_named_by_their_last_part_too():
    assert registry.role_named("retain") == registry.role_named("train/retain") == "train/retain"
    assert letheon.methods("retain") == letheon.methods("train/retain") != {}
    with pytest.raises(MethodError, match="There is no role `earse`"):
        letheon.methods("earse")

"""Help and look-ups: quick, without torch, readable at 80 columns and without colour, the same things as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from letheon.core import registry

COMMANDS = ("demo", "erase", "audit", "micro", "run", "report", "compare", "methods", "show", "check", "new")
HEAVY = ("torch", "transformers", "numpy", "scipy", "sklearn", "pyarrow", "peft", "accelerate", "jinja2")


@pytest.mark.parametrize("command", ["--help", "--version", "methods", "methods erase --json", "erase --help", "run --help", "eras"])
def test_no_heavy_import_to_look_something_up(command):
    code = f"import sys; from letheon.cli.main import main; main({command.split()!r})"
    code += f"; sys.exit(' '.join(set({HEAVY!r}) & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"imported: {done.stderr}"
    assert done.stdout or command == "eras"


def test_help_names_every_command_in_one_line_each(world, letheon):
    said = letheon("--help")
    assert said.code == 0 and said.err == "" and letheon() == said
    listed = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("  ") and line.split()[0] in COMMANDS}
    assert set(listed) == set(COMMANDS)
    assert not any(line.endswith("...") for line in listed.values())


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_80_columns(world, letheon, command):
    for flag in ("--help", "-h"):
        said = letheon(*command, flag)
        assert said.code == 0 and "\x1b" not in said.out
        assert max(map(len, said.out.splitlines())) <= 80


def test_version(letheon):
    from letheon import __version__

    assert letheon("--version").out == f"{__version__}\n"


def test_methods_lists_all_plugins(world, letheon):
    said, listed = letheon("methods"), json.loads(letheon("methods", "--json").out)
    assert [(p["role"], p["name"]) for p in listed] == [(p.role, p.name) for p in registry.all_plugins()]
    assert all(p["summary"] and f"  {p['name']} " in said.out for p in listed)
    assert max(map(len, said.out.splitlines())) <= 80
    assert letheon("methods", "retain").out == letheon("methods", "train/retain").out
    assert "npo" not in letheon("methods", "audit").out.split()


def test_methods_of_a_role_without_plugins(world, letheon, monkeypatch):
    monkeypatch.setattr(registry, "all_plugins", list)
    assert letheon("methods", "erase").out == "erase: nothing yet\n"
    assert json.loads(letheon("methods", "erase", "--json").out) == []


@pytest.mark.parametrize("plugin", registry.all_plugins(), ids=lambda plugin: f"{plugin.role}/{plugin.name}")
def test_show_says_what_it_does_and_all_settings(world, letheon, plugin):
    name = f"{plugin.role}/{plugin.name}"
    said, found = letheon("show", name), json.loads(letheon("show", name, "--json").out)
    assert said.code == 0 and said.err == ""
    fields = registry.load(plugin.name, plugin.role).Settings.model_fields
    assert {row["name"] for row in found["settings"]} == set(fields)
    for row in found["settings"]:
        assert row["description"] and f"  {row['name']}  (" in said.out
    words = said.out.split()
    assert [word for word in plugin.docstring.split() if word not in words] == [], "no word is lost when lines are flowed"
    assert found["text"] == plugin.docstring


def test_show_gives_types_bounds_and_defaults(letheon):
    found = {row["name"]: row for row in json.loads(letheon("show", "npo", "--json").out)["settings"]}
    assert found["beta"] == {**found["beta"], "type": "number", "default": 0.1, "bounds": "> 0", "required": False}
    assert found["warmup"]["bounds"] == ">= 0 and < 1"
    assert found["steps"]["type"] == "whole number or null" and found["steps"]["default"] is None
    assert found["schedule"]["type"] == "one of linear, cosine, constant"
    assert found["retain"]["type"] == "one of " + ", ".join(registry.plugins("train/retain")) and found["retain"]["default"] == "nll"
    assert list(found).index("beta") < list(found).index("learning_rate"), "first what only this method has"
    path = next(row for row in json.loads(letheon("show", "hf", "--json").out)["settings"] if row["name"] == "path")
    assert path["required"] and path["type"] == "text"


def test_check_prints_each_contract_and_its_exit_code(world, letheon):
    said = letheon("check", "paired")
    assert said.code == 0 and said.err == ""
    lines = said.out.splitlines()
    found = json.loads(letheon("check", "paired", "--json").out)
    assert found and all(row["passed"] for row in found)
    assert lines[-1] == f"{len(found)} of {len(found)} contracts hold"
    assert sum(line.startswith("ok   ") for line in lines) == len(found)


def test_check_of_a_broken_plugin_fails(world, letheon):
    (world / "crooked.py").write_text(
        '"""A retain term that keeps nothing it promises."""\n\n'
        "from letheon.core.settings import Settings\nfrom letheon.train.parts import RetainTerm\n\n\n"
        "class Crooked(RetainTerm):\n    Settings, tiny = Settings, {}\n\n"
        "    def term(self, subject, batches):\n        raise ValueError('bent')\n"
    )
    said = letheon("check", "crooked.py")
    assert said.code == 1 and "FAIL " in said.out and "bent" in said.out
    assert any(not row["passed"] for row in json.loads(letheon("check", "crooked.py", "--json").out))


def test_new_writes_files_that_it_names(world, letheon):
    said = letheon("new", "erase", "my-method", "--root", world)
    assert said.code == 0
    assert sorted(said.out.splitlines()) == sorted(str(world / name) for name in ("my_method.py", "my-method.md", "test_my_method.py"))
    found = json.loads(letheon("new", "retain", "my-term", "--root", world, "--json").out)
    assert found["files"] and all((world / path).is_file() for path in found["files"])
    before = sorted(path.name for path in world.iterdir())
    assert letheon("new", "erase", "my-method", "--root", world).code == 2
    assert sorted(path.name for path in world.iterdir()) == before


def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from letheon.cli.main import main; sys.exit(main())"
    shell = f"{sys.executable} -c '{code}' methods --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[\n" and "Traceback" not in done.stderr and "Broken" not in done.stderr


@pytest.mark.parametrize(("given", "there"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_that_wait_sleep_unless_told_otherwise(given, there):
    code = "import os, sys; sys.argv = ['letheon', '--version']; from letheon.cli.main import main; main()"
    code += "; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    around = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=around).stdout.split()
    assert said[-2:] == [there, "False"]

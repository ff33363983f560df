"""The recipes that come with letheon: each parses, and every plug-in and setting it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from letheon.flow.recipe import merged, read
from letheon.core import registry
from letheon.core.errors import SettingsError

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))


def test_recipes_are_there():
    names = ["authors-npo", "dusk-world", "muse-news", "own-rows-lora", "rwku-person", "tofu-forget10-graddiff", "tofu-forget10-npo"]
    assert [path.stem for path in RECIPES] == names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_plugins_and_settings_that_exist(path):
    from letheon.core.method import Audit, Change, Loader, Maker, Source

    recipe = read(path)
    assert isinstance(registry.make(recipe.method, "erase"), Change)
    assert isinstance(registry.make(recipe.audit, "audit"), Audit)
    assert isinstance(registry.make(recipe.data, "data"), Source)
    for choice in (recipe.subject, recipe.retrained):
        assert choice is None or isinstance(registry.make(choice, "subjects"), Maker | Loader)
    assert recipe.out == f"runs/{path.stem}", "two recipes never write to one place"
    assert path.read_text().startswith("# "), "a recipe says first what it does"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_commands_in_a_recipe_can_be_run(path):
    """The commands in the comments name this file, and files and folders that the recipe itself reads."""
    commands = [line for line in re.findall(r"^#     (letheon .*)$", path.read_text(), re.MULTILINE)]
    assert f"recipes/{path.name}" in " ".join(commands)
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[1] == "run":
            assert (FOLDER.parent / words[2]).is_file()
            read(FOLDER.parent / words[2], [words[k + 1] for k, word in enumerate(words) if word == "--set"])


def test_a_key_goes_to_the_recipe_or_else_to_the_method():
    values = {"method": "npo:beta=0.2", "data": {"name": "tofu"}, "seed": 0}
    found = merged(values, ["seed=3", "steps=4", "data.path=TOFU", "method.retain.name=kl", "parameters=lora:rank=2"], inside="method")
    assert found["seed"] == 3 and found["data"] == {"name": "tofu", "path": "TOFU"}
    assert found["method"] == {"name": "npo", "beta": 0.2, "steps": 4, "retain": {"name": "kl"}, "parameters": "lora:rank=2"}
    assert values == {"method": "npo:beta=0.2", "data": {"name": "tofu"}, "seed": 0}, "what was given does not change"


@pytest.mark.parametrize("text", ["beta", "=1", " =1"])
def test_an_assignment_needs_a_key_and_a_sign(text):
    with pytest.raises(SettingsError, match="key=value"):
        merged({}, [text])


VALUES = [("1e-3", 1e-3), ("true", True), ("None", None), ("a=b", "a=b"), ("[1, 2]", [1, 2]), ("007", "007")]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values_are_json_where_they_are_json(text, value):
    assert merged({}, [f"key={text}"]) == {"key": value}


@pytest.mark.parametrize("path", sorted((FOLDER / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_a_sweep_names_plugins_and_settings_that_exist(path):
    from letheon.flow.grid import axes
    from letheon.flow.grid import read as read_sweep
    from letheon.flow.sweep import _checked

    sweep = read_sweep(path)
    _checked(sweep, axes(sweep))
    assert sweep.out == f"runs/sweep-{path.stem}" and path.read_text().startswith("# ")
    assert re.findall(r"^#     letheon sweep (\S+)$", path.read_text(), re.MULTILINE) == [f"recipes/sweeps/{path.name}"]

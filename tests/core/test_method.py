"""Methods: named by their file, told apart by their kind, shown by what differs from the defaults."""

from __future__ import annotations

import pytest

from letheon.core.errors import SettingsError
from letheon.core.method import Audit, Change, Curator, Maker, Method, Source
from letheon.core.registry import all_plugins, load
from letheon.core.settings import Field, Settings


class OwnSettings(Settings):
    beta: float = Field(0.1, gt=0, description="inverse temperature")
    rows: int = Field(4, ge=1, description="rows")


class Own(Method):
    """Only here."""

    Settings = OwnSettings


def test_a_method_is_named_by_its_file():
    assert Own.name() == "test-method" and Own.docstring().startswith("Methods: named by their file")


def test_settings_are_built_from_keywords_and_shown_where_they_differ():
    assert Own().settings == OwnSettings()
    assert repr(Own(beta=0.2)) == "test-method(beta=0.2)" and repr(Own(beta=0.1)) == "test-method()"
    with pytest.raises(SettingsError, match="`beta` of `test-method` must be above 0, got -1; `test-method` has no setting `row`"):
        Own(beta=-1, row=3)


@pytest.mark.parametrize("kind", [Source, Maker, Curator, Change, Audit])
def test_a_kind_cannot_be_used_without_its_one_method(kind):
    assert len(kind.__abstractmethods__) == 1
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_every_plugin_is_a_method_with_a_name_of_its_own():
    loaded = [(plugin, load(plugin.name, plugin.role)) for plugin in all_plugins() if plugin.path is not None]
    assert all(issubclass(cls, Method) and cls.name() == plugin.name for plugin, cls in loaded)
    assert len({(plugin.role, cls.name()) for plugin, cls in loaded}) == len(loaded) >= 13

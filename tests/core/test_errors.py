"""Errors: message and hint in one text, near names."""

from __future__ import annotations

import pytest

from letheon.core import errors
from letheon.core.errors import DataError, LetheonError, MethodError, RunError, SettingsError, SubjectError, did_you_mean, nearest


@pytest.mark.parametrize("kind", [SettingsError, DataError, SubjectError, MethodError, RunError])
def test_message_and_hint_are_one_text(kind):
    assert str(kind("Row 3 is empty", "Drop it")) == "Row 3 is empty. Drop it"
    assert str(kind("Row 3 is empty")) == "Row 3 is empty"
    error = kind("a", "b")
    assert isinstance(error, LetheonError) and (error.message, error.hint) == ("a", "b")


def test_the_nearest_name_wins_and_strangers_get_the_whole_list():
    assert nearest("lerning_rate", ["learning_rate", "beta", "learned"]) == "learning_rate"
    assert nearest("xyz", ["learning_rate"]) is None and nearest("a", []) is None
    assert did_you_mean("npoo", {"simnpo", "npo"}) == "Did you mean `npo`?"
    assert did_you_mean("zzz", ["npo", "idk"]) == "Known: idk, npo"
    assert did_you_mean("zzz", []) == "There are none"


def test_of_many_names_only_the_most_similar_or_where_they_are_listed_is_said():
    many = [f"method-{i}" for i in range(55)] * 2
    assert did_you_mean("zzz", many) == "There are 55, among them method-9, method-8, method-7, method-6, method-54"
    assert did_you_mean("zzz", many, "`letheon methods` lists them") == "`letheon methods` lists them"
    assert did_you_mean("zzz", ["npo", "npo"], "`letheon methods` lists them") == "Known: npo"
    assert did_you_mean("methd-7", many, "`letheon methods` lists them") == "Did you mean `method-7`?"


def test_every_error_of_letheon_has_a_sentence_about_itself():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LetheonError)]
    assert len(kinds) == 6 and all(kind.__doc__ for kind in kinds)

"""Settings: all faults at once, each in words; texts that name a plug-in with settings of its own."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, field_validator

from letheon.core.errors import SettingsError
from letheon.core.settings import Choice, Field, Settings, parse_settings, parse_spec, parse_value


class Some(Settings):
    rate: float = Field(0.1, gt=0, le=2, description="rate")
    rows: int = Field(4, ge=1, lt=9, description="rows")
    how: Literal["up", "down"] = Field("up", description="way")
    text: str = Field("x", description="text")
    part: Choice = Field("all", description="part")

    @field_validator("text")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("is longer than 3 letters")
        return value


class Needs(Settings):
    path: str = Field(description="where")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rate": 0}, "`rate` of `it` must be above 0, got 0"),
        ({"rate": 3}, "`rate` of `it` must be at most 2, got 3"),
        ({"rows": 0}, "`rows` of `it` must be at least 1, got 0"),
        ({"rows": 9}, "`rows` of `it` must be below 9, got 9"),
        ({"how": "left"}, "`how` of `it` must be 'up' or 'down', got 'left'"),
        ({"rate": float("nan")}, "must be a finite number, got nan"),
        ({"rate": float("inf")}, "got inf"),
        ({"rows": 1.5}, "got 1.5"),
        ({"rows": "many"}, "got 'many'"),
        ({"text": "long text"}, "`text` of `it`: is longer than 3 letters"),
        ({"rwos": 2}, "`it` has no setting `rwos`: did you mean `rows`?"),
        ({"zzz": 2}, "`it` has no setting `zzz`: it has how, part, rate, rows, text"),
    ],
)
def test_a_fault_is_one_sentence(values, says):
    with pytest.raises(SettingsError) as caught:
        parse_settings(Some, values, "it")
    assert says in caught.value.message
    assert caught.value.hint == "See `letheon show it`"


def test_all_faults_come_at_once():
    with pytest.raises(SettingsError) as caught:
        parse_settings(Some, {"rate": -1, "rows": 0, "how": 3, "rwos": 2}, "it")
    assert all(f"`{name}`" in caught.value.message for name in ("rate", "rows", "how", "rwos"))
    assert caught.value.message.count(";") == 3


def test_a_setting_without_default_must_be_given():
    with pytest.raises(SettingsError, match="`path` of `it` must be given"):
        parse_settings(Needs, {}, "it")
    with pytest.raises(SettingsError) as caught:
        parse_settings(Needs, {}, "the recipe of it")
    assert caught.value.hint is None


def test_settings_cannot_change_and_survive_json():
    settings = parse_settings(Some, {"part": "lora:rank=2"}, "it")
    with pytest.raises(ValidationError):
        settings.rate = 1.0
    assert Some.model_validate_json(settings.model_dump_json()) == settings
    assert settings.part.settings == {"rank": 2}


def test_defaults_are_checked_too():
    class Wrong(Settings):
        rate: float = Field(-1, gt=0, description="rate")

    with pytest.raises(SettingsError, match="above 0"):
        parse_settings(Wrong, {}, "it")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-1e-5", -1e-5), ("true", True), ("True", True), ("False", False), ("null", None), ("None", None), ("[1, 2]", [1, 2]),
     ("kl", "kl"), ('"3"', "3"), ("", ""), ("a b", "a b")],
)  # fmt: skip
def test_a_value_written_as_text(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_a_plugin_written_as_text():
    assert parse_spec("lora") == {"name": "lora"}
    assert parse_spec("lora:rank=8,alpha=4.5") == {"name": "lora", "rank": 8, "alpha": 4.5}
    assert parse_spec("layers:pattern=a{1,2}|b") == {"name": "layers", "pattern": "a{1,2}|b"}, "a comma inside a value stays"
    assert parse_spec("layers:pattern=x=y") == {"name": "layers", "pattern": "x=y"}
    for wrong in ("lora:rank", "lora:=3"):
        with pytest.raises(ValueError, match="key=value"):
            parse_spec(wrong)
    with pytest.raises(SettingsError, match="key=value"):
        parse_settings(Some, {"part": "lora:rank"}, "it")


@given(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_is_written_is_read_back(whole, number, flag):
    assert parse_spec(f"x:a={whole},b={number!r},c={flag}") == {"name": "x", "a": whole, "b": number, "c": flag}


def test_a_choice_takes_text_or_a_table_and_is_equal():
    assert Choice.model_validate("lora:rank=2") == Choice.model_validate({"name": "lora", "rank": 2}) == Choice(name="lora", rank=2)
    with pytest.raises(ValidationError):
        Choice.model_validate({"rank": 2})

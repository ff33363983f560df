"""Suites: probes run one after another over the same readings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from letheon.core.data import Data
from letheon.core.errors import SettingsError
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings

from ._parts import settings_of

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LEVELS: dict[str, dict[str, Any]] = {  # what `--quick` and `--full` set, as far as a suite has it and nothing else was asked for
    "quick": {"attacks": "none", "gradnorm": False, "limit": 100, "max_new_tokens": 48},
    "full": {"attacks": "all", "limit": None},
}
SOME = ("quantised", "relearning", "prompts", "logit-lens", "probing")  # attacks that take seconds
EVERY = ("sampling", "said-before", "token-search", "soft-prompt", "shadow")
EVERY += ("ablation", "adapter-removal", "patching", "weights", "concept-traces")
ATTACKS = ("loss", "zlib", "min-k", "min-k++", "reference")


class SuiteSettings(Settings):
    """Settings that suites share."""

    probes: tuple[str, ...] = Field((), description="probes to run, by name; empty: all of the suite")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")
    max_new_tokens: int = Field(200, ge=1, description="longest generation, tokens")
    attacks: Literal["none", "some", "all"] | tuple[str, ...] = Field(
        "some", description="what is done to bring it back: none, some (those that take seconds), all, or a list of audits by name"
    )
    tasks: tuple[str, ...] = Field((), description="tasks of lm-eval that also say what should stay")
    task_folder: Path | None = Field(None, description="folder with lm-eval task files of your own")

    @field_validator("attacks", mode="before")
    @classmethod
    def _level_or_names(cls, value: Any) -> Any:
        """A single name that is no level is a list of one."""
        return (value,) if isinstance(value, str) and value not in ("none", "some", "all") else value


class MembershipSuiteSettings(SuiteSettings):
    """Settings of suites that run all membership attacks."""

    gradnorm: bool = Field(True, description="run the gradient-norm attack, which needs a backward pass for every row")


class BenchmarkSettings(SuiteSettings):
    """Settings of suites that follow a published protocol: nothing is added to it unless it is asked for."""

    attacks: Literal["none", "some", "all"] | tuple[str, ...] = Field(
        "none", description="what else is done to bring it back: none, some (those that take seconds), all, or a list of audits by name"
    )


def run_probes(
    suite: Audit,
    plan: Mapping[str, Mapping[str, Any]],
    readings: Readings,
    data: Data,
    run: Run,
    reference: Readings | None,
    original: Readings | None,
) -> list[Finding]:
    """Findings of the probes that the suite's settings name, else of all in `plan`.

    Args:
        plan: probe -> the settings that the suite gives it. A probe outside the plan runs with its own defaults.

    Raises:
        MethodError: there is no audit of that name.
        SettingsError: a suite was named as a probe.
    """
    shared = {"limit": suite.settings.limit, "max_new_tokens": suite.settings.max_new_tokens}
    found: list[Finding] = []
    for name in dict.fromkeys(suite.settings.probes or plan):
        probe = load(name, "audit")
        if "probes" in probe.Settings.model_fields:
            raise SettingsError(f"`probes` of `{suite.name()}` names the suite `{name}`", "Name probes such as `probability`")
        limits = _lower(probe, shared) if probe.name() in (*SOME, *EVERY) else shared
        values = settings_of(probe, **{**limits, **plan.get(probe.name(), {})})
        found += probe(**values).measure(readings, data, run, reference, original)
    return found


def _lower(probe: type[Audit], shared: Mapping[str, int | None]) -> dict[str, int | None]:
    """Limits for an attack: its own, which keep it cheap, or the suite's where these are lower."""
    fields = probe.Settings.model_fields
    own = {key: fields[key].default for key in shared if key in fields}
    return {key: min((value for value in (own[key], shared[key]) if value is not None), default=None) for key in own}


class Suite(Audit):
    """Base of suites: a part that cannot run shows when the suite is made, not after minutes of measuring."""

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        for name, settings in tasks(self).items():
            load(name, "audit")(**settings)
        for name in self.settings.attacks if isinstance(self.settings.attacks, tuple) else ():
            load(name, "audit")


def tasks(suite: Audit) -> dict[str, dict[str, Any]]:
    """The tasks of lm-eval that the suite's settings name."""
    asked = suite.settings
    return {"lm-eval": {"tasks": asked.tasks, "folder": asked.task_folder}} if asked.tasks else {}


def other_forms(data: Data) -> tuple[str, ...]:
    """Splits with the facts of the forget split in other forms: `forget-cloze`, `forget-paraphrase`, ..."""
    forms = {name: name.removeprefix("forget-") for name in data if name.startswith("forget-")}
    return tuple(name for name, form in forms.items() if all(row.form == form for row in data[name]))


def returned(suite: Audit, retain: str) -> dict[str, dict[str, Any]]:
    """What the suite's settings ask for beside looking: attacks, with the settings that a suite gives them."""
    both = {"splits": ("forget", retain)}
    some: dict[str, dict[str, Any]] = {"quantised": both, "relearning": {}, "prompts": {}, "logit-lens": both, "probing": {}}
    every: dict[str, dict[str, Any]] = {
        **some,
        "relearning": {"material": ("forget", "related", "unrelated")},
        **{name: {} for name in EVERY},
    }
    asked = suite.settings.attacks
    if isinstance(asked, tuple):
        return {name: some.get(name, {}) for name in asked}
    return {"none": {}, "some": some, "all": every}[asked]


def at_level(choice: Choice, level: str | None) -> Choice:
    """The audit that was asked for, with the settings of a level that it has and that were not set."""
    fields = load(choice.name, "audit").Settings.model_fields
    more = {key: value for key, value in LEVELS[level].items() if key in fields} if level else {}
    return Choice(name=choice.name, **{**more, **choice.settings})


def membership_attacks(suite: Audit) -> tuple[str, ...]:
    """The membership attacks that the suite's settings allow."""
    return (*ATTACKS, "gradnorm") if suite.settings.gradnorm else ATTACKS

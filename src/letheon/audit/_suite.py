"""Suites: probes run one after another over the same readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from letheon.core.data import Data
from letheon.core.errors import SettingsError
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Field, Settings

from ._parts import settings_of

if TYPE_CHECKING:
    from letheon.core.readings import Readings

ATTACKS = ("loss", "zlib", "min-k", "min-k++", "reference")


class SuiteSettings(Settings):
    """Settings that suites share."""

    probes: tuple[str, ...] = Field((), description="probes to run, by name; empty: all of the suite")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")
    max_new_tokens: int = Field(200, ge=1, description="longest generation, tokens")
    gradnorm: bool = Field(True, description="run the gradient-norm attack, which needs a backward pass for every row")
    robust: bool = Field(False, description="also round the weights and train a little on forgotten rows, and see what comes back")


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
        values = settings_of(probe, **shared, **plan.get(probe.name(), {}))
        found += probe(**values).measure(readings, data, run, reference, original)
    return found


def robustness(suite: Audit, retain: str) -> dict[str, dict[str, Any]]:
    """What the suite's settings ask for beside looking: probes that change a copy of the model."""
    return {"quantised": {"splits": ("forget", retain)}, "relearning": {}} if suite.settings.robust else {}


def attacks(suite: Audit) -> tuple[str, ...]:
    """The membership attacks that the suite's settings allow."""
    return (*ATTACKS, "gradnorm") if suite.settings.gradnorm else ATTACKS

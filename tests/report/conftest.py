"""Findings made by hand: every value is chosen by the test, so that its verdict is known."""

from __future__ import annotations

import pytest

from letheon.core.findings import Finding, Findings, Leftover, unmeasured

NAMES = {
    "prob": ("probability", "forget", "reference"),
    "rouge": ("rouge-l-recall", "forget", "reference"),
    "truth": ("truth-ratio", "forget", "reference"),
    "auc": ("membership-min-k", "forget", "reference"),
    "loss": ("membership-loss", "forget", "reference"),
    "ks": ("forget-quality", "forget", "higher"),
    "utility": ("model-utility", "", "higher"),
    "kept": ("rouge-l-recall", "retain-check", "higher"),
    "ppl": ("perplexity", "retain", "lower"),
    "held": ("probability", "holdout", "none"),
}


def make_model(**values: float | str | None) -> tuple[Finding, ...]:
    """The findings of one model; a text instead of a value is the reason why it was not measured."""
    found = []
    for key, value in values.items():
        name, split, direction = NAMES[key]
        known = {"split": split, "direction": direction}
        if isinstance(value, str):
            found.append(unmeasured(name, value, **known))
        else:
            ends = {} if value is None or key == "ks" else {"low": value - 0.01, "high": value + 0.01}
            found.append(Finding(name=name, value=value, n=100, **ends, **known))
    return tuple(found)


def make_findings(leftovers: tuple[Leftover, ...] = (), context: dict | None = None, **models: dict) -> Findings:
    return Findings(
        audit="tofu",
        models={label: make_model(**values) for label, values in models.items()},
        leftovers=leftovers,
        context=context or {},
    )


BEFORE = {"prob": 0.77, "rouge": 0.70, "auc": 1.0, "utility": 0.84, "kept": 0.70}
RETRAINED = {"prob": 0.01, "rouge": 0.20, "auc": 0.50, "utility": 0.80, "kept": 0.68}


@pytest.fixture
def model():
    return make_model


@pytest.fixture
def make():
    return make_findings


@pytest.fixture
def trio():
    """`trio(prob=0.05, ...)`: before, retrained, and an after model with the given values over those of before."""

    def build(leftovers: tuple[Leftover, ...] = (), context: dict | None = None, **after: float | str | None) -> Findings:
        return make_findings(leftovers, context, before=BEFORE, after=BEFORE | after, retrained=RETRAINED)

    return build

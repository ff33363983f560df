"""Several models side by side: labels, leftovers, context; and the interval and seed rules of all findings."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from letheon.audit._measure import LEFTOVERS, measure_all
from letheon.core.data import Data, Example, Split
from letheon.core.errors import MethodError
from letheon.core.findings import Findings
from letheon.core.readings import Readings
from letheon.core.registry import load, plugins
from letheon.core.run import Run


@pytest.fixture(scope="module")
def found(tofu_like, toys):
    run = Run(seed=3, device="cpu")
    subjects = {label: Readings(toys[k], run) for label, k in (("before", 0), ("after", 1), ("retrained", 1))}
    return measure_all(load("tofu", "audit")(max_new_tokens=6, gradnorm=False, attacks="none"), subjects, tofu_like, run, {"command": "letheon audit x"})


def test_models_and_reference(found):
    assert list(found.models) == ["before", "after", "retrained"]
    counts = {len(findings) for findings in found.models.values()}
    assert len(counts) == 1 and counts.pop() >= 25
    assert found.value("after", "forget-quality") == found.value("retrained", "forget-quality") == 1.0
    assert found.value("before", "forget-quality") < 1.0
    assert found.get("after", "membership-reference").value == 0.5 and found.get("retrained", "privleak").value == 0.0


def test_findings_are_whole_and_survive_json(found, tmp_path):
    swept = 0
    for finding in found:
        assert finding.version and finding.audit in plugins("audit")
        assert finding.value is None or math.isfinite(finding.value)
        assert all(row is None or math.isfinite(row) for row in finding.rows)
        assert (finding.value is not None and finding.n > 0 and finding.low <= finding.high) or finding.note
        swept += 1
    assert swept >= 75
    path = found.save(tmp_path / "findings.json")
    again = Findings.load(path)
    assert json.loads(json.dumps(again.model_dump())) == json.loads(json.dumps(found.model_dump()))


def test_context_says_what_is_needed_to_repeat(found, tofu_like, toys):
    context = found.context
    assert context["command"] == "letheon audit x" and context["run"]["seed"] == 3
    assert context["audit"]["settings"]["max_new_tokens"] == 6 and context["audit"]["name"] == "tofu"
    assert context["data"]["splits"]["forget"] == {"rows": len(tofu_like["forget"]), "digest": tofu_like["forget"].digest}
    assert context["subjects"]["before"]["digest"] == toys[0].digest and context["subjects"]["before"]["lineage"] == []
    assert {"letheon", "torch", "transformers"} <= set(context["versions"])
    assert set(context["seconds"]) == set(found.models) and context["reading_seconds"]["before"]["answers"] > 0


def test_the_same_again_gives_the_same_bits(found, tofu_like, toys):
    run = Run(seed=3, device="cpu")
    suite = load("tofu", "audit")(max_new_tokens=6, gradnorm=False, attacks="none")
    again = suite.measure(Readings(toys[0], run), tofu_like, run, Readings(toys[1], run))
    assert tuple(again) == found.models["before"]
    other = Run(seed=4, device="cpu")
    moved = load("probability", "audit")(splits=("forget",)).measure(Readings(toys[0], other), tofu_like, other)[0]
    was = found.get("before", "probability", "forget")
    assert moved.value == was.value and moved.rows == was.rows and (moved.low, moved.high) != (was.low, was.high)


def leftover_case(told):
    """30 rows; row i says i of 10 words; the retrained model says the words of even rows."""
    words = [f"w{k}" for k in range(10)]
    rows = [Example(f"r{i}", " ".join(words), f"q{i}") for i in range(30)]
    data = Data({"forget": Split(rows, "forget")})
    answers = {" ".join(words): [math.log(0.5)]}
    after = told(answers, said={f"q{i}": " ".join(words[: i % 11]) for i in range(30)})
    never = told(answers, said={f"q{i}": " ".join(words) if i % 2 == 0 else "" for i in range(30)})
    return data, after, never


def with_subject(readings, toys):
    readings.subject, readings.digest, readings.costs = toys[0], toys[0].digest, {}
    return readings


def test_leftovers_are_the_rows_said_most_above_the_retrained_model(told, toys, run):
    data, after, never = leftover_case(told)
    subjects = {"after": with_subject(after, toys), "retrained": with_subject(never, toys)}
    found = measure_all(load("general", "audit")(gradnorm=False, probes=("rouge", "probability")), subjects, data, run)
    assert len(found.leftovers) == LEFTOVERS
    excess = {i: (i % 11) / 10 - (i % 2 == 0) for i in range(30)}
    wanted = sorted(excess, key=lambda i: (-excess[i], i))[:LEFTOVERS]
    assert [left.id for left in found.leftovers] == [f"r{i}" for i in wanted]
    first = found.leftovers[0]
    assert first.said["after"] == after.said[first.prompt] and first.score["after"] == pytest.approx((wanted[0] % 11) / 10)
    assert first.said["retrained"] == never.said[first.prompt] and set(first.score) == {"after", "retrained"}


def test_without_generations_nothing_is_left_over(told, toys, run):
    data, after, _ = leftover_case(told)
    found = measure_all(load("probability", "audit")(), {"after": with_subject(after, toys)}, data, run)
    assert found.leftovers == () and found.value("after", "probability") == pytest.approx(0.5)


def test_no_model_is_an_error(run):
    with pytest.raises(MethodError, match="no model"):
        measure_all(load("general", "audit")(), {}, Data({}), run)


def test_limits_hold_for_every_split(tofu_like, toys, run):
    findings = load("general", "audit")(limit=3, max_new_tokens=2, gradnorm=False, attacks="none").measure(Readings(toys[0], run), tofu_like, run)
    measured = [f for f in findings if f.value is not None and f.name != "model-utility"]
    assert len(measured) >= 20 and {f.n for f in measured} == {3}
    rows = np.array([len(f.rows) for f in measured])
    assert set(rows) <= {0, 3}


def test_rows_never_seen_stand_in_for_a_retrained_model_in_every_form(tofu_like, toys, run):
    """Their forms, inner layers and coarse weights on them are measured only where there is no retrained model."""
    cloze = {name: Split([replace(row, form="cloze") for row in tofu_like["forget"]], name) for name in ("forget-cloze", "holdout-cloze")}
    data, readings = Data({**tofu_like, **cloze}), Readings(toys[0], run)
    suite = load("general", "audit")(probes=("probability", "logit-lens", "quantised"), limit=3, gradnorm=False, attacks="some")
    alone, beside = ({(f.split, f.name) for f in suite.measure(readings, data, run, other)} for other in (None, Readings(toys[1], run)))
    assert alone - beside == {
        ("holdout-cloze", "probability"), ("holdout", "lens-probability"), ("holdout", "lens-accuracy"),
        *(("holdout", f"probability-{scheme}") for scheme in ("int8", "int4", "nf4")),
    }  # fmt: skip
    assert beside < alone and ("forget-cloze", "probability") in beside

"""The audit of the audit: scores of metrics on findings whose truth is known, and one small run of the whole."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from letheon.cli.main import app, main
from letheon.core.findings import Finding, Findings
from letheon.testing.selftest import HIDDEN, SelfTestSettings, _alarms, _lines, self_test


def three(judged: float, name: str = "probability", knew: float = 0.9, never: float = 0.1) -> Findings:
    def one(value: float) -> tuple[Finding, ...]:
        return (Finding(name=name, split="forget", value=value, low=value - 0.02, high=value + 0.02, n=9, direction="reference"),)

    return Findings(audit="tofu", models={"before": one(knew), "after": one(judged), "retrained": one(never)})


def found(**kinds: list[float]):
    base = {"knows": [0.9, 0.8], "never": [0.1, 0.2], "npo": [0.1, 0.1], **{kind: [0.1, 0.1] for kind in HIDDEN}}
    return {kind: [three(value) for value in values] for kind, values in (base | kinds).items()}


def test_a_metric_is_scored_by_what_it_tells_apart_and_what_it_sees():
    (line,) = _lines(found(refusal=[0.5, 0.9]), [{"forget/probability": (0.5, 1.0)}, {"forget/probability": (1.0, 0.5)}])
    assert line.metric == "forget/probability" and line.faithfulness == 1.0
    assert line.hidden == {"refusal": pytest.approx((0.5 + 1.0) / 2), "guard": 0.0, "last block": 0.0}
    assert (line.relearning, line.rounding) == (0.75, 0.75)
    (blind,) = _lines(found(knows=[0.2, 0.1], never=[0.1, 0.2]), [])
    assert blind.faithfulness == 0.5 and blind.relearning is None
    (wrong,) = _lines(found(knows=[0.1, 0.1], never=[0.9, 0.9]), [])
    assert wrong.faithfulness == 0.0, "the side of more knowledge is the measure's own, not the better of two"


def test_attacks_that_work_are_counted_among_those_that_were_tried():
    each = [three(0.9, "relearned"), three(0.12, "relearned"), three(0.9, "probability")]
    assert _alarms(each) == (1, 2)


@pytest.fixture(scope="module")
def small():
    return SelfTestSettings(seeds=2, epochs=1, change=1, limit=4, width=16, attacks="none")


def test_the_whole_makes_every_kind_of_model_and_scores_every_metric(small):
    said = self_test(small)
    assert set(said.words) == {"knows", "never", *HIDDEN, "npo"} and all(len(words) == 2 for words in said.words.values())
    names = {line.metric for line in said.lines}
    assert {"forget/probability", "forget/rouge-l-recall", "forget/membership-loss", "forget-cloze/probability"} <= names
    assert said.words["knows"] == ("Unchanged", "Unchanged")
    assert all(0 <= line.faithfulness <= 1 for line in said.lines if line.faithfulness is not None)


def test_false_alarms_alone_need_no_erased_model(small):
    said = self_test(small.model_copy(update={"erased": False}))
    assert set(said.words) == {"knows", "never"} and said.words["knows"] == ("Unchanged", "Unchanged")
    assert all(set(line.hidden.values()) == {None} and line.relearning is None for line in said.lines)


def test_from_the_command_line(monkeypatch, tmp_path, small):
    import letheon.testing.selftest as module

    done = module.SelfTest(tuple(_lines(found(), [])), {"knows": ("Unchanged",)}, {"knows": (1, 1)}, small.model_dump(mode="json"))
    monkeypatch.setattr(module, "self_test", lambda settings, progress: done)
    out = tmp_path / "trust.json"
    result = CliRunner().invoke(app, ["audit", "--self-test", "--out", str(out), "--set", "seeds=2"])
    assert result.exit_code == 0, result.output
    assert "forget/probability" in result.output and "knows: Unchanged; 1 of 1 attacks work" in result.output
    assert json.loads(out.read_text())["lines"][0]["faithfulness"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["audit"], "Give the MODEL"), (["audit", "x", "--self-test"], "takes no MODEL"), (["audit", "--self-test", "--set", "seeds=1"], "seeds")],
)
def test_bad_input(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said

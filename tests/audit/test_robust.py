"""Probes that change a copy of the model: rounding its weights, and training a little on forgotten rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.quantised import Quantised, quantised
from letheon.audit.relearning import Relearning, halves
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.maths.quantise import rounded
from letheon.testing.toys import toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def learned():
    data = toy_data()
    values = {"split": "full", "epochs": 40, "learning_rate": 1e-2}
    return lt.method("finetune", **values).apply(toy_subject(), data, Run(0, **RUN)), data


def test_all_block_matrices_are_rounded_and_nothing_else(learned):
    subject, _ = learned
    before, digest = dict(subject.module.named_parameters()), subject.digest
    for name, weight in quantised(subject, 4, 16).module.named_parameters():
        inside = "layers" in name and weight.ndim == 2
        assert torch.equal(weight, rounded(before[name], 4, 16) if inside else before[name]), name
    assert subject.digest == digest and not torch.equal(rounded(before[name := next(n for n in before if "q_proj" in n)], 4, 16), before[name])


def test_quantised_probability_is_that_of_the_rounded_model(learned):
    subject, data = learned
    run = Run(0, **RUN)
    found = {(f.name, f.split): f for f in Quantised(bits=(8, 3), group=16).measure(Readings(subject, run), data, run)}
    for bits in (8, 3):
        coarse = Readings(quantised(subject, bits, 16), run)
        value = float(np.exp(-coarse.answers(data["forget"]).nll()).mean())
        one = found[f"probability-int{bits}", "forget"]
        assert one.value == pytest.approx(value) and one.n == len(data["forget"])
        assert one.extra["before_rounding"] == pytest.approx(float(np.exp(-Readings(subject, run).answers(data["forget"]).nll()).mean()))
    assert abs(found["probability-int8", "forget"].value - one.extra["before_rounding"]) < 0.05


def test_adapters_are_merged_before_rounding(learned):
    """Else the base is rounded and the adapter stays exact, which attacks nothing."""
    subject, data = learned
    adapted = lt.method("finetune", split="forget", steps=3, learning_rate=1e-2, parameters={"name": "lora", "rank": 2, "merge": False})
    after = adapted.apply(subject, data, Run(0, **RUN))
    coarse = quantised(after, 4, 16)
    assert not hasattr(coarse.module, "peft_config") and hasattr(after.module, "peft_config")
    merged = dict(quantised(after, 16, 16).module.named_parameters())
    name = next(name for name in merged if name.endswith("q_proj.weight"))
    assert torch.equal(dict(coarse.module.named_parameters())[name], rounded(dict(after.fork().module.merge_and_unload().named_parameters())[name], 4, 16))


def test_halves_share_no_group():
    rows = toy_data()["forget"]
    known, asked = halves(rows)
    assert not {row.group for row in known} & {row.group for row in asked} and len(known) + len(asked) == len(rows)
    from dataclasses import replace

    bare = Split([replace(row, group=None) for row in rows], "forget")
    known, asked = halves(bare)
    assert [row.id for row in known] == [row.id for row in bare][::2] and [row.id for row in asked] == [row.id for row in bare][1::2]


def test_relearning_brings_back_what_was_only_hidden_and_not_what_was_never_known(learned):
    """A small final norm hides everything; a few steps on some rows undo it for all. A model that never saw the rows has nothing to undo."""
    subject, data = learned
    run = Run(0, **RUN)
    never = lt.method("finetune", split="retain", epochs=40, learning_rate=1e-2).apply(toy_subject(), data, run)
    hidden = subject.fork()
    with torch.no_grad():
        hidden.module.model.norm.weight.mul_(0.25)  # the right tokens are still first, with little confidence
    attack = Relearning(steps=(1, 4, 16), learning_rates=(1e-2, 1e-1), batch_size=4, parameters=r"layers:pattern=^model\.norm")
    found = {name: attack.measure(Readings(model, run), data, run)[0] for name, model in (("hidden", hidden), ("never", never), ("knows", subject))}
    start = {name: one.extra["curve"]["0"] for name, one in found.items()}
    assert start["hidden"] < 0.1 < 0.8 < start["knows"]
    assert found["hidden"].value > 0.3 > 0.2 > found["never"].value
    assert list(found["hidden"].extra["curve"]) == ["0", "1", "4", "16"] and found["hidden"].extra["trained_rows"] == 4
    assert found["hidden"].value == max(found["hidden"].extra["curve"].values())


def test_step_zero_is_the_model_itself_and_it_stays_as_it_was(learned):
    subject, data = learned
    run, digest = Run(0, **RUN), subject.digest
    subject.module.train()
    one = Relearning(steps=(1,), learning_rates=(1e-3,), batch_size=4).measure(Readings(subject, run), data, run)[0]
    assert subject.module.training and subject.digest == digest
    subject.module.eval()
    _, asked = halves(data["forget"])
    assert one.extra["curve"]["0"] == float(np.exp(-Readings(subject, run).answers(asked).nll()).mean())
    again = Relearning(steps=(1,), learning_rates=(1e-3,), batch_size=4).measure(Readings(subject, run), data, run)[0]
    assert again == one


def test_what_cannot_be_relearned_says_why(learned):
    subject, data = learned
    run = Run(0, **RUN)
    single = Data({"forget": Split(data["forget"][:1], "forget")})
    one = Relearning().measure(Readings(subject, run), single, run)[0]
    assert one.value is None and "cannot be cut" in one.note
    none = Relearning().measure(Readings(subject, run), Data({"retain": data["retain"]}), run)[0]
    assert none.value is None and "no split `forget`" in none.note


@pytest.mark.parametrize("suite", ["tofu", "general"])
def test_a_suite_runs_them_on_wish(learned, suite):
    subject, data = learned
    run = Run(0, **RUN)
    probes = ("quantised", "relearning")
    found = lt.method(f"audit/{suite}", probes=probes, limit=4).measure(Readings(subject, run), data, run)
    assert {f.name for f in found} == {"probability-int8", "probability-int4", "relearned"}
    plain = lt.method(f"audit/{suite}", max_new_tokens=2, limit=2, gradnorm=False)
    names = {f.name for f in plain.measure(Readings(subject, run), data, run)}
    assert "relearned" not in names
    names = {f.name for f in lt.method(f"audit/{suite}", max_new_tokens=2, limit=4, gradnorm=False, robust=True).measure(Readings(subject, run), data, run)}
    assert {"relearned", "probability-int4"} <= names

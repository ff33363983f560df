"""Relearning: what a little training on some rows brings back of others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit._parts import halves
from letheon.audit.relearning import Relearning
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def learned():
    data = toy_data()
    values = {"split": "full", "epochs": 40, "learning_rate": 1e-2}
    return lt.method("finetune", **values).apply(toy_subject(), data, Run(0, **RUN)), data


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


def test_steps_to_half_are_counted_between_the_two_anchors(learned):
    """m_u(n) - m_r(n) >= (m_o(0) - m_r(0)) / 2, from the curves of the three models under the same attack."""
    subject, data = learned
    run = Run(0, **RUN)
    never = Readings(lt.method("finetune", split="retain", epochs=40, learning_rate=1e-2).apply(toy_subject(), data, run), run)
    hidden = subject.fork()
    with torch.no_grad():
        hidden.module.model.norm.weight.mul_(0.25)
    attack = Relearning(steps=(1, 4, 16), learning_rates=(1e-1,), batch_size=4, parameters=r"layers:pattern=^model\.norm")
    knows = Readings(subject, run)
    came, steps = attack.measure(Readings(hidden, run), data, run, never, knows)
    control = attack.measure(never, data, run)[0].extra["curve"]
    whole = attack.measure(knows, data, run)[0].extra["curve"]["0"]
    wanted = {n: (came.extra["curve"][n] - control[n]) / (whole - control["0"]) for n in control}
    assert came.extra["recovery"] == pytest.approx(wanted)
    assert steps.value == min(int(n) for n, share in wanted.items() if share >= 0.5) > 0
    for model, original, words in ((never, knows, "did not come back within 16 steps"), (knows, knows, "is the original"), (knows, None, "no model from before")):
        half = attack.measure(model, data, run, never, original)[1]
        assert half.value is None and words in half.note, words


def test_other_material_is_of_the_same_size_and_named(learned):
    subject, data = learned
    run = Run(0, **RUN)
    attack = Relearning(steps=(1,), learning_rates=(1e-3,), batch_size=4, material=("forget", "related", "unrelated"))
    found = {f.name: f for f in attack.measure(Readings(subject, run), data, run)}
    assert {name for name in found if name.startswith("relearned")} == {"relearned", "relearned-related", "relearned-unrelated"}
    assert len({f.extra["trained_rows"] for f in found.values() if f.value is not None}) == 1
    assert len({f.extra["curve"]["1"] for f in found.values() if f.value is not None}) == 3, "each material teaches something else"
    bare = Data({"forget": data["forget"]})
    lost = [f for f in attack.measure(Readings(subject, run), bare, run) if f.name == "relearned-related"]
    assert lost[0].value is None and "none of the splits `neighbours`" in lost[0].note

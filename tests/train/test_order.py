"""The log of the training order: what the plan drew, whole or absent, the same bytes after a kill, and faults named by line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import letheon as lt
from letheon.core.data import Example
from letheon.core.errors import DataError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.loop import feed_for
from letheon.train.order import NAME, read_order, row_digest

from .plain import Ascent


def run(**more) -> Run:
    return Run(device="cpu", dtype="float32", **more)


def tune(out, cls=None, resume=False, every=2, **more):
    values = {"split": "full", "epochs": 2, "batch_size": 3, "learning_rate": 1e-3, **more}
    method = lt.method("finetune", **values)
    if cls is not None:
        method.stepped = cls(method).stepped
    return method, method.apply(toy_subject(), toy_data(), run(out=out, resume=resume, checkpoint_every=every))


class Killed(BaseException):
    """Ends a run where it stands; nothing catches it, as nothing catches SIGKILL."""


class KilledAt:
    at = 7

    def __init__(self, method):
        self.method = method

    def stepped(self, subject, step):
        if step == self.at:
            raise Killed


def test_the_log_holds_the_plan_and_knows_the_rows(tmp_path):
    method, after = tune(tmp_path)
    order, data = read_order(tmp_path), toy_data()
    plan = feed_for(method, toy_subject(), data, run()).plan
    assert len(order.steps) == len(plan) == 14  # 20 rows in steps of 3, twice
    for mine, planned in zip(order.steps, plan, strict=True):
        assert mine.keys() == planned.keys() and all(np.array_equal(mine[split], planned[split]) for split in planned)
    assert order.rows == {"full": tuple(row_digest(row) for row in data["full"])}
    step = after.lineage[-1]
    assert all(order.about[key] == getattr(step, key) for key in ("method", "seed", "data", "before")) and order.about["lead"] == "full"
    assert json.loads(json.dumps(step.settings)) == order.about["settings"]


def test_the_last_visit_of_every_row(tmp_path):
    tune(tmp_path)
    order = read_order(tmp_path)
    last = {row: k for k, step in enumerate(order.steps, 1) for row in step["full"].tolist()}
    assert order.last_steps("full").tolist() == [last[row] for row in range(20)] and min(last.values()) > 7  # in the second epoch
    tune(tmp_path / "cut", steps=2)
    found = read_order(tmp_path / "cut").last_steps("full")
    assert (found > 0).sum() == 6 and set(found.tolist()) == {0, 1, 2}


def test_a_killed_run_leaves_no_log_and_the_resumed_one_writes_the_same_bytes(tmp_path):
    tune(tmp_path / "whole")
    with pytest.raises(Killed):
        tune(tmp_path / "cut", KilledAt)
    assert not (tmp_path / "cut" / NAME).exists() and list((tmp_path / "cut" / "checkpoints").iterdir())
    tune(tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()
    assert [path.name for path in (tmp_path / "cut").iterdir() if path.name.startswith(".")] == []
    tune(tmp_path / "cut", resume=True)  # finished work, once more
    assert (tmp_path / "cut" / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()


def test_only_steps_that_were_taken_are_logged(tmp_path):
    class Short(Ascent):
        def done(self, values):
            return True

    Short(steps=5, learning_rate=1e-3, retain="nll").apply(toy_subject(), toy_data(), run(out=tmp_path))
    order = read_order(tmp_path)
    assert len(order.steps) == order.about["steps"] == 1 and set(order.rows) == {"forget", "retain"} == set(order.steps[0])


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tune(None)
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_small(tmp_path):
    """About 20 bytes a row and 4 a visit: the log of TOFU (4,217 rows, 5 epochs) stays under 0.3 MB."""
    tune(tmp_path, epochs=5)
    size = (tmp_path / NAME).stat().st_size
    assert size < 2000 + 20 * 20 + 5 * 20 * 4 + 35 * 25


def test_a_digest_is_of_what_is_learned():
    row = Example("a", "answer", "prompt", ("wrong",), "other", "group", "question")
    assert row_digest(row) == row_digest(Example("b", "answer", "prompt")) != row_digest(Example("a", "answer", "prompt "))
    assert row_digest(Example("a", "b", "c")) != row_digest(Example("a", "c", "b"))


def test_faults_name_the_file_and_the_line(tmp_path):
    tune(tmp_path)
    lines = (tmp_path / NAME).read_text().splitlines()

    def broken(change):
        path = tmp_path / "broken.jsonl"
        path.write_text("\n".join(change(list(lines))) + "\n")
        with pytest.raises(DataError) as caught:
            read_order(path)
        assert "broken.jsonl" in str(caught.value)
        return str(caught.value)

    assert "line 1" in broken(lambda lines: ['{"format": "other"}', *lines[1:]])
    assert "line 1" in broken(lambda lines: ["[]"])
    assert "line 4" in broken(lambda lines: [*lines[:3], lines[3][:-5], *lines[4:]])
    assert "step 2 is not where it should be" in broken(lambda lines: [*lines[:3], *lines[4:]])
    assert "none of 20" in broken(lambda lines: [*lines[:2], '{"step":1,"full":[20]}', *lines[3:]])
    assert "line 3" in broken(lambda lines: [*lines[:2], '{"step":1,"kept":[1]}', *lines[3:]])
    assert "13 steps and speaks of 14" in broken(lambda lines: lines[:-1])
    with pytest.raises(DataError, match="no training order"):
        read_order(tmp_path / "absent")

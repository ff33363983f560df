"""Interrupted, killed, resumed: the same bits, the same metrics, and refusals where the work is another."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from letheon.core.errors import RunError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train import sharding
from letheon.train.signals import whole_step

from .plain import Ascent


def run(**more) -> Run:
    return Run(device="cpu", dtype="float32", **more)


class InterruptedAt(Ascent):
    """Ctrl-C reaches the process while step `at` is under way."""

    at = 3

    def stepped(self, subject, step):
        if step == self.at:
            raise KeyboardInterrupt


def whole(steps: int = 5, **more):
    return Ascent(steps=steps, learning_rate=1e-3, **more).apply(toy_subject(), toy_data(), run())


def stopped(cls: type, out, **more):
    cls.__module__ = Ascent.__module__  # the same name: the same work
    return cls(steps=5, learning_rate=1e-3, **more).apply(toy_subject(), toy_data(), run(out=out))


def test_an_interrupted_run_tells_how_to_go_on_and_does(tmp_path):
    with pytest.raises(RunError, match="Interrupted after step 3 of 5") as caught:
        stopped(InterruptedAt, tmp_path)
    assert "--resume" in caught.value.hint and "step-000003" in caught.value.hint
    after = Ascent(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    at_once = whole()
    assert after.digest == at_once.digest
    assert at_once.lineage[-1].notes["processor_seconds"] > 0 and "processor_seconds" not in after.lineage[-1].notes  # of all steps, or none
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 4, 5]  # the line of step 3 was never written


def test_an_interrupt_while_the_numbers_are_written_is_one_like_others(tmp_path, monkeypatch):
    write = Run.record

    def record(self, **values):
        write(self, **values)
        if values["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "record", record)
    with pytest.raises(RunError, match="Interrupted after step 3 of 5") as caught:
        stopped(Ascent, tmp_path)
    assert "step-000003" in caught.value.hint
    monkeypatch.undo()
    after = Ascent(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole().digest
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_a_run_that_was_done_when_it_was_interrupted_takes_no_more_steps(tmp_path):
    class Done(Ascent):
        steps_taken = 0

        def done(self, values):
            Done.steps_taken += 1
            return Done.steps_taken == 3

    class Interrupted(Done):
        def stepped(self, subject, step):
            if step == 3:
                raise KeyboardInterrupt

    Done.__module__ = Ascent.__module__
    with pytest.raises(RunError, match="Interrupted after step 3 of 5"):
        stopped(Interrupted, tmp_path)
    after = stopped_again(Done, tmp_path)
    assert after.lineage[-1].notes["steps"] == 3 and Done.steps_taken == 3
    Done.steps_taken = 0
    assert after.digest == Done(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run()).digest


def stopped_again(cls: type, out):
    return cls(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=out, resume=True))


def test_without_a_folder_nothing_is_kept_and_the_hint_says_so():
    with pytest.raises(RunError, match="Interrupted after step 3 of 5") as caught:
        stopped(InterruptedAt, None)
    assert "--out" in caught.value.hint


@pytest.fixture
def interrupts():
    """Interrupts reach this process, also where it was started in the background of a shell, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_weights_move_waits_for_the_end_of_the_step(tmp_path, monkeypatch, interrupts):
    """Otherwise the checkpoint would hold the weights of step 2 under the number 1."""
    step, calls = torch.optim.AdamW.step, []

    def interrupted(self, *arguments):
        found = step(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(RunError, match="Interrupted after step 2 of 5"):
        stopped(Ascent, tmp_path)
    monkeypatch.undo()
    after = Ascent(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole().digest


def test_an_interrupt_is_neither_lost_nor_raised_early(interrupts):
    done = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), whole_step():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(1)
    assert done == [1] and signal.getsignal(signal.SIGINT) is before


def test_a_request_to_end_waits_too():
    before, done = signal.signal(signal.SIGTERM, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt), whole_step():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)
        assert done == [1] and signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_after_the_rule_has_moved_and_before_the_weights_have(tmp_path, monkeypatch):
    """The checkpoint then holds the multiplier of the last whole step, which belongs to its weights."""
    rule, calls, norm = {"rule": "primal-dual:start_rows=8"}, [], sharding.norm

    def interrupted(gradients):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return norm(gradients)

    monkeypatch.setattr(sharding, "norm", interrupted)
    with pytest.raises(RunError, match="Interrupted after step 2 of 5"):
        stopped(Ascent, tmp_path, **rule)
    monkeypatch.undo()
    after = Ascent(steps=5, learning_rate=1e-3, **rule).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole(**rule).digest


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 6}, {"beta": 0.8}, {"subject": 1}, {"dtype": "bfloat16"}], ids=lambda o: next(iter(o)))
def test_a_checkpoint_of_other_work_is_refused(other, tmp_path):
    with pytest.raises(RunError):
        stopped(InterruptedAt, tmp_path)
    values = {"steps": other.get("steps", 5), "learning_rate": 1e-3, "betas": (other.get("beta", 0.9), 0.999)}
    again = Run(other.get("seed", 0), out=tmp_path, device="cpu", dtype=other.get("dtype", "float32"), resume=True)
    with pytest.raises(RunError, match="belongs to other work"):
        Ascent(**values).apply(toy_subject(other.get("subject", 0)), toy_data(), again)


def test_resuming_where_there_is_nothing_starts_at_the_beginning(tmp_path):
    after = Ascent(steps=5, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole().digest


def test_resuming_finished_work_gives_the_result_again(tmp_path):
    def once(resume):
        return Ascent(steps=3, learning_rate=1e-3).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=resume, checkpoint_every=2))

    first = once(False)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    assert once(True).digest == first.digest


@pytest.mark.parametrize("space", ["layers:pattern=mlp", "lora:rank=2", "fila:rank=2", "reglu:rank=2", "sure:percentile=60"])
def test_resume_in_a_part_of_the_weights(space, tmp_path):
    with pytest.raises(RunError):
        stopped(InterruptedAt, tmp_path, parameters=space, retain="kl")
    after = Ascent(steps=5, learning_rate=1e-3, parameters=space, retain="kl").apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole(parameters=space, retain="kl").digest

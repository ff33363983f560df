"""Contracts of changes and objectives: nothing left behind, every step on record, the same bits again."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, LetheonError, SubjectError
from letheon.core.guard import unguard
from letheon.core.quiet import quiet
from letheon.core.run import Run
from letheon.core.stored import Stored
from letheon.core.subject import Subject
from letheon.train.loop import Trainer, feed_for, start

from ._cases import (
    Broken,
    Case,
    Injected,
    left_as_found,
    logits,
    need,
    need_equal_weights,
    quiet_run,
    stirred,
    subject_logits,
    throw_at_call,
    weights,
)
from .toys import toy_subject


def leaves_the_subject_as_found(case: Case) -> None:
    """Weights, gradients, mode, `requires_grad`, hooks and global generators are what they were before."""
    subject = toy_subject()
    with left_as_found(subject):
        case.make().apply(subject, case.data, quiet_run())


def leaves_the_subject_as_found_after_an_exception(case: Case) -> None:
    """The same when the model throws in its first, second or fourth forward pass."""
    for call in (1, 2, 4):
        subject = toy_subject()
        calls = throw_at_call(subject, call)
        with left_as_found(subject):
            try:
                case.make().apply(subject, case.data, quiet_run())
            except (Injected, LetheonError):
                continue
        need(len(calls) < call, f"it swallows an exception of the model in forward pass {call}")


def adds_one_step_to_the_lineage(case: Case) -> None:
    """The result says which method was applied, with which settings, seed and data, to which subject."""
    before, method = toy_subject(), case.make()
    lineage = case.after.lineage
    need(len(lineage) == 1, f"the lineage has {len(lineage)} steps after one change")
    step = lineage[0]
    told = (("method", step.method, case.name), ("seed", step.seed, 0), ("data", step.data, case.data.digest))
    told += (("before", step.before, before.digest), ("settings", step.settings, method.settings.model_dump(mode="json")))
    for what, found, meant in told:
        need(found == meant, f"`{what}` of the step is {found!r}, not {meant!r}")
    again = case.make().apply(case.after, case.data, quiet_run())
    need(again.lineage[:1] == lineage and len(again.lineage) == 2, "a second change does not extend the lineage of the first")


def changes_weights(case: Case) -> None:
    """The result is another model than the input, with finite weights."""
    case.after.check_finite()
    if case.role != "guard":
        need(case.after.digest != toy_subject().digest, "the result has the weights of the input")


def repeats_to_the_bit(case: Case) -> None:
    """The same seed gives the same weights, whatever other work drew from the global generators before."""
    with stirred(12345):
        again = case.make().apply(toy_subject(), case.data, quiet_run())
    need_equal_weights(case.after, again, "a second run with the same seed")


def saved_and_loaded_says_the_same(case: Case) -> None:
    """The saved folder opened by plain transformers gives the same logits to the bit (without its guard, where it has one)."""
    need_same_when_loaded(case, case.after)


def need_same_when_loaded(case: Case, subject: Subject) -> None:
    """Save, load with transformers alone, compare logits."""
    from transformers import AutoModelForCausalLM

    folder = case.new_folder() / "saved"
    with quiet():
        subject.save(folder)
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = subject.fork()
    unguard(plain.module)
    mine, other = subject_logits(plain), logits(found.eval(), len(subject.encoder.tokenizer))
    need(torch.equal(mine, other), f"logits differ by up to {(mine - other).abs().max():.3g} after saving and loading")


def keeps_the_number_format_of_the_files(case: Case) -> None:
    """Of a model whose files are bfloat16 comes one that bfloat16 holds, unless its weights have other names (adapters, several as one)."""
    subject = toy_subject()
    subject.stored = Stored(torch.bfloat16, frozenset(name for name, _ in subject.module.named_parameters()))
    subject.stored.round_(subject.module)
    after = case.make().apply(subject, case.data, quiet_run())
    if not subject.stored.fits(after.module):
        return
    need(after.stored == subject.stored, "the result does not know the format: end the change with `subject.changed`")
    need(after.stored.names <= Stored.of(after.module, torch.bfloat16).names, "the result has weights that the format does not hold")
    need_same_when_loaded(case, after)


def refuses_data_without_splits(case: Case) -> None:
    """Data without any split raises DataError."""
    _need_data_error(case, Data({}, name="nothing"), "data without splits")


def _need_data_error(case: Case, data: Data, what: str) -> None:
    subject = toy_subject()
    try:
        with left_as_found(subject):
            case.make().apply(subject, data, quiet_run())
    except DataError:
        return
    except Exception as error:  # the contract is about which error it is
        raise Broken(f"{what}: {type(error).__name__} instead of DataError: {error}") from error
    raise Broken(f"{what} raises nothing")


def refuses_damaged_weights(case: Case) -> None:
    """NaN among the weights raises SubjectError before anything is done."""
    subject = toy_subject()
    with torch.no_grad():
        next(subject.module.parameters())[0, 0] = float("nan")
    try:
        case.make().apply(subject, case.data, quiet_run())
    except SubjectError:
        return
    raise Broken("a model with NaN among its weights is accepted")


def works_on_another_architecture(case: Case) -> None:
    """A model with learned positions, biases and tied embeddings is changed as well."""
    before = toy_subject(architecture="gpt2")
    after = case.make().apply(before, case.data, quiet_run())
    after.check_finite()
    need(case.role == "guard" or after.digest != before.digest, "the result has the weights of the input")
    need_same_when_loaded(case, after)


CHANGE = (
    leaves_the_subject_as_found,
    leaves_the_subject_as_found_after_an_exception,
    adds_one_step_to_the_lineage,
    changes_weights,
    repeats_to_the_bit,
    saved_and_loaded_says_the_same,
    keeps_the_number_format_of_the_files,
    refuses_data_without_splits,
    refuses_damaged_weights,
    works_on_another_architecture,
)


def refuses_missing_and_empty_splits(case: Case) -> None:
    """Each split that the loss reads must be there and have rows: DataError otherwise."""
    for split in case.make().splits:
        if split in case.data:
            _need_data_error(case, Data({k: v for k, v in case.data.splits.items() if k != split}), f"no `{split}` split")
            _need_data_error(case, Data({**case.data.splits, split: Split([], split)}), f"an empty `{split}` split")


def works_with_adapters(case: Case) -> None:
    """Low-rank adapters may move instead of the weights; merged, they load as a plain model."""
    after = case.make(parameters="lora:rank=2").apply(toy_subject(), case.data, quiet_run())
    before = weights(toy_subject())
    need(before.keys() == weights(after).keys(), "the merged result does not have the names of the input's weights")
    need(any(not torch.equal(before[key], tensor) for key, tensor in weights(after).items()), "the adapters did nothing")
    need_same_when_loaded(case, after)


def trainer_for(objective: Any, subject: Subject, data: Data, run: Run) -> Trainer:
    """A trainer as the loop sets it up, before its first step."""
    feed = feed_for(objective, subject, data, run)
    start(objective, subject, feed, run)
    return Trainer(objective, objective.space.open(subject.fork(), run), feed, run, "contract")


def gradients_after_a_nudge(objective: Any, case: Case) -> list[torch.Tensor]:
    """The gradient of the first step at weights a little away from the start, where no term is at rest."""
    trainer = trainer_for(objective, toy_subject(), case.data, quiet_run())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    trainer.gradients(trainer.feed.plan[0])
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]


def micro_batches_change_nothing(case: Case) -> None:
    """One step cut into pieces of one row has the gradient of the step in one piece, to 1e-5 of its largest entry."""
    whole = gradients_after_a_nudge(case.make(tokens_per_batch=1 << 20), case)
    cut = gradients_after_a_nudge(case.make(tokens_per_batch=16), case)
    largest = max(float(gradient.abs().max()) for gradient in whole)
    gap = max(float((one - two).abs().max()) for one, two in zip(whole, cut, strict=True))
    need(largest > 0, "the gradient is zero away from the start")
    need(gap <= 1e-5 * largest, f"gradients differ by {gap / largest:.2g} of the largest entry: are the terms sums with the right unit?")


class _Killed(BaseException):
    """Stands for a process that is killed: nothing may catch it."""


def resumed_equals_uninterrupted(case: Case) -> None:
    """Killed in its second step and resumed from the checkpoint of the first, a run ends with the same bits."""
    folder = case.new_folder()
    method = case.make()
    _kill_after(method, 2)
    with contextlib.suppress(_Killed):
        method.apply(toy_subject(), case.data, quiet_run(out=folder, checkpoint_every=1))
        raise Broken("`tiny` makes less than two steps, so resuming cannot be checked")
    need((folder / "checkpoints" / "step-000001").is_dir(), "there is no checkpoint of the first step")
    resumed = case.make().apply(toy_subject(), case.data, quiet_run(out=folder, checkpoint_every=1, resume=True))
    need_equal_weights(case.after, resumed, "resumed after the first step")


def _kill_after(method: Any, steps: int) -> None:
    stepped = method.stepped

    def killing(subject: Subject, step: int) -> None:
        stepped(subject, step)
        if step == steps:
            raise _Killed

    method.stepped = killing


OBJECTIVE = (
    refuses_missing_and_empty_splits,
    works_with_adapters,
    micro_batches_change_nothing,
    resumed_equals_uninterrupted,
)

"""Contracts of the axes along which an erasure is composed: retain terms, gradient rules, parameter spaces, samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.train.loop import feed_for, start
from letheon.train.objective import Objective, ObjectiveSettings
from letheon.train.parts import Part, Term

from ._cases import Case, left_as_found, need, need_equal_weights, quiet_run, stirred, subject_logits, weights
from ._changes import (
    gradients_after_a_nudge,
    micro_batches_change_nothing,
    need_same_when_loaded,
    resumed_equals_uninterrupted,
    trainer_for,
)
from .toys import ARCHITECTURES, sized_data, toy_subject


class Carrier(Objective):
    """The plainest objective, to carry a part through the loop: ascent on forget answers, in steps large enough to be seen."""

    Settings = ObjectiveSettings
    tiny = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the sum of the nll of forget answer tokens."""
        return {"forget": Term(-batches.nll(subject.module, "forget").sum(), per="token")}


def carried(case: Case, key: str) -> Case:
    """The case of a carrier that is composed with the part under test: `retain="kl"` and so on."""

    class Composed(Carrier):
        tiny = {**Carrier.tiny, key: {"name": case.name, **case.tiny}}

    return Case(Composed, Carrier.name(), "erase", None, case.folder)


def _works(case: Case, key: str) -> None:
    """Leaves the subject as found, repeats to the bit, on both architectures."""
    inner = carried(case, key)
    for architecture in ARCHITECTURES:
        subject = toy_subject(architecture=architecture)
        with left_as_found(subject):
            after = inner.make().apply(subject, case.data, quiet_run())
        after.check_finite()
        with stirred(7):
            again = inner.make().apply(toy_subject(architecture=architecture), case.data, quiet_run())
        need_equal_weights(after, again, f"a second run on {architecture}")
        need(after.digest != subject.digest, f"training moves nothing on {architecture}")


# Retain terms


def retain_term_works_in_the_loop(case: Case) -> None:
    """A run with it leaves the subject as found and repeats to the bit, on both architectures."""
    _works(case, "retain")


def retain_term_is_a_finite_sum(case: Case) -> None:
    """Its term is a scalar that counts tokens or rows of a split that it reads; None only where it reads nothing."""
    objective = carried(case, "retain").make()
    trainer = trainer_for(objective, toy_subject(), case.data, quiet_run())
    rows = trainer.feed.plan[0]
    term = objective.retain.term(trainer.subject, trainer.feed.batches(rows))
    need((term is None) == (not objective.retain.splits), "it reads splits but gives no term, or the reverse")
    if term is not None:
        need(term.total.ndim == 0 and bool(torch.isfinite(term.total)), f"the total must be a finite scalar, got {term.total}")
        counted = (term.of,) if isinstance(term.of, str) else term.of or ("retain",)
        need(all(split in rows for split in counted), f"it counts rows of {counted}, which it does not read")


def retain_term_does_not_depend_on_micro_batches(case: Case) -> None:
    """Its gradient is the same whether a step runs in one piece or row by row."""
    micro_batches_change_nothing(carried(case, "retain"))


def retain_term_resumes_to_the_bit(case: Case) -> None:
    """A killed and resumed run with it ends with the same bits."""
    resumed_equals_uninterrupted(carried(case, "retain"))


RETAIN = (
    retain_term_works_in_the_loop,
    retain_term_is_a_finite_sum,
    retain_term_does_not_depend_on_micro_batches,
    retain_term_resumes_to_the_bit,
)

# Gradient rules


def rule_works_in_the_loop(case: Case) -> None:
    """A run with it leaves the subject as found and repeats to the bit, on both architectures."""
    _works(case, "rule")


def rule_does_not_depend_on_micro_batches(case: Case) -> None:
    """The gradient it makes is the same whether a step runs in one piece or row by row."""
    micro_batches_change_nothing(carried(case, "rule"))


def rule_resumes_to_the_bit(case: Case) -> None:
    """A killed and resumed run with it ends with the same bits; what it remembers is in `state`."""
    resumed_equals_uninterrupted(carried(case, "rule"))


def _gradients(seed: int, *names: str) -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {name: [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,))] for name in names}


def _combined(rule: Any, gradients: dict[str, list[torch.Tensor]]) -> tuple[list[torch.Tensor], dict[str, float]]:
    """What a rule makes of gradients of terms with mean 1 and weight 1, for an optimiser that has not made a step."""
    named = {"matrix": torch.nn.Parameter(torch.ones(3, 4)), "vector": torch.nn.Parameter(torch.ones(5))}
    parts = {name: Part(gradient, 1.0, 1.0) for name, gradient in gradients.items()}
    return rule.combine(parts, named, torch.optim.AdamW(named.values()))


def rule_keeps_a_single_term(case: Case) -> None:
    """With one term the step is a positive multiple of its gradient, and the given gradients are not written to."""
    if not case.cls.separate:
        return
    for name in ("forget", "retain"):
        given, same = _gradients(1, name), _gradients(1, name)
        combined, told = _combined(case.make(), given)
        need([tuple(t.shape) for t in combined] == [(3, 4), (5,)], "the combined gradient does not have the shapes of the parameters")
        flat, meant = torch.cat([t.flatten() for t in combined]), torch.cat([t.flatten() for t in same[name]])
        cosine = float(torch.nn.functional.cosine_similarity(flat, meant, dim=0))
        need(cosine > 1 - 1e-5, f"with `{name}` alone the step has cosine {cosine:.6f} with its gradient")
        need(all(torch.equal(a, b) for a, b in zip(given[name], same[name], strict=True)), "it writes to the given gradients")
        need(all(isinstance(value, float | int) for value in told.values()), "what it logs must be plain numbers")


def rule_survives_zero_gradients(case: Case) -> None:
    """Zero and opposite gradients give finite steps."""
    if not case.cls.separate:
        return
    one = _gradients(1, "forget")["forget"]
    zero = [torch.zeros_like(t) for t in one]
    for other in (zero, one, [-t for t in one]):
        for first in (one, zero):
            combined, _ = _combined(case.make(), {"forget": first, "retain": other})
            need(all(bool(torch.isfinite(t).all()) for t in combined), "zero, equal or opposite gradients give NaN or infinity")


def rule_state_is_complete(case: Case) -> None:
    """A new rule that takes over the state of an old one goes on like the old one."""
    if not case.cls.separate:
        return
    old, new = case.make(), case.make()
    for seed in range(3):
        _combined(old, _gradients(seed, "forget", "retain"))
    new.restore({name: tensor.clone() for name, tensor in old.state().items()})
    one, two = (_combined(rule, _gradients(9, "forget", "retain"))[0] for rule in (old, new))
    need(all(torch.equal(a, b) for a, b in zip(one, two, strict=True)), "after `restore(state())` the next step differs")


RULE = (
    rule_works_in_the_loop,
    rule_does_not_depend_on_micro_batches,
    rule_resumes_to_the_bit,
    rule_keeps_a_single_term,
    rule_survives_zero_gradients,
    rule_state_is_complete,
)

# Parameter spaces


def space_works_in_the_loop(case: Case) -> None:
    """A run with it leaves the subject as found and repeats to the bit, on both architectures."""
    _works(case, "parameters")


def space_opens_without_a_change(case: Case) -> None:
    """Opened and closed without a step, the model says what it said, and at least one floating-point weight may move."""
    subject, objective, space, run = toy_subject(), Carrier(**Carrier.tiny), case.make(), quiet_run()
    before, objective.space = subject_logits(subject), space
    start(objective, subject, feed_for(objective, subject, case.data, run), run)
    opened = space.open(subject.fork(), run)
    free = [parameter for parameter in opened.module.parameters() if parameter.requires_grad]
    need(bool(free) and all(parameter.is_floating_point() for parameter in free), "no floating-point weight may move")
    for what, now in (("opened", opened), ("closed", space.close(opened, run))):
        gap = float((subject_logits(now) - before).abs().max())
        need(gap <= 1e-4 * float(before.abs().max()), f"{what}, before any step, its logits differ by {gap:.3g}")


def space_keeps_the_rest_in_place(case: Case) -> None:
    """Weights that may not move are the same bits after training."""
    trainer = trainer_for(carried(case, "parameters").make(), toy_subject(), case.data, quiet_run())
    still = {name: p.detach().clone() for name, p in trainer.subject.module.named_parameters() if not p.requires_grad}
    while trainer.step < len(trainer.feed.plan):
        trainer.advance()
    for name, parameter in trainer.subject.module.named_parameters():
        need(name not in still or torch.equal(parameter, still[name]), f"`{name}` may not move, but did")


def space_result_is_a_plain_model(case: Case) -> None:
    """The result has the weights of the input by name and loads in plain transformers with the same logits."""
    inner = carried(case, "parameters")
    for architecture in ARCHITECTURES:
        subject = toy_subject(architecture=architecture)
        after = inner.make().apply(subject, case.data, quiet_run())
        need(weights(after).keys() == weights(subject).keys(), f"on {architecture} the names of the weights differ")
        need_same_when_loaded(case, after)


def space_resumes_to_the_bit(case: Case) -> None:
    """A killed and resumed run in it ends with the same bits."""
    resumed_equals_uninterrupted(carried(case, "parameters"))


def space_has_a_gradient(case: Case) -> None:
    """The loss reaches the weights that may move."""
    need(any(bool(g.any()) for g in gradients_after_a_nudge(carried(case, "parameters").make(), case)), "no gradient arrives")


SPACE = (
    space_works_in_the_loop,
    space_opens_without_a_change,
    space_keeps_the_rest_in_place,
    space_result_is_a_plain_model,
    space_resumes_to_the_bit,
    space_has_a_gradient,
)

# Samplers

_SIZES = (
    {"forget": 8, "retain": 12},
    {"forget": 7, "retain": 3},
    {"forget": 1, "retain": 50},
    {"forget": 33},
    {"forget": 5, "retain": 1, "kept": 9},
)


def _epoch(case: Case, sizes: dict[str, int], rows: int, epoch: int, seed: int = 0) -> list[dict[str, Any]]:
    sampler = case.make()
    sampler.start(sized_data(sizes))
    return sampler.epoch(sizes, "forget", rows, quiet_run(seed), epoch)


def sampler_walks_the_lead_once(case: Case) -> None:
    """An epoch draws every row of the leading split, exactly once unless it `repeats`, and at most as many per step as asked for."""
    for sizes in _SIZES:
        for rows in (1, 3, 32):
            for epoch in (0, 1, 5):
                steps = _epoch(case, sizes, rows, epoch)
                drawn = np.concatenate([step["forget"] for step in steps]).tolist()
                walked = sorted(set(drawn) if case.cls.repeats else drawn)
                need(walked == list(range(sizes["forget"])), f"{sizes}, {rows} rows per step: the lead is not walked once")
                need(all(1 <= len(step["forget"]) <= rows for step in steps), f"{sizes}: a step has more than {rows} rows, or none")


def sampler_stays_in_range(case: Case) -> None:
    """Row numbers are whole and in range, and every step draws from every split."""
    for sizes in _SIZES:
        for step in _epoch(case, sizes, 3, 1):
            need(step.keys() == sizes.keys(), f"a step reads {sorted(step)}, not {sorted(sizes)}")
            for split, at in step.items():
                need(isinstance(at, np.ndarray) and at.dtype.kind == "i", f"rows of `{split}` are not an array of whole numbers")
                inside = len(at) >= 1 and 0 <= at.min() and at.max() < sizes[split]
                need(inside, f"rows of `{split}` lie outside 0..{sizes[split] - 1}: {at}")


def sampler_depends_on_seed_and_epoch_alone(case: Case) -> None:
    """The same seed and epoch give the same steps, also out of turn; another seed gives another order."""
    sizes = {"forget": 33, "retain": 40}

    def drawn(epoch: int, seed: int = 0) -> list[list[int]]:
        return [at.tolist() for step in _epoch(case, sizes, 4, epoch, seed) for at in step.values()]

    first = [drawn(epoch) for epoch in range(3)]
    with stirred(3):
        again = [drawn(epoch) for epoch in (2, 0, 1)]
    need(again == [first[2], first[0], first[1]], "an epoch depends on what was drawn before it")
    need(drawn(0, seed=1) != first[0], "the seed changes nothing")


def sampler_works_in_the_loop(case: Case) -> None:
    """A run with it leaves the subject as found and repeats to the bit, on both architectures."""
    _works(case, "sampler")


SAMPLER = (sampler_walks_the_lead_once, sampler_stays_in_range, sampler_depends_on_seed_and_epoch_alone, sampler_works_in_the_loop)

"""The one training loop.

A step draws rows (sampler), cuts them into micro-steps under a token budget, asks the objective for terms, divides each sum by its count
over the whole step, takes gradients, lets the rule make one gradient of them, clips, and lets AdamW move the weights. Because terms are
sums and the loop divides, a step does not depend on how it is cut or on how many processes share it (`sharing.py`).
"""

from __future__ import annotations

import functools
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.attention import fast_attention
from letheon.core.data import Data
from letheon.core.errors import MethodError, RunError
from letheon.core.registry import make
from letheon.core.run import Run, kept_as_found
from letheon.core.subject import Subject

from . import checkpoint, sharding
from .feed import Feed, Rows, plan_steps
from .lift import Lift
from .means import count_of, forget_slope, retain_mean
from .objective import Objective
from .order import write_order
from .pace import optimizer_for, rate_factor
from .parts import Part, Rule
from .progress import bar
from .sharding import Sharded
from .sharing import Share, has_gradient, same_weights, same_work, together
from .signals import whole_step

log = logging.getLogger("letheon")


@dataclass
class _Measured:
    """Means of the terms of one step before their weights, the loss, and what the parameter space and the rule have to say."""

    means: dict[str, float]
    loss: float
    more: dict[str, float]


class Trainer:
    """The state of one training run: a forked subject, its optimiser, and how far it has come."""

    def __init__(self, objective: Objective, subject: Subject, feed: Feed, run: Run, mark: str, sharded: Sharded | None = None):
        self.objective, self.subject, self.feed, self.run, self.mark = objective, subject, feed, run, mark
        self.space, self.sharded = objective.space, sharded
        self.rule: Rule = make(objective.settings.rule, "train/rules")
        self.rule.start(lambda rows: retain_mean(objective, subject, feed, run, rows))
        if sharded is not None:
            sharded.cut()
        self.named = {name: p for name, p in subject.module.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = optimizer_for(self.parameters, objective.settings)
        self.step, self.finished = 0, False
        self.lift = Lift(run)
        self.world, self.rank = processes.size(), processes.rank()
        self.rule_state: dict[str, Tensor] = {}  # as it was after the last whole step

    def gradients(self, planned: Rows) -> _Measured:
        """Put the gradient of one step into `.grad` of the parameters. It is taken again where float16 could not hold it."""
        objective = self.objective
        rows = objective.drawn(self.subject, self.feed, planned, self.run)
        counts = self.feed.counts(rows)
        ours = rows if self.world == 1 else self.feed.share(rows, objective.tied, self.rank, self.world)
        separate: dict[str, list[Tensor]] = {}
        sums: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        self.reached = bytearray(len(self.parameters))  # 1 where some term has a gradient, under a rule that wants them apart
        self.optimizer.zero_grad()
        with processes.agreed() if self.sharded is None else sharding.unbroken() as here:
            pieces = self.feed.micro_steps(ours, objective.tied)
            for piece, factor in sharding.padded(pieces, rows if self.sharded else None):
                means = self._means(piece, counts, weights, factor)
                for name, mean in means.items():
                    sums[name] = sums.get(name, torch.zeros((), device=self.feed.device)) + self.lift.down(mean.detach())
                if self.sharded is None or not self.rule.separate:
                    self._backward(means, weights, separate)
                else:
                    again = functools.partial(self._means, piece, counts, weights, factor)
                    sharding.in_turn(means, again, self.parameters, separate, self.reached)
            own = self.space.terms(self.subject)  # on weights alone: each process brings its share
            weights |= {name: term.weight for name, term in own.items()}
            self._backward({name: self.lift.up(term.total / self.world) for name, term in own.items()}, weights, separate)
            apart = self.parameters if self.sharded is None else []  # whose gradients are still to be added up
            moved = bytes(self.reached) if self.rule.separate else has_gradient(apart)
            here.value = Share({name: float(value) for name, value in sums.items()}, weights, moved)
        whole = together(here.all, apart, separate if self.rule.separate and self.sharded is None else None)
        more = {name: float(term.total.detach()) for name, term in own.items()}
        found = [g for each in separate.values() for g in each] if self.rule.separate else [p.grad for p in self.parameters]
        if not self.lift.fits(found, whole.means):
            return self.gradients(planned)
        return self._combined(separate, whole, more)

    def _means(self, piece: Rows, counts: dict, weights: dict[str, float], factor: float) -> dict[str, Tensor]:
        """Sums of the terms of one piece, lifted and divided by the counts of the whole step; puts their weights into `weights`."""

        def measured() -> dict[str, Tensor]:
            with self.run.autocast():
                terms = self.objective.terms(self.subject, self.feed.batches(piece, apart=self.rule.separate))
            weights.update({name: term.weight for name, term in terms.items()})
            units = {name: max(1, count_of(self.objective.name(), counts, name, term)) for name, term in terms.items()}
            return {name: self.lift.up(term.total / units[name]) for name, term in terms.items()}

        if self.sharded is None:
            return measured()
        return {name: factor * mean for name, mean in self.sharded.run(measured).items()}

    def _backward(self, means: dict[str, Tensor], weights: dict[str, float], separate: dict[str, list[Tensor]]) -> None:
        if not means:
            return
        names = [name for name, mean in means.items() if mean.requires_grad]
        if not names:
            raise MethodError(f"No weight that may move has a part in the loss of `{self.objective.name()}`", "Try `parameters=all`")
        if not self.rule.separate:
            sum(weights[name] * mean for name, mean in means.items()).backward()
            return
        for name in means:
            separate.setdefault(name, [torch.zeros_like(p) for p in self.parameters])
        for name in names:
            found = torch.autograd.grad(means[name], self.parameters, retain_graph=name != names[-1], allow_unused=True)
            for k, part in enumerate(found):
                if part is not None:
                    separate[name][k] += part
                    self.reached[k] = 1

    def _combined(self, separate: dict[str, list[Tensor]], whole: Share, more: dict[str, float]) -> _Measured:
        means, weights = whole.means, whole.weights
        for gradients in separate.values() if self.rule.separate else ([parameter.grad for parameter in self.parameters],):
            self.space.limit(gradients)
        values = means | more
        loss = sum(weights.get(name, 1.0) * value for name, value in values.items())
        if self.rule.separate:
            parts = {name: Part(gradient, values[name], weights.get(name, 1.0)) for name, gradient in separate.items()}
            combined, told = self.rule.combine(parts, self.named, self.optimizer)
            more = more | told
            for parameter, gradient, reached in zip(self.parameters, combined, whole.moved, strict=True):
                parameter.grad = gradient if reached else None
        return _Measured(means, loss, more)

    def advance(self) -> dict[str, float]:
        """One optimiser step. Raises MethodError, with the weights of the step before, when the numbers run away."""
        settings, total = self.objective.settings, len(self.feed.plan)
        measured = self.gradients(self.feed.plan[self.step])
        norm = sharding.norm([p.grad for p in self.parameters if p.grad is not None])
        self._guard(measured, norm)
        if settings.clip and norm > settings.clip:
            sharding.clip(self.parameters, settings.clip, norm)
        rate = settings.learning_rate * rate_factor(self.step, total, settings.warmup, settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        values = {"loss": measured.loss, **measured.means, **measured.more, "gradient_norm": norm, "learning_rate": rate}
        with whole_step():
            self.optimizer.step()
            self.space.stepped(self.subject)
            self.step += 1
            self.rule_state = self.rule.state()
            self.finished = self.objective.done(values)
        self.objective.stepped(self.subject, self.step)
        return values

    def _guard(self, measured: _Measured, norm: float) -> None:
        worst = max(map(abs, measured.means.values()), default=0.0)
        if all(map(math.isfinite, (*measured.means.values(), norm))) and worst <= self.objective.settings.runaway:
            return
        kept = "the last good weights are those of the step before"
        if self.run.out is not None:
            kept = f"the weights before it are kept in {processes.once(self.save) if self.sharded is None else self.save()}"
        what = ", ".join(f"{name} {value:.4g}" for name, value in measured.means.items())
        raise MethodError(
            f"`{self.objective.name()}` diverged at step {self.step + 1} of {len(self.feed.plan)}"
            f" ({what}, gradient norm {norm:.4g}); {kept}",
            "Lower `learning_rate`, or give the retain term more weight",
        )

    def save(self) -> Path | None:
        """Write a checkpoint of the present state; the first of several processes does. Where weights are cut up, all do."""
        if self.run.out is None or (self.rank and self.sharded is None):
            return None
        with whole_step():
            extra = self.rule_state | self.lift.state() | ({"loop/finished": torch.ones(1)} if self.finished else {})
            return checkpoint.save(self.run.out, self.step, self.mark, self.named, self.optimizer, extra)

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one. The first process reads it for all; of cut up weights each reads its part."""
        out = self.run.out
        found = processes.once(lambda: checkpoint.newest(out)) if self.run.resume and out is not None else None
        if found is None:
            return
        step, mark, folder = found
        if mark != self.mark:
            hint = "Settings, seed, model or data differ, or what the parameter space measured on another machine; use another `--out`"
            raise RunError(f"The checkpoint {folder} belongs to other work", hint)
        with processes.agreed():
            part = (self.rank, self.world) if self.sharded else None
            tensors = checkpoint.load(folder, part) if part or self.rank == 0 else None
        tensors = tensors if part else processes.sent(tensors, self.feed.device)
        extra = checkpoint.restore(folder, self.named, self.optimizer, tensors)
        self.finished = extra.pop("loop/finished", None) is not None
        self.lift.restore(extra)
        self.rule.restore(extra)
        self.step, self.rule_state = step, self.rule.state()
        self.run.rewind(step)
        log.info("resumed at step %d of %d", step, len(self.feed.plan))


def feed_for(objective: Objective, subject: Subject, data: Data, run: Run) -> Feed:
    """Check, plan and encode what an objective will eat."""
    settings = objective.settings
    data = objective.prepare(subject, data, run)
    data.need(*objective.splits, why=f"`{objective.name()}`")
    data.need(*objective.space.splits, why=f"`{objective.space.name()}`")
    plan = plan_steps(objective, make(settings.sampler, "train/samplers"), data, run)
    read = dict.fromkeys([*(split for step in plan for split in step), *objective.space.splits])
    encoded = {split: subject.encoder.encode(data[split]) for split in read}
    budget = settings.tokens_per_batch or (2048 if run.device.type == "cpu" else 16384)  # what a cache or a GPU likes best
    return Feed(data, encoded, plan, subject.encoder.pad, run.device, budget)


def start(objective: Objective, subject: Subject, feed: Feed, run: Run) -> None:
    """Let the retain term, the objective and the parameter space measure the subject as it came in."""
    with kept_as_found(subject.module), fast_attention(subject.module):
        subject.to(run.device)
        if objective.retain is not None:
            objective.retain.start(subject, feed, run)
        objective.start(subject, feed, run)
        objective.space.start(subject, feed, run, lambda: forget_slope(objective, subject, feed, run))


def train(objective: Objective, subject: Subject, data: Data, run: Run) -> Subject:
    """Apply an objective. The given subject keeps its weights, mode and hooks (unless it is disposable).

    Raises:
        MethodError: training diverged; says at which step and where the last good weights are.
        DataError: a split is missing or empty, or a row does not fit the context.
    """
    run.join()
    if sharding.asked_for():
        sharding.check(objective)
    subject.check_finite()
    feed = feed_for(objective, subject, data, run)
    before, digest, settings = subject.digest, data.digest, objective.settings.model_dump()
    described = {"method": objective.name(), "settings": settings, "seed": run.seed, "data": digest, "before": before}
    began, cost = time.monotonic(), time.process_time()
    same_work(described)
    start(objective, subject, feed, run)
    space = objective.space
    after = space.open(subject.fork(), run)
    mark = checkpoint.fingerprint(**described, dtype=str(run.compute_dtype), derived=checkpoint.digest(space.derived()))
    mark = same_weights(after.module, mark)
    sharded = Sharded(after.module, run.device) if sharding.asked_for() else None
    with kept_as_found(after.module), fast_attention(after.module):
        trainer = Trainer(objective, after, feed, run, mark, sharded)
        trainer.resume()
        whole = trainer.step == 0 and trainer.world == 1  # this process's clock sees all of the work
        _advance(trainer)
        notes = {**objective.finish(after), **space.finish()}
        for parameter in trainer.parameters:
            parameter.grad = None
    if run.out is not None and trainer.rank == 0:
        write_order(run.out, feed, trainer.step, **described, lead=objective.lead)
    if sharded is not None:
        after = Subject(sharded.module(), after.encoder, after.lineage, after.name)
    after = space.close(after, run)
    spent = {"seconds": round(time.monotonic() - began, 1)}
    spent |= {"processor_seconds": round(time.process_time() - cost, 1)} if whole else {}
    notes = {**run.described(), "steps": trainer.step, **spent, **notes}
    return subject.changed(after.module, objective, data=digest, before=before, seed=run.seed, notes=notes)


def _advance(trainer: Trainer) -> None:
    """Go to the end of the plan, writing numbers and checkpoints on the way, and a checkpoint when interrupted."""
    run, total = trainer.run, len(trainer.feed.plan)
    with bar(run, trainer.objective.name(), total, trainer.step) as moved:
        try:
            while trainer.step < total and not trainer.finished:
                values = trainer.advance()
                run.record(step=trainer.step, **values)
                moved(values["loss"])
                if run.checkpoint_every and (trainer.step % run.checkpoint_every == 0 or trainer.step == total):
                    trainer.save()
            if trainer.finished:
                log.info("`%s` is done after step %d of %d", trainer.objective.name(), trainer.step, total)
        except (KeyboardInterrupt, processes.Lost) as error:
            kept = trainer.save() if trainer.sharded is None else None
            hint = f"Go on with `--resume`{f'; {kept} holds all that was done' if kept else ''}"
            what = f"{error.message}: stopped" if isinstance(error, processes.Lost) else "Interrupted"
            hint = hint if run.out is not None else "Give `--out` to be able to resume"
            raise RunError(f"{what} after step {trainer.step} of {total}", hint) from None

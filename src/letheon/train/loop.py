"""The one training loop.

A step draws rows (sampler), cuts them into micro-steps under a token budget, asks the objective for terms, divides each sum by its count
over the whole step, takes gradients, lets the rule make one gradient of them, clips, and lets AdamW move the weights. Because terms are
sums and the loop divides, a step does not depend on how it is cut or on how many processes share it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from letheon.core.attention import fast_attention
from letheon.core.data import Data
from letheon.core.errors import MethodError, RunError
from letheon.core.registry import make
from letheon.core.run import Run, kept_as_found
from letheon.core.subject import Step, Subject

from . import checkpoint
from .feed import Feed, Rows
from .means import count_of, forget_slope, retain_mean
from .objective import Objective, TrainSettings
from .order import write_order
from .parts import Part, Rule, Sampler, Term
from .progress import bar
from .signals import whole_step

log = logging.getLogger("letheon")


def rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Factor on the peak step size at 0-based `step`: linear rise over the warm-up, then the schedule down towards 0."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    left = (total - step) / max(1, total - rising)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def plan_steps(objective: Objective, sampler: Sampler, data: Data, run: Run) -> list[Rows]:
    """All steps of a training run, fixed before the first one."""
    settings, sizes = objective.settings, {split: len(data[split]) for split in objective.splits}
    sampler.start(data)
    plan: list[Rows] = []
    epoch = 0
    while epoch < settings.epochs if settings.steps is None else len(plan) < settings.steps:
        plan += [objective.planned(rows, epoch) for rows in sampler.epoch(sizes, objective.lead, settings.batch_size, run, epoch)]
        epoch += 1
    return plan[: settings.steps]


def _optimizer(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=settings.betas, fused=True)


@dataclass
class _Measured:
    """Means of the terms of one step before their weights, the loss, and what the parameter space and the rule have to say."""

    means: dict[str, float]
    loss: float
    more: dict[str, float]


class Trainer:
    """The state of one training run: a forked subject, its optimiser, and how far it has come."""

    def __init__(self, objective: Objective, subject: Subject, feed: Feed, run: Run, mark: str):
        settings = objective.settings
        self.objective, self.subject, self.feed, self.run, self.mark = objective, subject, feed, run, mark
        self.space = objective.space
        self.rule: Rule = make(settings.rule, "train/rules")
        self.named = {name: p for name, p in subject.module.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = _optimizer(self.parameters, settings)
        self.step = 0
        self.world, self.rank = (run.accelerator.num_processes, run.accelerator.process_index) if run.distributed else (1, 0)
        self.rule.start(lambda rows: retain_mean(objective, subject, feed, run, rows))

    def gradients(self, rows: Rows) -> _Measured:
        """Put the gradient of one step into `.grad` of the parameters."""
        rows = self.objective.drawn(self.subject, self.feed, rows, self.run)
        counts = self.feed.counts(rows)
        micro = self.feed.micro_steps(rows, self.objective.tied, least=self.world)
        separate: dict[str, list[Tensor]] = {}
        sums: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        for parameter in self.parameters:
            parameter.grad = None
        for piece in micro[self.rank :: self.world]:
            if not piece:
                continue
            with self.run.autocast():
                terms = self.objective.terms(self.subject, self.feed.batches(piece, apart=self.rule.separate))
            means = {}
            for name, term in terms.items():
                means[name] = term.total / max(1, count_of(self.objective.name(), counts, name, term))
                sums[name] = sums.get(name, torch.zeros((), device=self.feed.device)) + means[name].detach()
                weights[name] = term.weight
            self._backward(means, terms, separate)
        own = self.space.terms(self.subject)  # on weights alone: each process brings its share
        self._backward({name: term.total / self.world for name, term in own.items()}, own, separate)
        return self._combined(separate, sums, weights, own)

    def _backward(self, means: dict[str, Tensor], terms: dict[str, Term], separate: dict[str, list[Tensor]]) -> None:
        if not means:
            return
        if not self.rule.separate:
            total = sum(terms[name].weight * mean for name, mean in means.items())
            total.backward()
            return
        names = list(means)
        for i, name in enumerate(names):
            found = torch.autograd.grad(means[name], self.parameters, retain_graph=i + 1 < len(names), allow_unused=True)
            had = separate.setdefault(name, [torch.zeros_like(p) for p in self.parameters])
            for total, part in zip(had, found, strict=True):
                if part is not None:
                    total += part

    def _combined(
        self, separate: dict[str, list[Tensor]], sums: dict[str, Tensor], weights: dict[str, float], own: dict[str, Term]
    ) -> _Measured:
        if self.world > 1:
            self._reduce(separate, sums)
        for gradients in separate.values() if self.rule.separate else ([parameter.grad for parameter in self.parameters],):
            self.space.limit(gradients)
        logged = {name: float(value) for name, value in sums.items()}
        more = {name: float(term.total.detach()) for name, term in own.items()}
        weights = weights | {name: term.weight for name, term in own.items()}
        loss = sum(weights.get(name, 1.0) * value for name, value in (logged | more).items())
        if self.rule.separate:
            parts = {name: Part(gradient, (logged | more)[name], weights.get(name, 1.0)) for name, gradient in separate.items()}
            combined, told = self.rule.combine(parts, self.named, self.optimizer)
            more |= told
            for parameter, gradient in zip(self.parameters, combined, strict=True):
                parameter.grad = gradient
        return _Measured(logged, loss, more)

    def _reduce(self, separate: dict[str, list[Tensor]], sums: dict[str, Tensor]) -> None:
        """Add up over processes. Every count was taken over the whole step, so a sum is all that is needed."""
        reduce = self.run.accelerator.reduce
        for gradients in separate.values():
            for gradient in gradients:
                gradient.copy_(reduce(gradient, "sum"))
        if not self.rule.separate:
            for parameter in self.parameters:
                parameter.grad = reduce(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter), "sum")
        for name in sums:
            sums[name] = reduce(sums[name], "sum")

    def advance(self) -> dict[str, float]:
        """One optimiser step. Raises MethodError, with the weights of the step before, when the numbers run away."""
        settings, total = self.objective.settings, len(self.feed.plan)
        measured = self.gradients(self.feed.plan[self.step])
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
        self._guard(measured, norm)
        if settings.clip and norm > settings.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, settings.clip, torch.tensor(norm, device=self.feed.device))
        rate = settings.learning_rate * rate_factor(self.step, total, settings.warmup, settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with whole_step():
            self.optimizer.step()
            self.space.stepped(self.subject)
            self.step += 1
        self.objective.stepped(self.subject, self.step)
        return {"loss": measured.loss, **measured.means, **measured.more, "gradient_norm": norm, "learning_rate": rate}

    def _guard(self, measured: _Measured, norm: float) -> None:
        worst = max(map(abs, measured.means.values()), default=0.0)
        if all(map(math.isfinite, (*measured.means.values(), norm))) and worst <= self.objective.settings.runaway:
            return
        kept = "the last good weights are those of the step before"
        if self.run.out is not None:
            kept = f"the weights before it are kept in {self.save()}"
        what = ", ".join(f"{name} {value:.4g}" for name, value in measured.means.items())
        raise MethodError(
            f"`{self.objective.name()}` diverged at step {self.step + 1} of {len(self.feed.plan)}"
            f" ({what}, gradient norm {norm:.4g}); {kept}",
            "Lower `learning_rate`, or give the retain term more weight",
        )

    def save(self) -> Any:
        """Write a checkpoint of the present state."""
        if self.rank == 0 and self.run.out is not None:
            return checkpoint.save(self.run.out, self.step, self.mark, self.named, self.optimizer, self.rule.state())
        return None

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = checkpoint.newest(self.run.out) if self.run.resume and self.run.out is not None else None
        if found is None:
            return
        step, mark, folder = found
        if mark != self.mark:
            what = "Settings, seed, model or data differ, or what the parameter space measured on another machine"
            raise RunError(f"The checkpoint {folder} belongs to other work", f"{what}; use another `--out`")
        self.rule.restore(checkpoint.restore(folder, self.named, self.optimizer))
        self.step = step
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
    subject.check_finite()
    feed = feed_for(objective, subject, data, run)
    before, digest = subject.digest, data.digest
    settings = objective.settings.model_dump()
    described = {"method": objective.name(), "settings": settings, "seed": run.seed, "data": digest, "before": before}
    began = time.monotonic()
    start(objective, subject, feed, run)
    space = objective.space
    after = space.open(subject.fork(), run)
    mark = checkpoint.fingerprint(**described, dtype=str(run.compute_dtype), derived=checkpoint.digest(space.derived()))
    with kept_as_found(after.module), fast_attention(after.module):
        trainer = Trainer(objective, after, feed, run, mark)
        trainer.resume()
        for values in _steps(trainer):
            run.record(step=trainer.step, **values)
        notes = {**objective.finish(after), **space.finish()}
        for parameter in trainer.parameters:
            parameter.grad = None
    if run.out is not None and trainer.rank == 0:
        write_order(run.out, feed, trainer.step, **described, lead=objective.lead)
    after = space.close(after, run)
    after.module.requires_grad_(True).eval()
    notes = {**run.described(), "steps": trainer.step, "seconds": round(time.monotonic() - began, 1), **notes}
    from letheon import __version__

    step = Step(objective.name(), objective.settings.model_dump(mode="json"), run.seed, digest, before, __version__, notes)
    return Subject(after.module, subject.encoder, (*subject.lineage, step), f"{subject.name}+{objective.name()}")


def _steps(trainer: Trainer) -> Iterator[dict[str, float]]:
    """Advance to the end of the plan, writing checkpoints on the way and one when interrupted."""
    run, total = trainer.run, len(trainer.feed.plan)
    with bar(run, trainer.objective.name(), total, trainer.step) as moved:
        try:
            while trainer.step < total:
                values = trainer.advance()
                yield values
                moved(values["loss"])
                if trainer.objective.done(values):
                    log.info("`%s` is done after step %d of %d", trainer.objective.name(), trainer.step, total)
                    break
                if run.checkpoint_every and (trainer.step % run.checkpoint_every == 0 or trainer.step == total):
                    trainer.save()
        except KeyboardInterrupt:
            kept = trainer.save()
            hint = f"Go on with `--resume`; {kept} holds all that was done" if kept else "Give `--out` to be able to resume"
            raise RunError(f"Interrupted after step {trainer.step} of {total}", hint) from None

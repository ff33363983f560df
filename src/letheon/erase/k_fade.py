"""K-FADE: a few uphill Gauss-Newton steps on the forget loss, where retain outputs hardly move.

A penalty over retain batches says again at each step what must not change. Here it is measured, as a matrix per layer.

    A = mean a a^T,  S = mean g g^T        inputs a and output gradients g of a layer on retain text; labels drawn from the model itself
    KL(frozen || now) per token = 1/2 sum_layers tr(D^T S D A) for a small change D         (o, i), tokens and layers as if independent
    D = (F + d I)^-1 G,   d = damping * mean eigenvalue of the layer,   F = S x A            G: gradient of the mean forget answer nll
    W <- W + D sqrt(2 trust / sum_layers <D, G>)        a predicted KL of at most `trust` nats per token; exactly `trust` without damping

F has the eigenvectors of its factors; its eigenvalues are their products (`kfac`) or measured (`ekfac`: mean square of each row's gradient
in that basis). Layers that move together cost more than the sum of each alone: one small step is tried first, and `trust` counts in
what it measures. After each step the KL to the incoming model is measured on retain rows kept apart; a rise above `slack` times the promise
undoes the step and quarters its trust region. The last step is cut to the `target`. A model that is sure of its tokens has next to no
curvature until it forgets: `refresh` measures it again before each step. With summed squared losses, no damping and no trust region one
step is exactly the fit without the forget rows. The sum of all steps can be stored (`store`) and added again (`update`) to a later
fine-tune, without curvature or gradients. Embeddings, norms and the head stay.

RECONSTRUCTION from the abstract and summaries: steps, damping, layers, first try, refreshing and all defaults are ours.
arXiv:2602.10568. Card: k-fade.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Data, Split
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.files import write_bytes
from letheon.core.forward import unwrapped
from letheon.core.method import Change
from letheon.core.products import fast_products
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.maths.curvature import Curvature, trust_step
from letheon.train.guarded import unguarded

from ._curved import Drift, curvature, gradient, joined, mean_nll, write
from ._linears import check_editable, linear_layers

FORMAT = "letheon.update/1"
PROBE = 0.01  # of the trust region
TRIES = 6  # quarterings of the trust region in one step


class KFadeSettings(Settings):
    """Where curvature is taken, how far to go, when to stop."""

    layers: Literal["mlp", "attention", "all"] = Field("mlp", description="which linear layers of the blocks move")
    curvature: Literal["ekfac", "kfac"] = Field("ekfac", description="eigenvalues measured in the basis of the factors, or their products")
    trust: float = Field(3e-3, gt=0, description="retain KL that one step may cost, in nats per scored token")
    damping: float = Field(0.1, ge=0, description="added to the eigenvalues of a layer, in units of their mean")
    steps: int = Field(40, ge=1, description="steps at most")
    refresh: bool = Field(True, description="measure the curvature anew before every step")
    target: float | None = Field(None, gt=0, description="forget nll to stop at, nats per token; unset: that of `holdout`, else of a guess")
    budget: float | None = Field(None, gt=0, description="stop before the measured retain KL exceeds this, in nats per token")
    slack: float = Field(3.0, gt=1, description="largest measured rise of the retain KL in one step, in units of what was promised")
    sample: int = Field(256, ge=1, description="retain rows that the curvature is taken from")
    kept_apart: int = Field(64, ge=1, description="retain rows on which the KL is measured (at most a quarter of all)")
    tokens: Literal["answers", "all"] = Field("answers", description="retain tokens whose prediction is held")
    largest: int = Field(4096, ge=1, description="widest factor that is decomposed whole; wider ones are cut into diagonal blocks")
    tokens_per_batch: int = Field(2048, ge=16, description="padded tokens in one forward pass")
    store: str | None = Field(None, min_length=1, description="safetensors file to write the sum of all steps to")
    update: str | None = Field(None, min_length=1, description="add the update in this file instead of computing one")


class KFade(Change):
    """Preconditioned ascent inside a trust region of retain outputs."""

    Settings, tiny = KFadeSettings, {"steps": 2, "target": 100.0}

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Edit a copy.

        Raises:
            DataError: `forget` or `retain` is missing, or retain has fewer than two rows.
            MethodError: nothing is left to forget, or no step stays within the trust region.
            SubjectError: the weights are damaged, have an adapter around them, or do not fit a stored update.
        """
        check_editable(subject, self.name())
        data.need("forget", "retain", why="`k-fade`")
        stored = None if self.settings.update is None else read_update(self.settings.update)
        work = _Rows(self.settings, subject, data, run)
        before, began = subject.digest, time.monotonic()
        after = subject.fork().to(run.device)
        with kept_as_found(after.module), torch.autocast(run.device.type, enabled=False), fast_products(after.module):
            edit = _Edit(self.settings, after.module, work, run)
            notes = edit.climb(subject.name) if stored is None else edit.again(stored, subject.name)
        if self.settings.store is not None:
            write_update(self.settings.store, edit.total, before)
        notes = {**run.described(), "seconds": round(time.monotonic() - began, 1), **notes}
        return subject.changed(after.module, self, data=data.digest, before=before, seed=run.seed, notes=notes)


class _Rows:
    """The batches of one edit: forget rows, retain rows for the curvature, others for the check."""

    def __init__(self, settings: KFadeSettings, subject: Subject, data: Data, run: Run):
        retain = data["retain"]
        if len(retain) < 2:
            raise DataError("`k-fade` needs at least 2 retain rows, one for the curvature and one for the check")
        apart = min(settings.kept_apart, max(1, len(retain) // 4))
        order = torch.randperm(len(retain), generator=run.rng("rows")).tolist()
        self.subject, self.budget, self.device = subject, settings.tokens_per_batch, run.device
        self.forget = self._batches(data["forget"])
        self.checked = self._batches(Split((retain[i] for i in sorted(order[:apart])), retain.name))
        self.sample = self._batches(Split((retain[i] for i in sorted(order[apart : apart + settings.sample])), retain.name))
        self.strangers = self._batches(data["holdout"]) if "holdout" in data and len(data["holdout"]) else None

    def _batches(self, split: Split) -> list[Batch]:
        encoded = self.subject.encoder.encode(split)
        pad = self.subject.encoder.pad
        return [collate(encoded, group, pad, self.device) for group in by_length(encoded.lengths, self.budget)]


class _Edit:
    """The steps on one module. `total` is their sum so far, per layer (o, i + 1)."""

    def __init__(self, settings: KFadeSettings, module: nn.Module, rows: _Rows, run: Run):
        self.settings, self.module, self.rows, self.run = settings, module, rows, run
        self.layers = linear_layers(module, settings.layers)
        self.start = {name: joined(part, part.weight, part.bias) for name, part in self.layers.items()}
        self.total = {name: torch.zeros_like(whole) for name, whole in self.start.items()}
        self.drift = Drift(module, rows.checked, settings.tokens == "all")
        self.trust, self.kl = settings.trust, 0.0

    def put(self, total: dict[str, Tensor]) -> None:
        """Set the weights to where they started plus `total`."""
        for name, part in self.layers.items():
            write(part, self.start[name] + total[name])

    def moved(self, direction: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
        """The total after one more step."""
        return {name: self.total[name] + scale * direction[name] for name in self.total}

    def measure(self) -> dict[str, Curvature]:
        """The curvature of the retain outputs here."""
        settings = self.settings
        more = {"measured": settings.curvature == "ekfac", "prompts": settings.tokens == "all", "largest": settings.largest}
        return curvature(self.module, self.layers, self.rows.sample, self.run, **more)

    def cost(self, curved: dict[str, Curvature], total: dict[str, Tensor]) -> float:
        """The predicted retain KL of a total, layers taken on their own."""
        return sum(float(curved[name].cost(total[name])) for name in total)

    def target(self) -> float:
        """The forget nll to stop at: what was asked for, what strangers have, or that of an even guess."""
        if self.settings.target is not None:
            return self.settings.target
        if self.rows.strangers is not None:
            return mean_nll(self.module, self.rows.strangers)
        return math.log(unwrapped(self.module).config.vocab_size)

    def climb(self, name: str) -> dict[str, Any]:
        """Step until the target, the budget or the number of steps is reached."""
        settings, target = self.settings, self.target()
        curved, factor = self.measure(), None
        grads, forget = gradient(self.module, self.layers, self.rows.forget)
        if forget >= target:
            hint = "Give a higher `target`"
            raise MethodError(f"The forget answers of `{name}` are at {forget:.3g} nats per token, `k-fade` stops at {target:.3g}", hint)
        began, taken = forget, 0
        for step in range(1, settings.steps + 1):
            if step > 1 and settings.refresh:
                curved = self.measure()
            direction = {key: curved[key].preconditioned(grads[key], settings.damping) for key in grads}
            factor = factor or self.probe(direction, grads, curved)
            found = self.step(direction, grads, curved, factor)
            if found is None:
                break
            scale, self.kl, predicted = found
            grads, forget = gradient(self.module, self.layers, self.rows.forget)
            taken = step
            if forget > target:
                scale, forget = self.cut(direction, scale, target)
                self.kl = self.drift.now()
            self.total = self.moved(direction, scale)
            self.run.record(step=step, forget=forget, retain_kl=self.kl, predicted_kl=predicted, trust=self.trust)
            if forget >= target:
                break
        if not taken:
            hint = "Give a smaller `trust`, or more `damping`"
            raise MethodError(f"No step of `k-fade` on `{name}` stays within {settings.slack:g} times the predicted KL", hint)
        reached = forget >= target * (1 - 1e-3)
        return {"steps": taken, "target": target, "reached": reached, "forget_nll": [began, forget], "retain_kl": self.kl}

    def probe(self, direction: dict[str, Tensor], grads: dict[str, Tensor], curved: dict[str, Curvature]) -> float:
        """Measured over predicted KL of a small step: what the layers do together beyond what each does alone."""
        tried = self.moved(direction, trust_step(direction, grads, PROBE * self.trust))
        self.put(tried)
        predicted = self.cost(curved, tried)
        return max(1.0, self.drift.now() / predicted) if predicted > 0 else 1.0

    def step(
        self, direction: dict[str, Tensor], grads: dict[str, Tensor], curved: dict[str, Curvature], factor: float
    ) -> tuple[float, float, float] | None:
        """Put in the largest step that keeps its promise: its scale, the measured and the predicted KL; None if there is none."""
        self.trust = min(self.settings.trust, 4 * self.trust)
        for _ in range(TRIES):
            scale = trust_step(direction, grads, self.trust / factor)
            proposal = self.moved(direction, scale)
            self.put(proposal)
            kl, predicted = self.drift.now(), factor * self.cost(curved, proposal)
            within = self.settings.budget is None or kl <= self.settings.budget
            rise, promised = kl - self.kl, max(self.settings.trust, predicted - factor * self.cost(curved, self.total))
            if rise <= self.settings.slack * promised and within and scale > 0:
                return scale, kl, predicted
            self.trust /= 4
        self.put(self.total)
        return None

    def cut(self, direction: dict[str, Tensor], scale: float, target: float) -> tuple[float, float]:
        """The share of a step that just reaches the target, and the forget nll there."""
        low, high, forget = 0.0, scale, math.inf
        for _ in range(8):
            middle = (low + high) / 2
            self.put(self.moved(direction, middle))
            forget = mean_nll(self.module, self.rows.forget)
            low, high = (low, middle) if forget >= target else (middle, high)
        self.put(self.moved(direction, high))
        return high, mean_nll(self.module, self.rows.forget)

    def again(self, stored: dict[str, Tensor], name: str) -> dict[str, Any]:
        """Add a stored update to these weights, and say what it does here."""
        if {key: part.shape for key, part in stored.items()} != {key: part.shape for key, part in self.total.items()}:
            raise SubjectError(f"The update in {self.settings.update} does not fit `{name}`", "Same architecture, same `layers`")
        began = mean_nll(self.module, self.rows.forget)
        self.total = {key: part.to(self.total[key]) for key, part in stored.items()}
        self.put(self.total)
        return {"steps": 0, "forget_nll": [began, mean_nll(self.module, self.rows.forget)], "retain_kl": self.drift.now()}


def write_update(path: str | Path, total: dict[str, Tensor], before: str) -> None:
    """Write the sum of all steps, one matrix per layer; `before` is the digest of the model that it was made for."""
    from safetensors.torch import save

    tensors = {name: part.cpu().contiguous() for name, part in total.items()}
    write_bytes(path, save(tensors, {"format": FORMAT, "before": before}))


def read_update(path: str | Path) -> dict[str, Tensor]:
    """Read what `write_update` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise DataError(f"There is no update at {path}", "`store` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get("format")
            if kind != FORMAT:
                raise DataError(f"{path} holds no update of `k-fade`", "`store` writes one")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise DataError(f"{path} is damaged: {error}", "Make it again with `store`") from error

"""Certified removal: a linear output head, from which the forget rows are taken by a Newton step.

Where the last layer is convex, forgetting can be proved instead of measured. The body stays as it is; its output head is fitted anew on
the final hidden states, to the answer tokens of all rows, then those of the forget rows are removed. `maths/removal.py` has the equations,
and a plain class for other linear and logistic models and for streams of removals.

    x_t = h_t / sqrt(d)          h: final hidden state that predicts answer token t, (d,)
    W = argmin sum_t sum_v l(w_v.x_t, y_tv) + (lambda n / 2) |W|^2 + b.W            n answer tokens; y_tv: is token t the token v?
    W <- W + H^-1 (lambda |F| W + sum_F grad l)                    F: the answer tokens of the forget rows
    logits = scale W x

`ridge` (y = 1 or 0): the step gives the head fitted without the rows, to rounding, so that epsilon is 0 without noise. `logistic` (one
model for each token, y = 1 or -1): the step leaves a gradient whose bound costs epsilon, summed over tokens; beyond `epsilon` the method
refuses, or fits the head again without the rows and with fresh noise (`beyond = "refit"`). The certificate needs b to be secret, and b
derives from the seed: publish the weights without `letheon.json`, which names it, and choose a seed that nobody guesses.

The certificate is about the head alone. A body that has learned the rows still holds them, and a new head may read them out of it: use a
body from before. What the old head knew beyond the rows is gone with it. A tied head is untied. arXiv:1911.03030. Card: exact-unlearning.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from letheon.core.batching import by_length, collate
from letheon.core.data import Data, Split
from letheon.core.errors import MethodError, SubjectError
from letheon.core.forward import Batches, logits_are_linear, unwrapped
from letheon.core.method import Change
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.maths.removal import BudgetSpent, Loss, Removable
from letheon.train.guarded import unguarded

log = logging.getLogger("letheon")
CHUNK = 512  # tokens of the vocabulary that are fitted together


class CertifiedRemovalSettings(Settings):
    """The head and its certificate."""

    loss: Literal["ridge", "logistic"] = Field("ridge", description="squared loss (exact) or logistic loss (with a bound)")
    penalty: float = Field(1e-4, gt=0, description="lambda: weight of the squared norm, per answer token")
    scale: float = Field(20.0, gt=0, description="factor from the head's outputs to logits")
    sigma: float = Field(0.0, ge=0, description="standard deviation of the random linear term; `logistic` needs some")
    epsilon: float = Field(1.0, gt=0, description="how far the result may be told from a fit without the rows, over all tokens")
    delta: float = Field(1e-4, gt=0, lt=1, description="chance with which it may be told further, over all tokens")
    beyond: Literal["refuse", "refit"] = Field("refuse", description="where epsilon does not suffice: an error, or a new fit")


class CertifiedRemoval(Change):
    """Fit, remove, certify."""

    Settings, tiny = CertifiedRemovalSettings, {}

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """A model with a head that knows the rows to keep.

        Raises:
            DataError: there is no `forget`, or neither `kept` nor `retain`.
            SubjectError: the output is no linear layer on hidden states.
            MethodError: the certificate does not cover the rows.
        """
        subject.check_finite()
        split = "kept" if "kept" in data else "retain"
        data.need("forget", split, why=f"`{self.name()}`")
        if not logits_are_linear(subject.module):
            raise SubjectError(f"`{subject.name}` has no plain linear head on its hidden states", "`retrain` works on any model")
        if self.settings.sigma:
            log.warning("Who knows the seed knows the noise of `%s`: publish the model without its `letheon.json`", self.name())
        before = subject.digest
        states, tokens = zip(*(answer_states(subject, data[name], run) for name in ("forget", split)), strict=True)
        width = states[0].shape[1]
        vocabulary = unwrapped(subject.module).get_output_embeddings().weight.shape[0]
        head, notes = self.head(torch.cat(states) / width**0.5, torch.cat(tokens), len(tokens[0]), vocabulary, run)
        after = subject.fork()
        _put(after.module, self.settings.scale / width**0.5 * head)
        notes = {**run.described(), "split": split, "tokens": sum(map(len, tokens)), "removed": len(tokens[0]), **notes}
        return subject.changed(after.module, self, data=data.digest, before=before, seed=run.seed, notes=notes)

    def head(self, features: Tensor, tokens: Tensor, gone: int, vocabulary: int, run: Run) -> tuple[Tensor, dict[str, Any]]:
        """The head (v, d) in float64 without the first `gone` rows of `features` (n, d), and its certificate.

        Raises:
            MethodError: the certificate does not cover them, and `beyond` is `refuse`.
        """
        settings = self.settings
        head, bound, spent = self._fitted(features, tokens, gone, vocabulary, run, "noise")
        notes = {"epsilon": spent, "delta": settings.delta, "bound": bound, "refitted": False}
        if spent > settings.epsilon:
            if settings.beyond == "refuse":
                what = f"The certificate of `{self.name()}` does not cover {gone} answer tokens: {BudgetSpent(spent, settings.epsilon)}"
                raise MethodError(what, "Raise `sigma` or `penalty`, or give `beyond=refit` to fit without them")
            head, bound, _ = self._fitted(features[gone:], tokens[gone:], 0, vocabulary, run, "fresh noise")
            notes = {**notes, "epsilon": 0.0, "bound": bound, "refitted": True}
        return head, notes

    def _fitted(
        self, features: Tensor, tokens: Tensor, gone: int, vocabulary: int, run: Run, purpose: str
    ) -> tuple[Tensor, float, float]:
        """The head without the first `gone` rows, the largest bound and the epsilon spent; the targets of one chunk are held at a time."""
        settings = self.settings
        absent, heads, bounds, spent = 0.0 if settings.loss == "ridge" else -1.0, [], [], 0.0
        for first in range(0, vocabulary, CHUNK):
            columns = torch.arange(first, min(first + CHUNK, vocabulary))
            targets = torch.where(tokens[:, None] == columns, 1.0, absent)  # (n, columns)
            rng = run.rng("certified-removal", purpose, first)
            model = Removable(features, targets, settings.loss, settings.penalty, sigma=settings.sigma, generator=rng)
            if gone:
                model.remove(torch.arange(gone))
            heads.append(model.weights)
            bounds.append(float(model.bound.max()))
            spent += model.spent(settings.delta / vocabulary * len(columns))
        return torch.cat(heads), max(bounds), spent


@torch.no_grad()
def answer_states(subject: Subject, split: Split, run: Run) -> tuple[Tensor, Tensor]:
    """Final hidden states (m, d) in float64 that predict the answer tokens of a split, and these tokens (m,); on the CPU."""
    encoded, states, tokens = subject.encoder.encode(split), [], []
    subject.to(run.device)
    with kept_as_found(subject.module), torch.autocast(run.device.type, enabled=False):
        for group in by_length(encoded.lengths, 2048):
            hidden, _ = Batches({"rows": collate(encoded, group, subject.encoder.pad, run.device)}).hidden(subject.module)
            states.append(hidden["rows"].states.double().cpu())
            tokens.append(hidden["rows"].targets.cpu())
    return torch.cat(states), torch.cat(tokens)


@torch.no_grad()
def _put(module: nn.Module, head: Tensor) -> None:
    """Give a model the output weights `head` (v, d), untied from its input embeddings, and no bias."""
    inner = unwrapped(module)
    layer = inner.get_output_embeddings()
    layer.weight = nn.Parameter(head.to(layer.weight))
    if getattr(layer, "bias", None) is not None:
        layer.bias.zero_()
    inner.config.tie_word_embeddings = False

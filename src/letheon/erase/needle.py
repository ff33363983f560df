"""Needle: find the vectors that write the words of the forgotten facts, and drown them in noise.

A block adds sum_j a_j v_j to the residual stream, v_j the columns of its down projection (d,). Some v_j say the words of one concept: these
are the largest entries of E v_j (E: output embedding, (v, d)). Nothing else is touched, so that what is forgotten is known by name.

    score_j = share of concept words among the `top` tokens of E v_j, in standard deviations above random vectors
    v_j <- v_j + noise rms(v_j) e,   e ~ N(0, 1)^d         for the `vectors` best with score >= `least` that pass the causal check

The causal check adds that noise to one vector alone: the nll of forget answers must rise, and at least `margin` times as much as that of
retain answers. Concept words are given, or are the tokens at least `lift` times as frequent in forget answers as in retain answers. A
prompt on which all a_j are 0 keeps its logits; all other weights keep their bits. The expected distance is noise |v_j|; the paper's noise
of 0.1 is absolute and some five times the vectors' own rms. What was found and how little is left of it is noted in the lineage.

An oracle of the audit it comes from, not a full eraser: knowledge stored elsewhere stays. The paper has a language model and people judge
vectors and compares generated answers; word lists and likelihoods stand in for them here, and the optional training of the columns is left
out. arXiv:2406.11614. Card: conceptvectors.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Data, Split
from letheon.core.errors import MethodError
from letheon.core.forward import head_of
from letheon.core.method import Change
from letheon.core.products import fast_products
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.maths.concepts import compared
from letheon.train.guarded import unguarded

from ._concepts import Place, concept_words, drowned, noise, vector_scores
from ._curved import mean_nll
from ._linears import check_editable, down_projections, matrix


class NeedleSettings(Settings):
    """What counts as a concept vector, and how many are ablated."""

    words: tuple[str, ...] = Field((), description="words of the concept; none: tokens that set forget answers apart")
    lift: float = Field(3.0, gt=1, description="how many times as frequent in forget answers as in retain answers such a token is")
    top: int = Field(200, ge=1, description="tokens that a vector says (at most a tenth of the vocabulary)")
    least: float = Field(5.0, ge=0, description="least score, in standard deviations above random vectors")
    skip: int = Field(0, ge=0, description="lowest blocks that are not searched")
    vectors: int = Field(10, ge=1, description="vectors that are ablated at most")
    candidates: int = Field(50, ge=1, description="best-scored vectors that are put to the causal check")
    margin: float = Field(2.0, ge=0, description="rise of forget nll over rise of retain nll that a vector must cause alone; 0: no check")
    noise: float = Field(5.0, gt=0, description="standard deviation of the noise, in units of the root mean square entry of the vector")
    rows: int = Field(128, ge=1, description="rows of each split that the causal check reads")
    tokens_per_batch: int = Field(2048, ge=16, description="padded tokens in one forward pass")


class Needle(Change):
    """Ablation of concept vectors."""

    Settings, tiny = NeedleSettings, {"least": 0.0, "vectors": 2, "candidates": 3, "margin": 0.0, "lift": 1.5}

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Edit a copy.

        Raises:
            DataError: `forget` or `retain` is missing, or no word sets the forget answers apart.
            MethodError: no vector says enough of the words, or none passes the causal check.
            SubjectError: the weights are damaged, have an adapter around them, or a block has no single down projection.
        """
        settings = self.settings
        check_editable(subject, self.name())
        data.need("forget", "retain", why="`needle`")
        words = concept_words(subject, settings.words, data["forget"], data["retain"], settings.lift).to(run.device)
        before, began = subject.digest, time.monotonic()
        after = subject.fork().to(run.device)
        with kept_as_found(after.module), torch.autocast(run.device.type, enabled=False), fast_products(after.module), torch.no_grad():
            search = _Search(settings, after, words, run)
            chosen = search.checked(search.candidates(), self._batches(after, data, run))
            found = [search.ablate(*place) for place in chosen]
        notes = {**run.described(), "seconds": round(time.monotonic() - began, 1), "words": int(words.sum()), "vectors": found}
        return subject.changed(after.module, self, data=data.digest, before=before, seed=run.seed, notes=notes)

    def _batches(self, subject: Subject, data: Data, run: Run) -> dict[str, list[Batch]]:
        """Some rows of both splits for the causal check."""
        found = {}
        for name in ("forget", "retain"):
            order = torch.randperm(len(data[name]), generator=run.rng("rows", name))[: self.settings.rows].sort().values.tolist()
            encoded = subject.encoder.encode(Split((data[name][i] for i in order), name))
            groups = by_length(encoded.lengths, self.settings.tokens_per_batch)
            found[name] = [collate(encoded, group, subject.encoder.pad, run.device) for group in groups]
        return found


class _Search:
    """The vectors of one module; a place is (layer name, column)."""

    def __init__(self, settings: NeedleSettings, subject: Subject, words: Tensor, run: Run):
        self.settings, self.subject, self.words, self.run = settings, subject, words, run
        self.layers = dict(list(down_projections(subject.module).items())[settings.skip :])
        self.embedding = head_of(subject.module).weight.detach().float()
        self.top = max(1, min(settings.top, len(words) // 10))
        self.scores: dict[Place, float] = {}

    def candidates(self) -> list[Place]:
        """The places with the best scores, best first."""
        self.scores = vector_scores(self.layers, self.embedding, self.words, self.top, self.run)
        best = sorted(self.scores, key=lambda place: -self.scores[place])[: self.settings.candidates]
        good = [place for place in best if self.scores[place] >= self.settings.least]
        if not good:
            top = self.scores[best[0]] if best else float("nan")
            what = f"No vector of `{self.subject.name}` says the words of the concept: the best score is {top:.2g}"
            raise MethodError(f"{what}, `least` is {self.settings.least:g}", "Give `words`, or a lower `least`")
        return good

    def checked(self, places: list[Place], batches: dict[str, list[Batch]]) -> list[Place]:
        """The places whose noise hurts forget answers most and clearly more than retain answers."""
        settings, module = self.settings, self.subject.module
        if not settings.margin:
            return places[: settings.vectors]
        still = {name: mean_nll(module, rows) for name, rows in batches.items()}
        rises: dict[Place, float] = {}
        for place in places:
            with drowned(self.layers, place, settings.noise, self.run):
                rise = {name: mean_nll(module, rows) - still[name] for name, rows in batches.items()}
            if rise["forget"] > max(0.0, settings.margin * rise["retain"]):
                rises[place] = rise["forget"]
        if not rises:
            what = f"None of {len(places)} vectors hurts forget answers {settings.margin:g} times as much as retain answers"
            raise MethodError(what, "Give a lower `margin`, or more `candidates`")
        return sorted(rises, key=lambda place: -rises[place])[: settings.vectors]

    def ablate(self, layer: str, k: int) -> dict[str, Any]:
        """Add the noise for good; says what the vector was and how little of it is left."""
        column = matrix(self.layers[layer])[:, k]
        before = column.clone()
        column += noise(column, self.settings.noise, (layer, k), self.run)
        said = (self.embedding @ before.float()).topk(min(8, self.top)).indices.tolist()
        words = self.subject.encoder.tokenizer.convert_ids_to_tokens(said)
        left = compared(before.float(), column.float(), self.embedding, self.embedding, self.top)
        return {"layer": layer, "column": k, "score": round(self.scores[layer, k], 3), "said": words, **left}

"""Are the weight vectors that say the words of the forgotten concept still in the network?

A block adds sum_j a_j v_j to the residual stream, v_j the columns of its down projection (d,). What v says are the `top` tokens with the
largest entries of E v (E: output embedding). v and E are the original's, v' and E' this model's, W the tokens of the concept,
r = top(v, E) & W. Means over the vectors:

    concept-cosine      cos(v, v')
    concept-distance    ||v - v'|| / ||v||                                 the card's L2 over the length of v; `extra` has it undivided
    concept-jaccard     |top(v, E) & top(v', E')| / |union|
    concept-related     |top(v', E') & r| / |r|                             `extra`: |top(v', E') & W| / |r|
    concept-score       the same search in this model alone: mean score of its own `vectors` best (a fact)
    concept-ablated     probability of forget answers when all vectors of the original have noise added in this model (a fact)

Unchanged weights give 1, 0, 1, 1; v' = c v with c > 0 keeps cosine and both shares. Vectors are the published ones where the data has a
split `vectors` and the model is the one they were found in. Otherwise they are looked for in the original: the columns whose tokens are
most often of the concept (score: standard deviations above random vectors; concept vectors of large models are above 5), of these those
whose noise alone hurts forget answers `margin` times as much as answers to keep, most harmful first. W are `words`, else the tokens of the
article without stop words (published vectors), else those `lift` times as frequent in forget answers as in answers to keep.

Knowledge stored elsewhere is not seen: a changed vector is evidence of change, an unchanged one of residue only where the causal check was
passed; the note says where it was not. A retrained model of another start has other vectors. Reconstruction: how the paper's authors found
vectors (a language model and people) is replaced by word lists and scores. arXiv:2406.11614. Card: conceptvectors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, SubjectError
from letheon.core.findings import Finding
from letheon.core.forward import head_of
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.erase._concepts import Place, concept_words, drowned, noise, vector_scores
from letheon.erase._linears import down_projections, matrix
from letheon.maths.concepts import compared, related

from ._inside import NO_ORIGINAL, answer_nll, merged, unlike
from ._parts import ProbeSettings, cut, finding, missing, nothing, plain, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings

COMPARED = ("concept-cosine", "concept-distance", "concept-jaccard", "concept-related")
NAMES = (*COMPARED, "concept-score", "concept-ablated")
CLEAR = 5.0  # standard deviations above chance from which a vector counts as one of the concept


class ConceptTracesSettings(ProbeSettings):
    """Which vectors, and how they are found."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, max_length=1, description="the split that names the concept")
    limit: int | None = Field(64, ge=1, description="rows of each side for the causal check and the ablation; None: all")
    words: tuple[str, ...] = Field((), description="words of the concept; none: from the data")
    lift: float = Field(3.0, gt=1, description="how many times as frequent in forget answers a token of the concept is")
    top: int = Field(200, ge=1, description="tokens that a vector says (at most a tenth of the vocabulary)")
    vectors: int = Field(10, ge=1, description="vectors that are compared at most")
    candidates: int = Field(20, ge=1, description="best-scored vectors that are put to the causal check")
    margin: float = Field(2.0, ge=0, description="rise of forget nll over that of other nll that a vector must cause alone; 0: no check")
    noise: float = Field(5.0, gt=0, description="standard deviation of the noise, in units of the root mean square entry of the vector")


class ConceptTraces(Audit):
    """Concept vectors before and after."""

    Settings, tiny = ConceptTracesSettings, {"limit": 4, "vectors": 2, "candidates": 2, "lift": 1.5}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Six findings; those that need the original say so where there is none."""
        (where,) = self.settings.splits
        retain = next((name for name in ("retain", "retain-check") if name in data and len(data[name])), "retain")
        note = missing(data, where) or missing(data, retain)
        if note:
            return [nothing(self, name, note, where) for name in NAMES]
        try:
            own = _Search(self, readings, data, where, retain, run)
            other = original and _Search(self, original, data, where, retain, run)
        except (DataError, SubjectError) as error:  # no words, or blocks with experts
            return [nothing(self, name, f"{error}", where) for name in NAMES]
        best = np.array(own.best[: self.settings.vectors])
        extra = {"best": own.best[0], "words": int(own.words.sum())}
        found = [finding(self, NAMES[4], where, float(best.mean()), n=len(best), extra=extra, direction="none", rows=plain(best))]
        note = NO_ORIGINAL if original is None else unlike(readings.subject, original.subject)
        if note or original is None or other is None:
            return [nothing(self, name, note, where) for name in COMPARED] + found + [nothing(self, NAMES[-1], note, where, "none")]
        places, said = other.chosen()
        return [*self._compared(readings, other, places, said, where, run), *found, self._ablated(readings, other, places, where, run)]

    def _compared(self, readings: Readings, other: _Search, places: list[Place], note: str, where: str, run: Run) -> list[Finding]:
        subject = merged(readings.subject)
        now, then = down_projections(subject.module), other.layers
        e_now, e_then = head_of(subject.module).weight.detach().float(), other.embedding
        rows: dict[str, list[float]] = {name: [] for name in (*COMPARED, "length", "ratio")}
        for layer, k in places:
            v, v_now = (matrix(layers[layer])[:, k].detach().float() for layers in (then, now))
            facts = compared(v, v_now, e_then, e_now, other.top)
            left = related(v, v_now, e_then, e_now, other.words_of(layer, k), other.top) or (np.nan, np.nan)
            distance = facts["distance"] / max(float(v.double().norm()), 1e-30)
            for name, value in zip(rows, (facts["cosine"], distance, facts["jaccard"], left[0], facts["distance"], left[1]), strict=True):
                rows[name].append(value)
        table = [{"layer": layer, "column": k, "score": round(other.score(layer, k), 3)} for layer, k in places]
        more: dict[str, dict[str, Any]] = {
            "concept-cosine": {"vectors": table},
            "concept-distance": {"undivided": rows["length"]},
            "concept-related": {"count_ratio": plain(np.array(rows["ratio"]))},
        }
        found = []
        for name in COMPARED:
            why = "the vector said none of the concept's words"
            known = {"direction": "reference", "note": note, "why": why, **more.get(name, {})}
            found.append(row_finding(self, name, where, np.array(rows[name]), run, **known))
        return found

    def _ablated(self, readings: Readings, other: _Search, places: list[Place], where: str, run: Run) -> Finding:
        """Probability of forget answers with all places drowned in a copy; beside it that of answers to keep."""
        forget, retain, size = other.forget, other.retain, self.settings.noise

        def measured() -> np.ndarray:
            copy = merged(readings.subject)
            layers = down_projections(copy.module)
            with torch.no_grad():
                for layer, k in places:
                    column = matrix(layers[layer])[:, k]
                    column += noise(column, size, (layer, k), run)
            return np.exp(-np.concatenate([answer_nll(copy, copy.encoder.encode(split)) for split in (forget, retain)]))

        depends = {"retain": retain.digest, "places": places, "noise": size, "seed": run.seed}
        values = readings.numbers("concept_ablated", forget, measured, **depends)
        before, kept_before = (float(np.exp(-readings.answers(split).nll()).mean()) for split in (forget, retain))
        extra = {"before": before, "kept": float(values[len(forget) :].mean()), "kept_before": kept_before, "vectors": len(places)}
        return row_finding(self, "concept-ablated", where, values[: len(forget)], run, direction="none", **extra)


class _Search:
    """The vectors of one model."""

    def __init__(self, audit: ConceptTraces, readings: Readings, data: Data, where: str, retain: str, run: Run):
        self.settings, self.readings, self.data, self.run = audit.settings, readings, data, run
        self.subject = merged(readings.subject)
        self.layers = down_projections(self.subject.module)
        self.embedding = head_of(self.subject.module).weight.detach().float()
        self.forget, self.retain = (cut(data[name], self.settings.limit) for name in (where, retain))
        words = concept_words(self.subject, self.settings.words, data[where], data[retain], self.settings.lift)
        self.words = words.to(self.embedding.device)
        self.top = max(1, min(self.settings.top, len(self.words) // 10))
        self.published = self._published(where)
        with torch.no_grad():
            self.scores = vector_scores(self.layers, self.embedding, self.words, self.top, run)
        self.order = sorted(self.scores, key=lambda place: -self.scores[place])
        self.best = [self.scores[place] for place in self.order[: self.settings.candidates]]

    def _published(self, where: str) -> dict[Place, Tensor]:
        """Places that the data names for the concepts of the split, with the tokens of each; empty where they are not of this model."""
        names, gone = list(self.layers), {row.group for row in self.data[where]}
        found: dict[Place, Tensor] = {}
        for row in self.data["vectors"] if "vectors" in self.data else ():
            hit = re.fullmatch(r"layer (\d+) column (\d+)", row.prompt_text)
            if hit is None or row.group not in gone:
                continue
            layer, column = int(hit[1]), int(hit[2])
            if layer >= len(names) or column >= matrix(self.layers[names[layer]]).shape[1]:
                return {}
            found[names[layer], column] = self._article(where, row.group)
        return found

    def _article(self, where: str, group: str | None) -> Tensor:
        """True on the tokens of the texts about one concept, without stop words, (v,)."""
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        words = {word for row in self.data[where] if row.group == group for word in re.findall(r"\w+", row.answer)}
        words = sorted(word for word in words if word.lower() not in ENGLISH_STOP_WORDS)
        return concept_words(self.subject, words, self.forget, self.retain, self.settings.lift).to(self.embedding.device)

    def words_of(self, layer: str, k: int) -> Tensor:
        return self.published.get((layer, k), self.words)

    def score(self, layer: str, k: int) -> float:
        return self.scores[layer, k]

    def chosen(self) -> tuple[list[Place], str]:
        """The vectors that are compared, and what is to be said of them."""
        places = list(self.published) or self.order[: self.settings.candidates]
        outside = "vectors" in self.data and not self.published
        said = ["the published vectors are not of this model: it was searched"] if outside else []
        if not self.published and self.best[0] < CLEAR:
            said.append(f"no vector clearly says the words of the concept (best score {self.best[0]:.2g}, clear from {CLEAR:g})")
        if self.settings.margin:
            passed = self._causal(places)
            if not passed:
                said.append("none passes the causal check: unchanged vectors prove nothing")
            places = passed or places
        return places[: self.settings.vectors], "; ".join(said)

    def _causal(self, places: list[Place]) -> list[Place]:
        """Those whose noise alone hurts forget answers most and clearly more than others, most harmful first."""

        def measured() -> np.ndarray:
            sides = [self.subject.encoder.encode(split) for split in (self.forget, self.retain)]
            with torch.no_grad():
                still = [answer_nll(self.subject, side).mean() for side in sides]
                rises = []
                for place in places:
                    with drowned(self.layers, place, self.settings.noise, self.run):
                        rises.append([answer_nll(self.subject, side).mean() - before for side, before in zip(sides, still, strict=True)])
            return np.array(rises)

        depends = {"retain": self.retain.digest, "places": places, "noise": self.settings.noise, "seed": self.run.seed}
        rises = self.readings.numbers("concept_rises", self.forget, measured, **depends)
        good = [k for k, (forget, retain) in enumerate(rises) if forget > max(0.0, self.settings.margin * retain)]
        return [places[k] for k in sorted(good, key=lambda k: -rises[k, 0])]

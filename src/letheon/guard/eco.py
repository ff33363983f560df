"""Embedding-corrupted prompts: recognise a prompt about forgotten things and spoil its embeddings.

    caught(x) = score(x) > threshold                                    a classifier of prompts, see below
    e_t <- e_t + strength s z_t    at all tokens t of a caught prompt but the last; z_t: N(0, 1) in `dims` coordinates, 0 in the others
    s = root mean square of all embeddings

The weights are not touched: whoever has the folder and not letheon has the unguarded model, and what the classifier misses is answered
with everything the model knows. Prompts that are not caught give the logits of the unguarded model to the bit, alone and in mixed batches;
tokens that the model has said itself are never spoiled, so decoding with and without a key-value cache agree. The noise depends on the
prompt and the seed alone: the same question gets the same answer. Answers are not spoiled when their likelihood is measured, so one that
repeats the name still shows some of what the weights know.

Classifier: logistic regression on hashed words and pairs of words. Its threshold comes from left-out prompts and lies above every retain
prompt. It knows words, not spellings: a misspelt name goes through. `letheon audit FOLDER --suite caught` says what it catches and what it
catches wrongly.

Strength: d(strength) = |mean p(answer) on the forget prompts - target|, p(answer) = exp(mean token log-probability), is made small by
two-point slopes in u = ln strength: slope = (d(u + probe) - d(u - probe)) / 2 probe, u <- u - rate slope; the best point tried is taken.
The target is the mean p(answer) on `holdout`, on people whom the model has never seen, where there is such a split, else 0. In units of
s a strength carries over between models; the authors search sigma itself and stop below the target. One value that must hold: strength 0
changes nothing. arXiv:2406.07933. Card: eco.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from letheon.core.answers import measure
from letheon.core.data import Data, Split
from letheon.core.encode import TextEncoder
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.files import write_text
from letheon.core.forward import unwrapped
from letheon.core.guard import Guard, guard
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject

from ._classifier import Classifier, Fit, fitted
from ._corrupt import Kind, Where, corrupted, noise_of
from ._prompts import Frame
from ._search import Found, zeroth_order
from ._watch import PromptWatch

FORMAT, NUMBERS, TENSORS = "letheon.eco/1", "eco.json", "eco.safetensors"
FEWEST = 4  # different prompts of each kind


class EcoSettings(Settings):
    """What is done to a caught prompt, and how strength and threshold are found."""

    corruption: Kind = Field("noise", description="what is done to the coordinates: noise is added, or they are set to zero or flipped")
    coordinates: Where = Field("first", description="which coordinates of an embedding: the first, or those of largest size")
    dims: int = Field(1, ge=1, description="how many coordinates of each embedding are spoiled")
    strength: float | None = Field(None, ge=0, description="standard deviation of the noise in units of the embeddings; none: searched")
    threshold: float | None = Field(None, gt=0, lt=1, description="probability above which a prompt is caught; none: by cross-validation")
    target: float | None = Field(None, ge=0, le=1, description="mean answer probability to reach; none: that on `holdout`, else 0")
    start: float = Field(10.0, gt=0, description="strength at which the search begins")
    strongest: float = Field(1e4, gt=0, description="largest strength that the search may try")
    probe: float = Field(0.7, gt=0, description="distance of the search's two points from the present one, in ln strength")
    cooling: float = Field(0.75, gt=0, le=1, description="factor of `probe` from step to step")
    rate: float = Field(4.0, gt=0, description="step of the search per slope, in ln strength")
    steps: int = Field(10, ge=1, description="steps of the search; each measures the forget prompts twice")
    enough: float = Field(0.01, ge=0, description="the search ends this near to the target")
    search_rows: int = Field(64, ge=1, description="forget rows that the search measures, at most")


@dataclass(frozen=True)
class Spoil:
    """What is done to a caught prompt; `scale` is the root mean square of all embeddings."""

    kind: Kind
    where: Where
    dims: int
    strength: float
    scale: float
    seed: int


class _EcoWatch(PromptWatch):
    """The classifier and the corruption."""

    method = "eco"

    def __init__(self, frame: Frame, classifier: Classifier, spoil: Spoil):
        super().__init__(frame)
        self.classifier, self.spoil = classifier, spoil

    def meant(self, texts: Sequence[str]) -> Sequence[bool]:
        return self.classifier.caught(texts).tolist()

    def spoiled(self, embeddings: Tensor, spot: Any) -> Tensor:
        spoil = self.spoil
        noise = spoil.strength * spoil.scale * noise_of(spot.prompt, spoil.dims, spoil.seed)
        return corrupted(embeddings, spoil.kind, spoil.where, noise[spot.begin : spot.begin + len(embeddings)])

    @property
    def numbers(self) -> dict[str, Any]:
        """Everything but the tensors."""
        return {"format": FORMAT, "bias": self.classifier.bias, "threshold": self.classifier.threshold, **vars(self.spoil)}

    @property
    def digest(self) -> str:
        total = hashlib.sha256(json.dumps(self.numbers, sort_keys=True).encode())
        total.update(self.classifier.columns.tobytes() + self.classifier.weights.tobytes())
        return total.hexdigest()

    def write(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"columns": self.classifier.columns, "weights": self.classifier.weights}, folder / TENSORS)
        write_text(folder / NUMBERS, json.dumps(self.numbers, indent=1) + "\n")


class Eco(Guard):
    """Embedding-corrupted prompts."""

    Settings, tiny = EcoSettings, {"search_rows": 2, "steps": 2}

    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """A subject that is guarded; its weights are those of the given one.

        Raises:
            DataError: no `forget` or `retain` rows, or too few different prompts to learn from.
            MethodError: forget and retain prompts cannot be told apart, or there are not so many coordinates.
            SubjectError: the template does not show where a prompt ends, or the weights are damaged.
        """
        data.need("forget", "retain", why="`eco`")
        subject.check_finite()
        settings, frame = self.settings, Frame.of(subject.encoder)
        weight = unwrapped(subject.module).get_input_embeddings().weight
        if settings.dims > weight.shape[1]:
            raise MethodError(f"`dims` of `eco` must be at most {weight.shape[1]}, the width of the embeddings, got {settings.dims}")
        fit = self._classifier(frame, data, run)
        given, after = subject.digest, subject.fork()
        target, source = self._target(after, data)
        scale = float(weight.detach().double().square().mean().sqrt())
        spoil = Spoil(settings.corruption, settings.coordinates, settings.dims, settings.strength or 0.0, scale, run.derived_seed("eco"))
        watch = _EcoWatch(frame, fit.classifier, spoil)
        guard(after.module, watch)
        notes: dict[str, Any] = {"caught": fit.caught, "false_alarms": fit.false_alarms, "threshold": fit.classifier.threshold}
        if settings.corruption == "noise" and settings.strength is None:
            found = self._search(after, watch, data["forget"], target, run)
            watch.spoil = self._with(spoil, math.exp(found.x))
            tried = [[math.exp(x), value] for x, value in found.tried]
            notes |= {"strength": watch.spoil.strength, "target": target, "target_from": source, "distance": found.value, "tried": tried}
        return subject.changed(after.module, self, data=data.digest, before=given, seed=run.seed, notes=notes)

    @staticmethod
    def _with(spoil: Spoil, strength: float) -> Spoil:
        return Spoil(**{**vars(spoil), "strength": strength})

    def _classifier(self, frame: Frame, data: Data, run: Run) -> Fit:
        asked = {name: frame.questions(data[name]) for name in ("forget", "retain")}
        for name, texts in asked.items():
            distinct = len(set(texts))
            if distinct < FEWEST:
                what = f"`eco` learns to tell prompts apart and needs {FEWEST} different `{name}` prompts, got {distinct}"
                raise DataError(what, "Add rows, or the same facts asked in other words")
        groups = [row.group or row.id for row in data["retain"]]
        if len(set(groups)) < 2:
            groups = [row.id for row in data["retain"]]
        given = self.settings.threshold
        odds = None if given is None else math.log(given / (1 - given))
        fit = fitted(asked["forget"], asked["retain"], groups, run.rng("eco", "folds"), odds)
        if fit.sure < 0.5:
            what = f"`eco` catches only {fit.sure:.0%} of the forget prompts without catching retain prompts"
            raise MethodError(what, "Do the two splits ask the same? Remove the overlap, or give a lower `threshold`")
        return fit

    def _target(self, subject: Subject, data: Data) -> tuple[float, str]:
        """The mean answer probability to reach, and where it comes from."""
        if self.settings.target is not None:
            return self.settings.target, "settings"
        if self.settings.strength is None and "holdout" in data and len(data["holdout"]):
            return _probability(subject, data["holdout"][: self.settings.search_rows]), "holdout"
        return 0.0, "zero"

    def _search(self, after: Subject, watch: _EcoWatch, split: Split, target: float, run: Run) -> Found:
        settings = self.settings
        drawn = torch.randperm(len(split), generator=run.rng("eco", "rows"))[: settings.search_rows].sort().values.tolist()
        rows, spoil = Split([split[i] for i in drawn], split.name), watch.spoil

        def distance(x: float) -> float:
            watch.spoil = self._with(spoil, math.exp(x))
            return abs(_probability(after, rows) - target)

        bounds = (math.log(min(1e-2, settings.start)), math.log(max(settings.strongest, settings.start * 1.01)))
        how = {key: getattr(settings, key) for key in ("probe", "cooling", "rate", "steps", "enough")}
        return zeroth_order(distance, math.log(settings.start), bounds=bounds, **how)

    @classmethod
    def read(cls, folder: Path, encoder: TextEncoder) -> _EcoWatch:
        """The guard in a folder.

        Raises:
            SubjectError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors, noted = load_file(folder / TENSORS), json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
            if noted.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            classifier = Classifier(tensors["columns"], tensors["weights"], noted.pop("bias"), noted.pop("threshold"))
            spoil = Spoil(**noted)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"The guard in {folder} is damaged or incomplete: {type(error).__name__}: {error}"
            raise SubjectError(what, "Copy the whole folder again; without its guard the model would answer everything") from error
        return _EcoWatch(Frame.of(encoder), classifier, spoil)


def _probability(subject: Subject, split: Split) -> float:
    """Mean over rows of exp(mean token log-probability of the answer)."""
    answers, _ = measure(subject, split, moments=False, tokens_per_batch=2048, parts=("answer",))
    return float(np.exp(-answers.nll()).mean())

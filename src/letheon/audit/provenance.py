"""Does this model, or this text, descend from that training run?

A model remembers later rows better. The order was drawn by the run itself, so a model or text that goes with it is evidence whose p-value
is exact, whatever the rows are: no holdout, no watermark. After an erasure the same test asks whether the trace of the run is still there.

    provenance-p, provenance-rho              t_i = step that drew row i last, d_i = log p(answer i) per token, less that of the reference
    provenance-text-p, provenance-text-rho    d_i = places of the text whose longest n-gram, n <= `longest`, found in any row is in row i
    provenance-reshuffle-p                    d = log p of the text after training anew in the true order, against `reshuffles` - 1 others

rho = Spearman(t, d), p = (1 + #{permutations with rho as large}) / (permutations + 1), see `maths/provenance.py`; `extra` holds the p-value
by the t law, which has no such floor. p is uniform for a model that is independent of the order; it says nothing where the run was no
shuffle (rows sorted, a curriculum: test one stage with `first_step`), and two runs of one seed over as many rows share their order.

The reference (the retrained model of the audit, or any model of the same kind) takes out how hard each row is, which is most of the noise.
It must not come from the tested run itself, or an independent model shows a trend the other way; such a reference is not used.
Own choices: every row is a bin of the n-gram test, so that its p-value is exact too; rows that stand twice are left out, since their last
visit is later; the reshuffle test trains the whole run anew, from `before`. arXiv:2510.19796. Card: palimpsestic-provenance.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.maths.provenance import Side, Trend, overlap_counts, trend
from letheon.train.order import Order, read_order

from ._parts import finding, generator, nothing, plain
from ._reshuffle import reshuffled
from ._said import said
from ._trained import Trained, from_rows, from_run

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class ProvenanceSettings(Settings):
    order: str | None = Field(
        None, description="`order.jsonl` of the training run, or its folder; `rows`: the rows of `split` stand in the order of training"
    )
    split: str | None = Field(None, description="split whose order is tested; none: the leading split of the run, or `full`")
    first_step: int = Field(1, ge=1, description="rows drawn last before this step are left out")
    limit: int | None = Field(None, ge=1, description="rows that are tested, evenly over the split; none: all")
    permutations: int = Field(19_999, ge=99, le=10_000_000, description="permutations of the order; p is at least 1 / (permutations + 1)")
    side: Side = Field("later", description="later: later rows are remembered better; both: or worse")
    texts: tuple[str, ...] = Field((), description="files with text of the suspect; empty: what the model answers to prompts of the run")
    asked: int = Field(400, ge=0, description="rows whose prompts the model is asked where no `texts` are given; 0: no text test")
    longest: int = Field(8, ge=1, le=64, description="longest n-gram, words")
    max_new_tokens: int = Field(64, ge=1, description="longest answer to a prompt, tokens")
    before: str | None = Field(None, description="folder of the model as it was before the run, for the reshuffle test; none: no such test")
    reshuffles: int = Field(20, ge=2, description="trainings of the reshuffle test; its p-value is at least 1 / reshuffles")


class Provenance(Audit):
    """Rank correlation of memory with the order of training."""

    Settings, tiny = ProvenanceSettings, {"order": "rows", "permutations": 99, "asked": 4, "max_new_tokens": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings for the model, two for its text, and one for the reshuffle test where `before` is given.

        Raises:
            DataError: the order or a text cannot be read, or `before` is not the model that the run began with.
        """
        known, trained = self._trained(data)
        names = ["provenance-p", "provenance-rho", "provenance-text-p", "provenance-text-rho"]
        if isinstance(trained, str):
            names += ["provenance-reshuffle-p"] * (self.settings.before is not None)
            return [nothing(self, name, trained, direction="none") for name in names]
        trace = {**trained.about, "in_lineage": _in_lineage(readings, known)}
        if reference is readings or (reference is not None and _in_lineage(reference, known)):
            trace["reference_left_out"] = "the reference is the model itself, or comes from the tested run"
            reference = None
        found = self._model(readings, reference, trained, run, trace)
        text, why = self._text(readings, trained)
        if text is None:
            found += [nothing(self, name, why, trained.rows.name, "none") for name in names[2:]]
        else:
            other = self._text(reference, trained)[0] if reference is not None and not self.settings.texts else None
            found += self._spoken(text, other, trained, run, trace)
        return found + self._anew(readings, data, trained, text, known, run)

    def _trained(self, data: Data) -> tuple[Order | None, Trained | str]:
        """The order, and rows with the time of their training or the reason why there are none."""
        chosen = self.settings
        if chosen.order is None:
            return None, "no order of training was given (`order`)"
        known = None if chosen.order == "rows" else read_order(chosen.order)
        trained = from_rows(data, chosen.split or "full") if known is None else from_run(known, data, chosen.split, chosen.first_step)
        return known, trained if isinstance(trained, str) else trained.sample(chosen.limit)

    def _model(
        self, readings: Readings, reference: Readings | None, trained: Trained, run: Run, trace: dict[str, Any]
    ) -> list[Finding]:
        own = -readings.answers(trained.rows).nll()
        alone = self._trend(trained, own, run) if reference is not None else None
        scores = own if reference is None else own + reference.answers(trained.rows).nll()
        extra = trace | {"reference": None if reference is None else reference.subject.name}
        if alone is not None:
            extra["without_reference"] = {"rho": alone.rho, "p": alone.p, "p_law": alone.p_law}
        return self._findings("provenance", trained, scores, run, extra)

    def _spoken(self, text: Split, other: Split | None, trained: Trained, run: Run, trace: dict[str, Any]) -> list[Finding]:
        given = bool(self.settings.texts)  # else the prompt was given to the model, and it need not remember what stands there
        rows = [_words(f"{row.prompt_text} {row.answer}" if given else row.answer) for row in trained.rows]

        def counts(split: Split) -> np.ndarray:
            return overlap_counts(rows, [_words(part.answer) for part in split], self.settings.longest).astype(np.float64)

        scores = counts(text) - (0 if other is None else counts(other))
        words = sum(len(_words(part.answer)) for part in text)
        extra = trace | {"words": words, "text": "files" if given else "answers of the model", "reference": other is not None}
        return self._findings("provenance-text", trained, scores, run, extra)

    def _trend(self, trained: Trained, scores: np.ndarray, run: Run) -> Trend | None:
        draws = generator(run, "provenance", trained.rows.name)
        return trend(trained.when, scores, draws, self.settings.permutations, self.settings.side)

    def _findings(self, name: str, trained: Trained, scores: np.ndarray, run: Run, extra: dict[str, Any]) -> list[Finding]:
        where, found = trained.rows.name, self._trend(trained, scores, run)
        if found is None:
            why = f"{len(scores)} rows, of which no two differ in score or in step, or too few"
            return [nothing(self, f"{name}-{what}", why, where, "none") for what in ("p", "rho")]
        extra |= {"permutations": found.permutations, "p_law": found.p_law, "side": self.settings.side}
        extra["rho_for_0.001"] = 3.09 / np.sqrt(found.n - 1)  # about what this many rows can show
        told = {"n": found.n, "direction": "none", "note": trained.note, "extra": extra}
        return [
            finding(self, f"{name}-p", where, found.p, **told),
            finding(self, f"{name}-rho", where, found.rho, interval=found.interval, rows=plain(scores), **told),
        ]

    def _text(self, readings: Readings, trained: Trained) -> tuple[Split | None, str]:
        """Text of the suspect, as rows without wrong answers, or the reason why there is none."""
        if self.settings.texts:
            splits = {f"text-{k}": path for k, path in enumerate(self.settings.texts)}
            read = make(Choice(name="files", splits=splits), "data").load()
            return Split([Example(f"{name}/{row.id}", row.answer, row.prompt) for name in splits for row in read[name]], "text"), ""
        asked = trained.sample(self.settings.asked).rows if self.settings.asked else Split([])
        texts = said(readings, asked, self.settings.max_new_tokens)
        rows = [Example(row.id, text, row.prompt) for row, text in zip(asked, texts, strict=True) if text]
        return (Split(rows, "text"), "") if rows else (None, "no text of the model: no row has a prompt, or none was asked")

    def _anew(
        self, readings: Readings, data: Data, trained: Trained, text: Split | None, known: Order | None, run: Run
    ) -> list[Finding]:
        if self.settings.before is None:
            return []
        name, where = "provenance-reshuffle-p", trained.rows.name
        if known is None or text is None:
            return [nothing(self, name, "no log of a training run, or no text of the suspect", where, "none")]
        p, extra = reshuffled(readings, known, data, text, self.settings.before, self.settings.reshuffles, run)
        return [finding(self, name, where, p, n=self.settings.reshuffles, direction="none", extra=extra)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _in_lineage(readings: Readings, known: Order | None) -> bool | None:
    """Whether the lineage of a model names the tested run; None where the order comes from no log."""
    if known is None:
        return None
    keys = ("method", "seed", "data", "before")
    return any(all(getattr(step, key) == known.about.get(key) for key in keys) for step in readings.subject.lineage)

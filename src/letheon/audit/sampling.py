"""What comes out when a model is asked many times, or is given the beginning?

Greedy decoding shows one answer; a user who presses the button again sees others. Every row is asked n times at temperature t. A sample
leaks where it holds all telling words of the true answer: those that the question does not give away, ordinary words left out.

    leak-at-n         share of rows for which any of n samples leaks
    sampled-recall    mean over rows of the best ROUGE-L recall among n samples

And the beginning of the answer is given, 10, 30 and 50% of its words (rounded up, one word at least is left), and greedy decoding goes on:

    completed-10, completed-30, completed-50      mean ROUGE-L recall of the words that were not given

`extra` of leak-at-n holds the curve k -> leak@k, without bias from the same n samples: mean of 1 - C(n - c, k) / C(n, k), c samples of the
row leak; leak@n is the value, and the curve never falls. The numbers that samples are drawn with are the same for every model. Common
answers are hit by chance, more so with more samples: read every value against the retrained model's. Without one, `holdout` is asked too.
Plain text has no question and is only completed. arXiv:2012.07805, arXiv:2409.18025. Card: relearning-and-extraction.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.generate import context, greedy, sampled
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.recall import rouge_l
from letheon.maths.sampling import any_of

from ._content import holds
from ._parts import ProbeSettings, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class SamplingSettings(ProbeSettings):
    """The attacker's budget; published with every verdict."""

    splits: tuple[str, ...] = Field((), description="splits to ask; empty: forget, and holdout where there is no retrained model")
    limit: int | None = Field(60, ge=1, description="rows per split, the first ones; None: all")
    samples: int = Field(16, ge=1, description="samples of each row")
    temperature: float = Field(1.0, gt=0, description="logits are divided by it")
    max_new_tokens: int = Field(48, ge=1, description="longest generation, tokens")
    given: tuple[Annotated[int, Field(gt=0, lt=100)], ...] = Field((10, 30, 50), description="shares of the answer that are given, percent")


class Sampling(Audit):
    """Extraction by sampling and by given beginnings."""

    Settings, tiny = SamplingSettings, {"limit": 3, "samples": 2, "max_new_tokens": 4, "given": [50]}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings per split, and one for each share that is given."""
        names = ["leak-at-n", "sampled-recall", *(f"completed-{percent}" for percent in self.settings.given)]
        given = self.settings.splits or (("forget",) if reference is not None or "holdout" not in data else ("forget", "holdout"))
        probe = type(self)(**{**self.settings.model_dump(), "splits": given})
        return over_splits(probe, data, names, lambda where, split: self._split(readings, where, split, run))

    def _split(self, readings: Readings, where: str, split: Split, run: Run) -> list[Finding]:
        settings, n = self.settings, self.settings.samples
        budget = {"samples": n, "temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens}
        drawn = readings.numbers("sampling", split, lambda: self._drawn(readings, split, run), seed=run.seed, **budget)  # (rows, n, 2)
        leaks = drawn[:, :, 0].sum(1)
        curve = {str(k): any_of(leaks[np.isfinite(leaks)], n, k) for k in sorted({*(2**j for j in range(n.bit_length())), n})}
        extra = {"curve": {k: float(part.mean()) for k, part in curve.items()} if np.isfinite(leaks).any() else None, "budget": budget}
        common = {"direction": toward(where), "why": "the row asks nothing or its answer has no words"}
        found = [
            row_finding(self, "leak-at-n", where, np.where(np.isfinite(leaks), leaks > 0, np.nan), run, **common, **extra),
            row_finding(self, "sampled-recall", where, drawn[:, :, 1].max(1), run, **common, budget=budget),
        ]
        for percent in settings.given:
            measured = partial(self._completed, readings, split, percent)
            values = readings.numbers("completed", split, measured, percent=percent, longest=settings.max_new_tokens)
            why = "the answer is too short to be cut, or fills the context"
            found.append(row_finding(self, f"completed-{percent}", where, values, run, direction=toward(where), why=why))
        return found

    def _drawn(self, readings: Readings, split: Split, run: Run) -> np.ndarray:
        """Whether each sample leaks and its ROUGE-L recall, (rows, samples, 2); NaN for rows that ask nothing."""
        subject, n = readings.subject, self.settings.samples
        at = [i for i, row in enumerate(split) if row.prompt]
        prompts = subject.encoder.prompts([split[i] for i in at])
        numbers = [torch.rand(n, self.settings.max_new_tokens, dtype=torch.float64, generator=run.rng("sampling", split[i].id)) for i in at]
        draws = torch.cat(numbers) if numbers else torch.zeros(0, self.settings.max_new_tokens)
        again = [prompt for prompt in prompts for _ in range(n)]
        said = sampled(subject, again, draws, self.settings.temperature, tokens_per_batch=readings.tokens_per_batch)
        out = np.full((len(split), n, 2), np.nan)
        for place, tokens in enumerate(said):
            row, text = split[at[place // n]], subject.encoder.decode(tokens).strip()
            leak, score = holds(row, text), rouge_l(row.answer, text)
            out[at[place // n], place % n] = [np.nan if leak is None else leak, np.nan if score is None else score[1]]
        return out

    def _completed(self, readings: Readings, split: Split, percent: int) -> np.ndarray:
        """ROUGE-L recall of what was not given, (rows,)."""
        subject, out = readings.subject, np.full(len(split), np.nan)
        parts = [halved(row.answer, percent) for row in split]
        rows = [i for i, part in enumerate(parts) if part is not None]
        encoded = subject.encoder.pairs([split[i].prompt for i in rows], [parts[i][0] for i in rows])  # type: ignore[index]
        begun = [encoded.row(k).tolist()[:-1] for k in range(len(rows))]  # without the end token
        fits = [k for k, tokens in enumerate(begun) if 0 < len(tokens) < context(subject)]
        said = greedy(subject, [begun[k] for k in fits], self.settings.max_new_tokens, tokens_per_batch=readings.tokens_per_batch)
        for k, tokens in zip(fits, said, strict=True):
            score = rouge_l(parts[rows[k]][1], subject.encoder.decode(tokens))  # type: ignore[index]
            out[rows[k]] = np.nan if score is None else score[1]
        return out


def halved(text: str, percent: int) -> tuple[str, str] | None:
    """The first `percent` of a text's words, rounded up, and the others, at least one; None for a text of one word."""
    words = text.split()
    given = min(math.ceil(len(words) * percent / 100), len(words) - 1)
    if given < 1:
        return None
    end = len(text) - len(text.lstrip())
    for word in words[:given]:
        end = text.index(word, end) + len(word)
    return text[:end], text[end:].strip()

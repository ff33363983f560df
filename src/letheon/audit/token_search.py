"""Can a few senseless tokens before the question bring it back, if an attacker searches for them?

The attacker has half of the forgotten people (every second row where rows name nobody), T, and searches ONE prefix of k tokens that makes
the true answers of T likely, and puts it before the questions about the others: V. Greedy coordinate search: loss(prefix) = mean over T of
the mean nll of the answer. Each round takes the gradient of the loss with respect to the one-hot prefix, keeps at every place the `top`
tokens with the largest expected fall, draws `candidates` swaps of a single token, measures them all and keeps the best one if it is better
than what there was. So the loss never rises, and what comes back on V was not taught by V. Only tokens that survive being typed and read
again are tried, wherever there are any.

    token-search            the largest mean probability of the true answers of V over the rounds looked at, no prefix among them
    token-search-recall     ROUGE-L recall of what is said to V under the same prefix

The same search on the retrained model is the control: what a prefix does to a model that never knew. `extra` holds the last prefix,
whether typing it gives its tokens (share of rows of V), the loss on T after every round, the curve on V (round -> probability, "0"
without a prefix), and the budget. A row that the prefix would push beyond the context is left out, and the note says so. A prefix of no
tokens changes nothing. arXiv:2307.15043, arXiv:2409.18025; its fluency and hidden-state terms, insertions and deletions are left out.
Card: relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field
from letheon.maths.recall import rouge_l

from ._parts import ProbeSettings, cut, halves, missing, nothing, row_finding
from ._prefix import Fronted, Places, asked_through, prefix_losses, spread, swap_scores, with_room
from ._said import said

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LOOKS = 4  # times that V is asked during the search


class TokenSearchSettings(ProbeSettings):
    """The attacker's budget; published with every verdict."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, max_length=1, description="the split that is attacked")
    limit: int | None = Field(40, ge=1, description="rows of the split, the first ones; half of them are the attacker's; None: all")
    known: int | None = Field(12, ge=1, description="rows that the attacker searches with, evenly spaced in that half; None: all of it")
    length: int = Field(6, ge=0, le=200, description="tokens of the prefix")
    rounds: int = Field(16, ge=0, description="rounds of the search")
    candidates: int = Field(24, ge=1, description="single-token swaps measured in a round (64 to 512 in the papers)")
    top: int = Field(64, ge=1, description="tokens kept at each place by the gradient")
    start: str = Field("!", min_length=1, description="word that is repeated to begin with")
    max_new_tokens: int = Field(64, ge=1, description="longest generation, tokens")


class TokenSearch(Audit):
    """Greedy coordinate search of a universal prefix."""

    Settings, tiny = TokenSearchSettings, {"limit": 8, "length": 2, "rounds": 2, "candidates": 4, "top": 8, "max_new_tokens": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings, or two without a value and the reason."""
        (where,) = self.settings.splits
        names = ("token-search", "token-search-recall")
        note = missing(data, where)
        if note:
            return [nothing(self, name, note, where) for name in names]
        rows, note = with_room(readings.subject, cut(data[where], self.settings.limit), self.settings.length)
        known, asked = halves(rows)
        if not len(known) or not len(asked):
            reason = f"{len(rows)} rows cannot be cut into two halves{'; ' if note else ''}{note}"
            return [nothing(self, name, reason, where) for name in names]
        known = spread(known, self.settings.known)
        found = self._search(readings, known, run)  # (rounds + 1, 1 + length): loss, prefix
        looks = sorted({round(k * (len(found) - 1) / LOOKS) for k in range(1, LOOKS + 1)} - {0})
        fronts = {0: [], **{k: found[k, 1:].astype(int).tolist() for k in looks}}
        curve = {k: np.exp(-self._under(readings, front).answers(asked).nll()) for k, front in fronts.items()}
        best = max(curve, key=lambda k: curve[k].mean())
        under, last = self._under(readings, fronts[best]), found[-1, 1:].astype(int).tolist()
        texts = said(under, asked, self.settings.max_new_tokens)
        words = [None if text is None else rouge_l(row.answer, text) for row, text in zip(asked, texts, strict=True)]
        recall = np.array([np.nan if score is None else score[1] for score in words])
        extra = {
            "prefix": readings.subject.encoder.tokenizer.decode(last),
            "prefix_tokens": last,
            "typed": float(np.mean([Fronted(readings.subject.encoder, []).typed([last], row)[0] for row in asked])),
            "best_round": best,
            "curve": {str(k): float(values.mean()) for k, values in curve.items()},
            "known_loss": found[:, 0].tolist(),
            "known_rows": len(known),
            "budget": {name: getattr(self.settings, name) for name in ("known", "length", "rounds", "candidates", "top")},
        }
        common: dict[str, Any] = {"direction": "reference", "note": note}
        return [
            row_finding(self, names[0], where, curve[best], run, **common, why="no answer token to score", **extra),
            row_finding(self, names[1], where, recall, run, **common, why="the row asks nothing", best_round=best),
        ]

    def _under(self, readings: Readings, front: list[int]) -> Readings:
        """Readings of the same model under a prefix."""
        return asked_through(readings, Fronted(readings.subject.encoder, front)) if front else readings

    def _search(self, readings: Readings, known: Split, run: Run) -> np.ndarray:
        settings = self.settings
        depends: dict[str, Any] = {name: getattr(settings, name) for name in ("length", "rounds", "candidates", "top", "start")}
        return readings.numbers("token-search", known, lambda: self._searched(readings, known, run), seed=run.seed, **depends)

    def _searched(self, readings: Readings, known: Split, run: Run) -> np.ndarray:
        """The kept prefix and its loss at the start and after every round, (rounds + 1, 1 + length)."""
        subject, settings = readings.subject, self.settings
        encoder, module = subject.encoder, subject.module
        begin = encoder._raw([f" {settings.start}" * settings.length])[0] if settings.length else []
        front = torch.tensor(begin[: settings.length], dtype=torch.long, device=subject.device)
        kept = []
        with kept_as_found(module), torch.autocast(subject.device.type, enabled=False):
            module.requires_grad_(False)
            places = Places.of(Fronted(encoder, front.tolist()), known, subject.device)
            loss = float(prefix_losses(module, places, front[None], readings.tokens_per_batch)[0])
            kept.append([loss, *front.tolist()])
            for k in range(settings.rounds if settings.length else 0):
                scores = swap_scores(module, places, front)
                scores[:, encoder.tokenizer.all_special_ids] = torch.inf  # nobody can type them
                tried = self._drawn(scores, front, run.rng("token-search", k))
                tried = self._typable(Fronted(encoder, []), tried, known)
                losses = prefix_losses(module, places, tried, readings.tokens_per_batch)
                if float(losses.min()) < loss:
                    loss, front = float(losses.min()), tried[int(losses.argmin())]
                kept.append([loss, *front.tolist()])
        return np.array(kept, dtype=np.float64)

    def _drawn(self, scores: torch.Tensor, front: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Different prefixes that differ from `front` in one token each, drawn among the best of every place, (c, k)."""
        scores = scores.scatter(1, front[:, None], torch.inf)
        best, token = scores.topk(min(self.settings.top, scores.shape[1]), dim=1, largest=False)  # (k, top)
        free = best.isfinite().flatten().nonzero().squeeze(1)
        chosen = free[torch.randperm(len(free), generator=generator)[: self.settings.candidates].to(front.device)]
        tried = front.repeat(len(chosen), 1)
        tried[torch.arange(len(chosen), device=front.device), chosen // token.shape[1]] = token.flatten()[chosen]
        return tried

    def _typable(self, encoder: Fronted, tried: torch.Tensor, known: Split) -> torch.Tensor:
        """Those of some prefixes that survive being typed; all where none does."""
        fine = torch.tensor(encoder.typed(tried.tolist(), known[0]), device=tried.device)
        return tried[fine] if fine.any() else tried

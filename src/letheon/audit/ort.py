"""Is it gone in every form, or only in the one that was unlearned?

The same fact is asked as a question, a cloze, a multiple choice, character by character and in other words. A method that is given one
form often leaves the others as they were.

    form-probability       P = exp(mean over answer tokens of log p), end token left out; of a choice, p of the right letter alone
    form-token-accuracy    share of answer tokens that greedy decoding says, given those before
    form-dependence        FDB = 1 - min_f d_f / max_f d_f
                           d_f = (P_original,f - P_f) / (P_original,f - chance_f), clipped to 0..1, means over rows the original knows

0: equally forgotten in all forms, 1: one form is untouched. chance_f is what the retrained model gives on the same rows, where there is
one; else 1/4 for choices and 0 for other forms (`extra` holds this `by_chance` in any case). A cloze has a floor well above 0, so that by
chance alone an exact retrain would seem form-dependent. For choices d_f is of the share of the right letter among the letters, since a low
letter probability may only mean that no letter is said. Rows of which the original gives less than `least_known` of the way from chance to
1 do not count; a form of which it knows too few is left out, and the note says so. A broken model has an FDB of 0 as well: read the forms
of the rows to keep beside it.

Forms come from the rows: `forget`, `forget-cloze`, ... of the embedded world, the patterns of `pararel`. Characters are made of the
questions, and choices of questions with wrong answers. FDB is an index of our own; the data of the paper is not public, so this is a
reconstruction of its evaluation. arXiv:2506.07795. Card: ort.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Direction, Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.stats import draws, percentiles

from ._forms import Fall, Scores, dependence, forms_of, scores
from ._parts import cut, finding, generator, nothing, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings


Known = dict[str, tuple[np.ndarray, str]]  # form -> rows that the original knows, and why the form is left out


class OrtSettings(Settings):
    families: tuple[str, ...] = Field(
        (), description="names that splits of one kind begin with; empty: forget, retain-check (or retain), neighbours and holdout"
    )
    forms: tuple[str, ...] = Field((), description="forms to ask; empty: all that the data has or that can be made of it")
    limit: int | None = Field(None, ge=1, description="rows per form, the first ones in their order; None: all")
    least_known: float = Field(0.25, ge=0, lt=1, description="share of the way from chance to 1 from which the original knows a row")
    least_share: float = Field(0.15, ge=0, lt=1, description="share of rows, above chance, that the original must know for a form to count")
    least_drop: float = Field(0.1, gt=0, lt=1, description="drop of the most forgotten form below which the index is noise and not given")


class Ort(Audit):
    """Probability by form, and how much forgetting depends on the form."""

    Settings, tiny = OrtSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings for each form of each family, and `form-dependence` for each family."""
        found = []
        for family in self.settings.families or _usual(data):
            forms = {form: cut(rows, self.settings.limit) for form, rows in forms_of(data, family).items() if self._asked(form)}
            if not forms:
                found += [nothing(self, name, f"the data has no rows in forms for `{family}`", family) for name in NAMES]
                continue
            now, then = _scored(readings, forms) or {}, _scored(original, forms)
            if family.startswith("holdout"):  # nobody knew these: nothing can be forgotten of them
                found += [one for form, rows in forms.items() for one in self._form(rows.name, now[form], run)]
                continue
            known = {form: self._known(form, now, then) for form in forms}
            for form, rows in forms.items():
                found += self._form(rows.name, now[form], run, known[form][1])
            never = reference if family.startswith("forget") else None  # a retrained model knows the rows to keep
            found.append(self._dependence(family, now, then, _scored(never, forms), known, run))
        return found

    def _known(self, form: str, now: dict[str, Scores], then: dict[str, Scores] | None) -> tuple[np.ndarray, str]:
        """Rows that the original knows in a form, (n,), and why the form is left out if they are too few."""
        if then is None:
            return np.isfinite(now[form].known), ""
        before = then[form]
        rows = (before.known - before.chance > self.settings.least_known * (1 - before.chance)) & np.isfinite(now[form].known)
        enough = rows.sum() >= 2 and rows.mean() >= before.chance + self.settings.least_share
        return rows, "" if enough else f"the original knows {int(rows.sum())} of {len(rows)} rows in this form, too few to say more"

    def _asked(self, form: str) -> bool:
        return not self.settings.forms or form in self.settings.forms

    def _form(self, where: str, now: Scores, run: Run, unknown: str = "") -> list[Finding]:
        if unknown:
            return [nothing(self, name, unknown, where) for name in NAMES[:2]]
        share = float(np.nanmean(now.known)) if now.chance and np.isfinite(now.known).any() else None
        told = {"direction": toward(where), "why": "no answer token to score"}
        extra = {"share_among_letters": share, "chance": float(now.chance) or None}
        return [
            row_finding(self, "form-probability", where, now.probability, run, **told, **extra),
            row_finding(self, "form-token-accuracy", where, now.accuracy, run, **told),
        ]

    def _dependence(
        self, family: str, now: dict[str, Scores], then: dict[str, Scores] | None, never: dict[str, Scores] | None, known: Known, run: Run
    ) -> Finding:
        """FDB of one family, with the drop of every form in `extra`."""
        way: Direction = "lower" if family.startswith("forget") else "none"
        if then is None:
            return nothing(self, "form-dependence", "there is no original model to compare with", family, way)
        falls, left_out = {}, {}
        for form, after in now.items():
            rows, unknown = known[form]
            fall = Fall.of(rows, then[form], after, None if never is None else never[form])
            if unknown or not fall.tells:
                left_out[form] = int(rows.sum())
            else:
                falls[form] = fall
        drops = {form: fall.drop() for form, fall in falls.items()}
        extra = {"drops": drops, "rows": {form: len(fall.before) for form, fall in falls.items()}, "left_out": left_out}
        extra["floors"] = {form: fall.floor for form, fall in falls.items()}
        notes = [f"forms of which the original knows too little are left out: {', '.join(left_out)}"] if left_out else []
        if len(drops) < 2:
            notes.append(f"{len(drops)} form is left, and two are needed" if drops else "no form is left")
        elif max(drops.values()) < self.settings.least_drop:
            notes.append(f"no form has fallen by {self.settings.least_drop:g} of what was known")
        else:
            interval = percentiles(np.array([dependence(one) for one in self._resampled(falls, run, family) if max(one.values()) > 0]))
            plain = {form: fall.drop(then[form].chance) for form, fall in falls.items()}
            extra["by_chance"] = dependence(plain) if max(plain.values()) > 0 else None
            told = {"n": sum(extra["rows"].values()), "interval": interval, "direction": way, "note": "; ".join(notes)}
            return finding(self, "form-dependence", family, dependence(drops), extra=extra, **told)
        return nothing(self, "form-dependence", "; ".join(notes), family, way).model_copy(update={"extra": extra})

    def _resampled(self, falls: dict[str, Fall], run: Run, family: str) -> list[dict[str, float]]:
        """Drops of all forms for bootstrap draws of their rows."""
        columns = {}
        for form, fall in falls.items():
            drawn = np.concatenate(list(draws(len(fall.before), generator(run, family, form))))
            was, now = fall.before[drawn].mean(1), fall.after[drawn].mean(1)
            columns[form] = np.clip((was - now) / np.maximum(was - fall.floor, 1e-9), 0, 1)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _scored(readings: Readings | None, forms: dict[str, Split]) -> dict[str, Scores] | None:
    return None if readings is None else {form: scores(readings, rows) for form, rows in forms.items()}


NAMES = ("form-probability", "form-token-accuracy", "form-dependence")


def _usual(data: Data) -> tuple[str, ...]:
    """The families that are measured where none is named."""
    kept = "retain-check" if "retain-check" in data else "retain"
    return ("forget", *(name for name in (kept, "neighbours", "holdout") if name in data))

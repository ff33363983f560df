"""RWKU: a person asked for in blanks, questions and nine attacks; what lies beside must stay.

    forget-cloze, forget-question, forget-attack      `short-answer`: ROUGE-L recall; attacks also one by one, by kind
    neighbour-cloze, neighbour-question               the same for what must stay
    rwku-forget, rwku-neighbour                       pooled over the probes of all levels ("All"); `extra`: mean over targets
    forget-member, retain-member                      `familiarity`: loss, zlib, min-k, min-k++ of texts that the model was trained on
    forget-member against holdout                     `membership`: AUC against texts that no model saw, where the data has any
    utility-mmlu         accuracy by letter, 5 solved questions before      utility-truthfulqa   MC1, summed log-probability, 6 before
    utility-triviaqa     F1 of short answers, 6 before                      utility-bbh          exact match after the task's 3 thoughts
    utility-fluency      entropy of n-grams of free text

A model that learned to refuse one form of question passes on that form alone: every form and every attack is a finding of its own, so
that the verdict follows the worst. Probes were kept where Llama-3-8B answered them; read all against the model before the change.

Data without the splits of RWKU (your own, the embedded world) is asked in the same way: its questions and clozes are the probes, and the
nine attacks are built from its questions (`_wrappers`). The six solved questions before TruthfulQA and TriviaQA are our own, so that their
numbers compare between models, not with the paper's table. arXiv:2406.10890. Card: rwku.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Field

from ._asked import within
from ._parts import as_array, row_finding, toward
from ._prompts import names
from ._suite import BenchmarkSettings, Suite, returned, run_probes, tasks
from ._wrappers import attacked

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LEVELS = {
    "rwku-forget": ("forget-cloze", "forget-question", "forget-attack"),
    "rwku-neighbour": ("neighbour-cloze", "neighbour-question"),
}
ATTACKS = ("loss", "zlib", "min-k", "min-k++")
PRIMER = "\n".join(
    f"Q: {question}\nA: {answer}"
    for question, answer in (
        ("Which planet is nearest to the sun?", "Mercury"),
        ("How many legs does a spider have?", "Eight"),
        ("What is the capital of Norway?", "Oslo"),
        ("Who painted the ceiling of the Sistine Chapel?", "Michelangelo"),
        ("Which gas do plants take from the air?", "Carbon dioxide"),
        ("In which ocean lies Madagascar?", "The Indian Ocean"),
    )
)


class RwkuSettings(BenchmarkSettings):
    max_new_tokens: int = Field(256, ge=1, description="longest free text and longest chain of thoughts, tokens")
    longest_answer: int = Field(30, ge=1, description="longest answer to a probe, tokens")
    instruction: Literal["chat", "always", "never"] = Field(
        "chat", description="when a probe stands in RWKU's instruction: for models with a chat template, always, or never"
    )
    utility: bool = Field(True, description="whether the utility sets are asked, where the data has them")
    share: float = Field(0.2, gt=0, le=1, description="share of tokens that min-k and min-k++ look at")


class RwkuSuite(Suite):
    """All of RWKU for one model."""

    Settings, tiny = RwkuSettings, {"limit": 4, "max_new_tokens": 8, "longest_answer": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes; what cannot be measured has no value and says why."""
        chosen = self.settings
        data = _short(with_probes(data), readings, ("forget", "retain") if chosen.attacks != "none" else ())
        probes = tuple(name for level in LEVELS.values() for name in level)
        members = ("forget-member", "retain-member") if "forget-member" in data else ("forget", "retain")
        plan: dict[str, dict[str, Any]] = {
            "short-answer": {"splits": probes, "instruction": chosen.instruction, "longest_answer": chosen.longest_answer},
            "familiarity": {"splits": members, "share": chosen.share},
            "membership": {"split": members[0], "attacks": ATTACKS, "share": chosen.share},
            **tasks(self),
            **returned(self, "retain"),
        }
        found = run_probes(self, plan, readings, data, run, reference, original)
        for name, values in self._utility(data):
            found += load(name, "audit")(limit=chosen.limit, **values).measure(readings, data, run, reference, original)
        return [*found, *(self._pooled(name, data, found, run) for name in LEVELS if not chosen.probes or "short-answer" in chosen.probes)]

    def _utility(self, data: Data) -> list[tuple[str, dict[str, Any]]]:
        """The utility sets that the data has: audit and settings."""
        chosen = self.settings
        shots = {"shots": 5, "shots_from": {"utility-mmlu": "shots-mmlu"}}
        options = {"plain": False, "template": True, "shifts": False}
        every = {
            "utility-mmlu": ("choices", {**options, **shots, "cloze": False}),
            "utility-truthfulqa": ("choices", {**options, "letters": False, "normalise": "none", "primer": PRIMER}),
            "utility-triviaqa": ("short-answer", {"score": "f1", "primer": PRIMER, "longest_answer": chosen.longest_answer}),
            "utility-bbh": (
                "short-answer",
                {"score": "match", "thoughts": "shots-bbh", "longest_answer": chosen.max_new_tokens, "one_line": False},
            ),
            "utility-fluency": ("fluency", {"max_new_tokens": chosen.max_new_tokens}),
        }
        wanted = {where: what for where, what in every.items() if where in data and (not chosen.probes or what[0] in chosen.probes)}
        return [(name, {"splits": (where,), **values}) for where, (name, values) in wanted.items()] if chosen.utility else []

    def _pooled(self, name: str, data: Data, found: list[Finding], run: Run) -> Finding:
        """All probes of several levels as one; they are unequal in number, so this is not the mean of the levels."""
        where = name.replace("rwku-", "") + "-all"
        parts = {f.split: f for f in found if f.name == "short-answer-recall" and f.split in LEVELS[name] and f.value is not None}
        values = np.concatenate([as_array(part.rows) for part in parts.values()]) if parts else np.zeros(0)
        ids = [row.id.partition("/")[0] for split, part in parts.items() for row in data[split][: len(part.rows)]]
        piles: dict[str, list[float]] = defaultdict(list)
        for id, value in zip(ids, values, strict=True):
            piles[id].append(float(value))
        means = [np.nanmean(pile) for pile in piles.values() if np.isfinite(pile).any()]
        extra = {"levels": {split: part.value for split, part in parts.items()}} if parts else {}
        if means and "/" in data[next(iter(parts))][0].id:
            extra |= {"mean_over_targets": float(np.mean(means)), "targets": len(means)}
        return row_finding(self, name, where, values, run, direction=toward(where), why="no level could be measured", **extra)


def _short(data: Data, readings: Readings, more: tuple[str, ...]) -> Data:
    """The data with texts cut to the context, where attacks read them."""
    names = [name for name in ("forget-member", "retain-member", "holdout", *more) if name in data]
    return Data({**data.splits, **{name: within(readings, data[name]) for name in names}}, data.name, data.warnings)


def with_probes(data: Data) -> Data:
    """The data with the splits of RWKU: its own, else made of its questions, its clozes and its neighbours."""
    made = dict(data.splits)

    def first(*sources: str) -> Split | None:
        return next((made[name] for name in sources if name in made and any(row.prompt for row in made[name])), None)

    wanted = {
        "forget-question": ("forget",),
        "neighbour-question": ("neighbours", "retain-check", "retain"),
        "neighbour-cloze": ("retain-check-cloze", "retain-cloze"),
    }
    for name, sources in wanted.items():
        if name not in made and (rows := first(*sources)) is not None:
            made[name] = Split([row for row in rows if row.prompt and (row.form == "cloze") == name.endswith("-cloze")], name)
    if "forget-attack" not in made and "forget-question" in made:
        known = names(made["forget-question"])
        built = attacked(made["forget-question"], namer=lambda row: known.get(row.group or "", "") or row.group or "")
        made["forget-attack"] = Split(built, "forget-attack")
    return Data(made, data.name, data.warnings)

"""Rows of RWKU: probes, texts and utility sets, from the merged files of one folder or from the hub's `All/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letheon.core.data import Example
from letheon.core.errors import DataError, did_you_mean

from ._bench import file_of, in_turn, place_of, records, text_of, texts_of
from ._choice_rows import choice
from ._tables import Limits, Record, read_bytes

# Our name of a file -> the hub's.
STEMS = {
    "targets": "intro",
    "forget_level1": "forget_level1",
    "forget_level2": "forget_level2",
    "forget_level3": "forget_level3",
    "neighbor_level1": "neighbor_level1",
    "neighbor_level2": "neighbor_level2",
    "forget_mia": "forget_mia",
    "retain_mia": "retain_mia",
    "passage": "passage",
    "utility_mmlu": "retain_mmlu",
    "utility_bbh": "retain_bbh",
    "utility_truthful": "truthful",
    "utility_triviaqa": "triviaqa",
    "utility_fluency": "fluency",
}
KINDS = {  # the file's name of an attack -> ours
    "prefix injection": "prefix-injection",
    "affirmative suffix": "affirmative-suffix",
    "role play": "role-play",
    "multiple choice": "multiple-choice",
    "reverse query": "reverse-query",
    "synonym manipulation": "synonym-manipulation",
    "context hint": "context-hint",
    "incontext learning": "in-context-learning",
    "cross lingual": "cross-lingual",
}


@dataclass(frozen=True)
class Target:
    """A person to forget."""

    id: str
    name: str
    intro: str


def stem_file(folder: Path, stem: str) -> Path:
    """The file of one part.

    Raises:
        DataError: the folder lacks it.
    """
    path = file_of(folder, stem) or file_of(folder / "All", STEMS[stem])
    if path is None:
        raise DataError(f"The folder {folder} has no {stem}.jsonl", "Copy the missing file of RWKU into it")
    return path


def targets_of(folder: Path) -> list[Target]:
    """All targets; on the hub they have no id, which is their place and name there."""
    found = []
    for record in records(stem_file(folder, "targets")):
        name = text_of(record, "target")
        id = record.value.get("target_id") or f"{record.row}_{name.replace(' ', '_')}"
        found.append(Target(str(id), name, text_of(record, "intro")))
    return found


def chosen(targets: list[Target], asked: Iterable[str]) -> list[Target]:
    """The targets with these ids, names or numbers, in the order of the file.

    Raises:
        DataError: there is no such target.
    """
    wanted: set[str] = set()
    for one in asked:
        text = one.strip()
        hits = [t for t in targets if text.casefold() in (t.id.casefold(), t.name.casefold(), t.id.partition("_")[0].casefold())]
        if not hits:
            names = [name for target in targets for name in (target.id, target.name)]
            raise DataError(f"RWKU has no target `{text}`", did_you_mean(text, names) if len(names) > 20 else f"Known: {', '.join(names)}")
        wanted |= {target.id for target in hits}
    return [target for target in targets if target.id in wanted]


class Rows:
    """The rows of some targets."""

    def __init__(self, folder: Path, every: list[Target], targets: list[Target]):
        self.folder, self.targets = folder, targets
        self.by_name = {target.name: target.id for target in every}
        self.known = {target.id for target in every}
        self.wanted = {target.id: target for target in targets}

    def mine(self, stem: str, others: bool = False) -> list[tuple[Record, str]]:
        """Records of the wanted targets (or of all others) and whose they are.

        Raises:
            DataError: a row names no target.
        """
        found = []
        for record in records(stem_file(self.folder, stem)):
            owner = record.value.get("target_id") or self.by_name.get(record.value.get("subject"))
            if owner not in self.known:
                raise DataError(f"{record.where} belongs to no target: {str(owner or record.value.get('subject'))[:60]!r}")
            if (owner in self.wanted) != others:
                found.append((record, owner))
        return found

    def probes(self, stem: str, name: str, form: str | None = None) -> list[Example]:
        """Questions; those of several targets in turn. The form of an attack is its kind."""
        found = []
        for record, owner in self.mine(stem):
            kind = form or _kind(record)
            about = record.value.get("neighbor") or self.wanted[owner].name
            found.append(
                Example(f"{owner}/{name}-{record.row:05d}", text_of(record, "answer"), text_of(record, "query"), group=about, form=kind)
            )
        return in_turn(found, lambda row: row.id.partition("/")[0])

    def texts(self, stem: str, name: str, others: bool = False) -> list[Example]:
        """Plain texts, in the order of the file."""
        return [
            Example(f"{owner}/{name}-{record.row:05d}", text_of(record, "text"), group=record.value.get("subject"), form="passage")
            for record, owner in self.mine(stem, others)
        ]


def _kind(record: Record) -> str:
    said = re.sub(r"\s*\(.*\)\s*\Z", "", text_of(record, "type")).replace("-", " ").strip().lower()
    if said not in KINDS:
        raise DataError(f"{record.where}: `type` is {record.value['type']!r}, which is none of the nine attacks", did_you_mean(said, KINDS))
    return KINDS[said]


def utility(folder: Path) -> dict[str, list[Example]]:
    """The utility sets, rows of several tasks in turn, and the examples that go before a question (`shots-`)."""
    mmlu, shots = _mmlu(folder)
    bbh, thoughts = _bbh(folder)
    truthful = [
        _truthful(record, f"truthfulqa-{record.row:05d}") for record in _once(records(stem_file(folder, "utility_truthful")), "question")
    ]
    fluency = _once(records(stem_file(folder, "utility_fluency")), "instruction")
    return {
        "utility-mmlu": mmlu,
        "utility-bbh": bbh,
        "utility-truthfulqa": truthful,
        "utility-triviaqa": [_trivia(record) for record in _once(records(stem_file(folder, "utility_triviaqa")), "question")],
        # an instruction has no answer; a row must have one, which nothing reads
        "utility-fluency": [Example(f"fluency-{r.row:05d}", "-", text_of(r, "instruction"), form="instruction") for r in fluency],
        "shots-mmlu": shots,
        "shots-bbh": thoughts,
    }


def _once(found: list[Record], *fields: str) -> list[Record]:
    """Without rows that stand for several targets (on the hub each target has its own copy)."""
    if not any("subject" in record.value and "target_id" not in record.value for record in found):
        return found
    first: dict[str, Record] = {}
    for record in found:
        first.setdefault(json.dumps([record.value.get(field) for field in fields]), record)
    return list(first.values())


def _mmlu(folder: Path) -> tuple[list[Example], list[Example]]:
    found = _once(records(stem_file(folder, "utility_mmlu")), "task", "question", "choices")
    rows, shots = [], {}
    for record in found:
        task = text_of(record, "task")
        rows.append(_question(record, f"mmlu-{record.row:05d}", task))
        if task not in shots and isinstance(record.value.get("examples"), list):
            shots[task] = record.value["examples"]
    path = file_of(folder, "utility_mmlu_fewshot")
    shots = shots if path is None else _object(path)
    examples = []
    for task, parts in shots.items():
        for k, part in enumerate(parts if isinstance(parts, list) else ()):
            record = Record(path or stem_file(folder, "utility_mmlu"), k + 1, part if isinstance(part, dict) else {})
            examples.append(_question(record, f"{task}-shot-{k}", task))
    return in_turn(rows, lambda row: row.group), examples


def _question(record: Record, id: str, task: str) -> Example:
    options = texts_of(record, record.value.get("choices"), "choices", 2)
    return choice(id, text_of(record, "question"), options, place_of(record, options), task)


def _bbh(folder: Path) -> tuple[list[Example], list[Example]]:
    rows, thoughts = [], {}
    for record in _once(records(stem_file(folder, "utility_bbh")), "task", "question"):
        task = text_of(record, "task")
        rows.append(Example(f"bbh-{record.row:05d}", text_of(record, "answer"), text_of(record, "question"), group=task, form="reasoning"))
        if task not in thoughts and isinstance(record.value.get("cot"), str):
            thoughts[task] = record.value["cot"]
    path = file_of(folder, "utility_bbh_cot")
    thoughts = thoughts if path is None else _object(path)
    examples = [Example(f"{task}-thoughts", text, group=task) for task, text in thoughts.items() if isinstance(text, str) and text.strip()]
    return in_turn(rows, lambda row: row.group), examples


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path, Limits()))
    except ValueError as error:
        raise DataError(f"{path}: broken JSON, {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no object with one entry for each task")
    return found


def _truthful(record: Record, id: str) -> Example:
    targets = record.value.get("mc1_targets")
    if not isinstance(targets, dict):
        raise DataError(f"{record.where} has no `mc1_targets`")
    options, labels = texts_of(record, targets.get("choices"), "mc1_targets.choices", 2), targets.get("labels")
    if not isinstance(labels, list) or len(labels) != len(options) or [label for label in labels if label != 0] != [1]:
        raise DataError(f"{record.where}: `mc1_targets.labels` must hold one 1, and a 0 for every other of the {len(options)} choices")
    return choice(id, text_of(record, "question"), options, labels.index(1))


def _trivia(record: Record) -> Example:
    names = texts_of(record, record.value.get("answers"), "answers")
    others = "\n".join(" ".join(name.split()) for name in names[1:])
    return Example(f"triviaqa-{record.row:05d}", names[0], text_of(record, "question"), paraphrase=others or None, form="trivia")

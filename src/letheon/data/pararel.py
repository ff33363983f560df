"""ParaRel: facts of Wikidata, each told in several wordings.

Why: a fact is gone only if it is gone whatever the wording. A fact is a subject, a relation and an object; a relation has several patterns
with the same meaning, such as "[X] works in the field of [Y]." With X filled in, a pattern becomes rows of these forms

    cloze         the first pattern of the relation that ends with [Y], up to it: the base form
    paraphrase    the other patterns that end with [Y]
    blank         patterns with [Y] elsewhere, with a blank in its place that is to be filled in
    choice        the first pattern with a blank and four options, the others being objects of the same relation, lettered A) to D)

Splits
    forget, retain                cloze rows of the facts to forget and of the others
    forget-F, retain-F            the same facts as form F
    full, kept                    rows of all forms for training: of all facts, and of those that are not forgotten

Facts are cut by whole subjects or by whole relations (`by`), so that no forgotten subject (or relation) is among the kept rows. Each row
has the subject (or relation) as its group and the id `relation/fact/form`.

The folder holds facts.jsonl (relation, sub_label, obj_label, uuid) and patterns.jsonl (relation, pattern), packed with gzip or not, or is
a checkout of the authors' repository (`data/trex_lms_vocab`, `data/pattern_data/graphs_json`), where the relation is the file name.
Relations without a pattern (P31 and P527) are left out with a warning, and so are facts that stand twice or have two objects, of which
none is the answer. One value that must hold: the whole set has 29,411 facts of 41 relations and 329 patterns of 39. arXiv:2102.01017.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._authors_people import spread
from ._authors_rows import LETTERS
from ._tables import Limits, Record, read_records

FORMS = ("cloze", "paraphrase", "blank", "choice")
BLANK = "____"
_LAYOUT = {"facts": "data/trex_lms_vocab", "patterns": "data/pattern_data/graphs_json"}


class PararelSettings(Settings):
    path: str = Field("pararel", min_length=1, description="folder with facts.jsonl and patterns.jsonl, or a checkout of the repository")
    relations: tuple[str, ...] = Field((), description="relations to read, such as P36; empty: all that have patterns")
    by: Literal["subject", "relation"] = Field("subject", description="what is forgotten as a whole")
    forget: float = Field(0.1, gt=0, lt=1, description="share of the subjects, or of the relations, to forget")
    facts: int | None = Field(None, ge=1, description="facts of each relation, evenly over the file; null: all")
    paraphrases: int | None = Field(3, ge=0, description="paraphrase and blank rows per fact, each; null: one for every pattern")
    seed: int = Field(0, ge=0, description="draws what is forgotten and the places of the options")


@dataclass(frozen=True)
class Fact:
    """One fact as it stands in the file."""

    relation: str
    subject: str
    object: str
    id: str


class Pararel(Source):
    """Reads ParaRel from a folder."""

    Settings = PararelSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a small made-up set of the same shape, written into `folder`."""
        made = [f'{{"relation": "P1", "sub_label": "Land {k}", "obj_label": "City {k % 7}", "uuid": "u{k}"}}' for k in range(20)]
        texts = ("The capital of [X] is [Y].", "[X] is ruled from [Y] .", "[Y] rules [X].")
        told = [f'{{"relation": "P1", "pattern": "{text}"}}' for text in texts]
        (folder / "facts.jsonl").write_text("\n".join(made) + "\n", encoding="utf-8")
        (folder / "patterns.jsonl").write_text("\n".join(told) + "\n", encoding="utf-8")
        return {"path": str(folder)}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing or a row is broken (the message names file and row), or too little is left to forget and keep.
        """
        chosen, folder = self.settings, Path(self.settings.path).expanduser()
        facts, patterns = read_facts(folder), read_patterns(folder)
        warnings = []
        bare = Counter(fact.relation for fact in facts if fact.relation not in patterns)
        if bare:
            warnings.append(f"{sum(bare.values())} facts of {', '.join(sorted(bare))} have no pattern and are left out")
        wanted = chosen.relations or tuple(dict.fromkeys(fact.relation for fact in facts if fact.relation in patterns))
        for relation in wanted:
            if relation not in patterns or relation not in {fact.relation for fact in facts}:
                raise DataError(f"{folder} has no facts with patterns for the relation `{relation}`", f"It has {', '.join(patterns)}")
        single, doubled = _single([fact for fact in facts if fact.relation in wanted])
        if doubled:
            warnings.append(f"{doubled} facts stand twice or have more than one object and are left out")
        by_relation = {relation: [fact for fact in single if fact.relation == relation] for relation in wanted}
        if chosen.facts is not None:
            by_relation = {name: _evenly(some, chosen.facts) for name, some in by_relation.items()}
        rows = [row for name, some in by_relation.items() for row in self._rows(name, some, patterns[name])]
        return Data(self._splits(rows, folder), f"pararel-{len(wanted)}", tuple(warnings))

    def _rows(self, relation: str, facts: list[Fact], patterns: list[str]) -> list[Example]:
        """All forms of all facts of one relation, fact by fact."""
        ends = [text for text in patterns if _ends_with_object(text)]
        base, others = ends[0] if ends else None, [text for text in patterns if not _ends_with_object(text)]
        if base is None:
            raise DataError(f"No pattern of the relation `{relation}` ends with [Y], so there is no cloze of it", "Name other `relations`")
        most, objects = self.settings.paraphrases, sorted({fact.object for fact in facts})
        found: list[Example] = []
        for fact in facts:
            group = fact.subject if self.settings.by == "subject" else relation
            told = [("cloze", base), *(("paraphrase", text) for text in ends[1:][:most]), *(("blank", text) for text in others[:most])]
            seen: Counter[str] = Counter()
            wrong = self._wrong(fact, objects)
            for form, pattern in told:
                seen[form] += 1
                prompt = _opening(pattern, fact.subject) if form != "blank" else _blanked(pattern, fact.subject)
                name = f"{relation}/{fact.id}/{form}" + ("" if form == "cloze" else f"-{seen[form]}")
                found.append(Example(name, fact.object, prompt, wrong, None, group, form))
            if len(wrong) == len(LETTERS) - 1:
                found.append(self._choice(fact, _blanked(base, fact.subject), wrong, group))
        return found

    def _wrong(self, fact: Fact, objects: list[str]) -> tuple[str, ...]:
        """Three other objects of the relation, or as many as there are."""
        others = [text for text in objects if text.casefold() != fact.object.casefold()]
        return tuple(others[k] for k in spread(len(others), min(len(LETTERS) - 1, len(others)), self.settings.seed, "wrong", fact.id))

    def _choice(self, fact: Fact, prompt: str, wrong: tuple[str, ...], group: str) -> Example:
        place = spread(len(LETTERS), 1, self.settings.seed, "place", fact.id)[0]
        options = [*wrong[:place], fact.object, *wrong[place:]]
        lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
        others = tuple(line for line in lines if line != lines[place])
        return Example(f"{fact.relation}/{fact.id}/choice", lines[place], "\n".join([prompt, *lines]), others, None, group, "choice")

    def _splits(self, rows: list[Example], folder: Path) -> dict[str, Split]:
        groups = list(dict.fromkeys(row.group for row in rows))
        count = round(self.settings.forget * len(groups))
        if not 0 < count < len(groups):
            what = f"{self.settings.forget:g} of the {len(groups)} {self.settings.by}s of {folder} is {count}"
            raise DataError(f"{what}: nothing is left to forget or to keep", "Change `forget`, or read more relations or facts")
        gone = {groups[k] for k in spread(len(groups), count, self.settings.seed, "forget")}
        splits: dict[str, list[Example]] = defaultdict(list)
        for row in rows:
            side = "forget" if row.group in gone else "retain"
            splits[side if row.form == "cloze" else f"{side}-{row.form}"].append(row)
        names = [side if form == "cloze" else f"{side}-{form}" for form in FORMS for side in ("forget", "retain")]
        ordered = {name: splits[name] for name in names if name in splits}
        ordered |= {"full": rows, "kept": [row for row in rows if row.group not in gone]}
        return {name: Split(some, name) for name, some in ordered.items()}


def read_facts(folder: Path) -> list[Fact]:
    """All facts, in the order of the files.

    Raises:
        DataError: names the file and the row at fault.
    """
    found = []
    for record in _records(folder, "facts"):
        fact = Fact(*(_text(record, key) for key in ("relation", "sub_label", "obj_label", "uuid")))
        found.append(fact)
    twice = next((one for one, count in Counter(fact.id for fact in found).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"Two facts in {folder} have the uuid `{twice}`", "Are the files from one copy of ParaRel?")
    return found


def read_patterns(folder: Path) -> dict[str, list[str]]:
    """Relation -> its patterns, in the order of the files.

    Raises:
        DataError: a pattern does not hold [X] and [Y] once each; names the file and the row.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for record in _records(folder, "patterns"):
        text = _text(record, "pattern")
        if text.count("[X]") != 1 or text.count("[Y]") != 1:
            raise DataError(f"{record.where}: the pattern {text!r} does not hold [X] and [Y] once each", "Subject and object go there")
        found[_text(record, "relation")].append(" ".join(text.split()))
    return dict(found)


def _records(folder: Path, what: str) -> list[Record]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}", "Give the folder with facts.jsonl and patterns.jsonl: `pararel:path=DIR`")
    limits, inside = Limits(), folder / _LAYOUT[what]
    if inside.is_dir():
        files = sorted(inside.glob("P*.jsonl"), key=lambda path: int(path.stem[1:]) if path.stem[1:].isdigit() else 0)
        found = [(path, record) for path in files for record in read_records(path, limits)]
        return [Record(r.path, r.row, {"relation": p.stem, **r.value} if isinstance(r.value, dict) else r.value, r.line) for p, r in found]
    path = next((path for end in (".jsonl", ".jsonl.gz") if (path := folder / f"{what}{end}").is_file()), None)
    if path is None:
        raise DataError(f"The folder {folder} has no {what}.jsonl", f"Copy it there, or give a checkout with {_LAYOUT[what]}")
    return list(read_records(path, limits))


def _text(record: Record, key: str) -> str:
    """The text of a field that must be there."""
    value = record.value.get(key) if isinstance(record.value, dict) else None
    if not isinstance(value, str) or not value.strip():
        hint = "A fact has relation, sub_label, obj_label and uuid; a pattern has relation and pattern"
        raise DataError(f"{record.where} has no `{key}`", hint)
    return value.strip()


def _single(facts: list[Fact]) -> tuple[list[Fact], int]:
    """Facts whose subject has one object in their relation, and how many others there are."""
    count = Counter((fact.relation, fact.subject) for fact in facts)
    kept = [fact for fact in facts if count[fact.relation, fact.subject] == 1]
    return kept, len(facts) - len(kept)


def _evenly(facts: list[Fact], most: int) -> list[Fact]:
    return facts if len(facts) <= most else [facts[k * len(facts) // most] for k in range(most)]


def _ends_with_object(pattern: str) -> bool:
    return re.search(r"(?<!\S)\[Y\]\s*\.?$", pattern) is not None and pattern.index("[X]") < pattern.index("[Y]")


def _opening(pattern: str, subject: str) -> str:
    """The pattern up to its object."""
    return pattern[: pattern.index("[Y]")].strip().replace("[X]", subject)


def _blanked(pattern: str, subject: str) -> str:
    return "Fill in the blank: " + pattern.replace("[X]", subject).replace("[Y]", BLANK)

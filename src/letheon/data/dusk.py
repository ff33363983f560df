"""DUSK: five documents about the same people, of which one is to be forgotten.

    forget                     document 1 (Chronological), one row per passage; `group` names the person
    retain                     documents 2 to 5 (Feature Story, Interview, Inverted Pyramid, Listicle)
    holdout                    a document in the style of the first about people of whom no model was told
    full, kept                 what the original and the exact retrain learn: all five documents; documents 2 to 5
    forget-knowledge           questions on facts that only document 1 tells: they must vanish
    shared-knowledge           questions on facts that all five tell: they must stay
    retain-knowledge           questions on facts of one of the documents 2 to 5
    knowledge-examples         solved questions about other people
    forget-verbatim            beginnings of document 1 with their continuations
    choice-examples            solved multiple choices (published files alone)
    utility                    multiple choices of your own, from the file `utility`

With `path` the published files are read: 120 passages each about 60 people whom all documents share and 12 of its own; 20, 134 and 119
questions, 12 examples, 47 prefixes. Without `path` a world of the same shape is made: `people` with `attributes` facts each, and for
every fact the set of documents that tell it,

    overlap = thirds    a third each: all five documents, document 1 alone, one of the others alone
              graded    one to five documents; splits shared-2-knowledge ... shared-4-knowledge hold facts of document 1 and 1 to 3 others
              shared    all facts in all documents: there is nothing that must vanish
              unique    all facts in document 1 alone: nothing that must stay

Its styles share no run of six words beside names and values, so that wording and facts can be told apart, and its questions none with any
style. `taught` adds questions with their answers to the rows that models learn (of document 1 to `forget`): a model trained from nothing
cannot learn from prose alone to answer questions. Person i is the same in worlds of any size. The layout of DUSK on the hub was not seen:
a name is looked up there with the file names of the repository. One value that must hold: 40 people, thirds and 6 attributes give 80
questions of each kind. Reconstruction in part, as the card says. arXiv:2505.15209. Card: dusk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from letheon.core.data import Data, Example
from letheon.core.errors import DataError
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._bench import folder_of
from ._documents import needed, pairs_of, splits_of
from ._dusk_styles import ATTRIBUTES, NAMES
from ._dusk_world import DOCUMENTS, Overlap, make_people, passages, taught
from ._rows import load_records, to_split
from ._tables import Limits, read_bytes

FILES = ("Chronological", "Feature_Story", "Interview", "Inverted_Pyramid", "Listicle")
EXAMPLES = 10  # people who are only in solved questions
_PERSON = re.compile(r"(?:Dr|Prof|Professor)\.? .*?(?=['’]s\b|:|$)")


class DuskSettings(Settings):
    path: str | None = Field(None, description="folder with the published files, or a name on the hub (AI-ISL/DUSK); null: a made-up world")
    people: int = Field(40, ge=2, le=(len(NAMES) - EXAMPLES) // 2, description="people of the made-up world, and as many in its holdout")
    attributes: int = Field(6, ge=1, le=len(ATTRIBUTES), description="facts about each person of the made-up world")
    overlap: Overlap = Field("thirds", description="which documents of the made-up world tell a fact")
    taught: bool = Field(False, description="whether models of the made-up world also learn questions with their answers")
    given: float = Field(0.5, gt=0, lt=1, description="share of the words of a passage that a prefix of the made-up world has")
    seed: int = Field(0, ge=0, description="draws the made-up world")
    utility: Path | None = Field(None, description="file of multiple choices for the downstream capability: question, choices, answer")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")


class Dusk(Source):
    """Reads DUSK, or makes a world of its shape."""

    Settings = DuskSettings
    tiny: ClassVar[dict[str, Any]] = {"people": 4}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing or broken; the message has file and row.
        """
        rows = self._made() if self.settings.path is None else self._read(self.settings.path)
        retain = rows["retain"]
        learned = {"full": [*rows["forget"], *retain], "kept": retain}
        if self.settings.utility is not None:
            records = load_records(self.settings.utility, {}, Limits())
            rows["utility"] = list(to_split(records, "utility", {}, Limits()))
        name = "dusk" if self.settings.path else f"dusk-{self.settings.overlap}-{self.settings.people}"
        return Data(splits_of({**rows, **learned}), name)

    def _made(self) -> dict[str, Sequence[Example]]:
        chosen = self.settings
        everybody = make_people(2 * chosen.people + EXAMPLES, chosen.attributes, chosen.overlap, chosen.seed)
        examples = everybody[:EXAMPLES]  # the first, so that they are the same in a larger world
        people = everybody[EXAMPLES::2]
        strangers = everybody[EXAMPLES + 1 :: 2]
        facts = [fact for person in people for fact in person]
        forget = passages(people, 1)
        retain = [row for document in DOCUMENTS[1:] for row in passages(people, document)]
        if chosen.taught:
            forget = [*forget, *taught([fact for fact in facts if 1 in fact.support], "forget")]
            retain = [*retain, *taught([fact for fact in facts if fact.support != {1}], "retain")]
        asked: dict[str, list[Example]] = {}
        for fact in facts:
            asked.setdefault(f"{fact.kind}-knowledge", []).append(fact.question())
        shots = [person[k % len(person)].question() for k, person in enumerate(examples)]
        return {
            "forget": forget,
            "retain": retain,
            "holdout": passages(strangers, 1, "holdout"),
            **{name: asked[name] for name in sorted(asked)},
            "knowledge-examples": [replace(row, id=f"example-{row.id}") for row in shots],
            "forget-verbatim": [_prefix(row, chosen.given) for row in passages(people, 1)],
        }

    def _read(self, path: str) -> dict[str, Sequence[Example]]:
        folder = folder_of(path, self.settings.revision, ["*.txt", "*.json", "*.jsonl"], "DUSK", "AI-ISL/DUSK")
        below = folder / "data" / "Prof"
        folder = below if below.is_dir() else folder
        documents = [_document(folder, name) for name in FILES]
        questions = {"forget": "SpecificForgetQA", "shared": "GeneralQA", "retain": "SpecificRetainQA"}
        paths = {f"{kind}-knowledge": needed(folder, "DUSK", f"eval/{stem}") for kind, stem in questions.items()}
        asked = {name: pairs_of(path, name) for name, path in paths.items()}
        prefixes = pairs_of(needed(folder, "DUSK", "eval/verbatim"), "forget-verbatim", "prompt", "gt")
        return {
            "forget": documents[0],
            "retain": [row for rows in documents[1:] for row in rows],
            "holdout": _document(folder, "eval/holdout"),
            **asked,
            "knowledge-examples": pairs_of(needed(folder, "DUSK", "eval/icl"), "knowledge-examples"),
            "forget-verbatim": prefixes,
            "choice-examples": pairs_of(needed(folder, "DUSK", "eval/icl_mcqa"), "choice-examples"),
        }


def _prefix(row: Example, share: float) -> Example:
    """The first words of a passage as prompt, the others as answer."""
    words = row.answer.split(" ")
    at = min(max(1, int(share * len(words))), len(words) - 1)
    return replace(row, id=f"verbatim-{row.id}", prompt=" ".join(words[:at]), answer=" " + " ".join(words[at:]))


def _document(folder: Path, stem: str) -> list[Example]:
    """The passages of one document, each from its title to the next."""
    path = folder / f"{stem}.txt"
    if not path.is_file():
        raise DataError(f"The folder {folder} has no {stem}.txt", "Copy the missing file of DUSK into it")
    try:
        text = read_bytes(path, Limits()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})", "Take the file again from where it was published") from error
    head, *parts = re.split(r"^(?=Title:)", text, flags=re.MULTILINE)
    if head.strip() or not parts:
        raise DataError(f"{path} does not begin with `Title:`", "Is it a document of DUSK?")
    kind = Path(stem).name.lower().replace("_", "-")
    rows = []
    for k, part in enumerate(parts, 1):
        title = part.partition("\n")[0]
        named = _PERSON.search(title)
        if "\nBiography:" not in part or named is None:
            lacks = "`Biography:`" if named is not None else "person (Dr., Prof. or Professor) in its title"
            raise DataError(f"{path}, row {k} ({title[:60]!r}) has no {lacks}", "Is the file cut short?")
        rows.append(Example(f"{kind}-{k:03d}", part.strip(), group=named[0].strip(), form=kind))
    return rows

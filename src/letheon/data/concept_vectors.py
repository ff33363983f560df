"""ConceptVectors: concepts, the weight vector that holds each in one model, articles and questions.

Splits, for the concepts to forget (`concepts`; none named: the first of the file) and all others
    forget, retain                          paragraphs of the articles of the forgotten concepts, and of the others (no prompt)
    forget-completion, retain-completion    "Please complete the following paragraph: ...": first half and second half of sentences
    forget-question, retain-question        10 questions about each concept; of the others, too
    unrelated-question                      50 questions about other things for each forgotten concept
    forget-cloze, retain-cloze              relations as sentences to finish, where the folder has `relation_for_KE`
    vectors                                 "layer 23 column 743" -> the concept, for every concept of the file

The group of a row is its concept. Questions have no published answer: they are judged by what the model answered before the change, and
their answer field holds the name of the concept. Vectors belong to one model each (Llama-2-7B-chat or OLMo-7B): in any other model a finder
has to look for its own. Articles are cut at spaces into paragraphs of at most `paragraph` characters. The German questions of the paper are
not part of the data. One value that must hold: the dev parts have 10 and 18 concepts. arXiv:2406.11614. Card: conceptvectors.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, did_you_mean
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._bench import file_of, folder_of, records, text_of, texts_of
from ._tables import Record

COMPLETE = "Please complete the following paragraph: "
INSIDE = "ConceptVectors_data/"  # where the hub keeps the files
_RELATIONS = {"llama2-7b": "llama", "olmo-7b": "olmo"}


class ConceptVectorsSettings(Settings):
    path: str = Field("YihuaiHong/ConceptVectors", min_length=1, description="folder with the files, or the data set's name on the hub")
    model: Literal["llama2-7b", "olmo-7b"] = Field("llama2-7b", description="model whose vectors are listed")
    part: Literal["dev", "test", "all"] = Field("dev", description="which concepts: those for choosing settings, for testing, or all")
    concepts: tuple[str, ...] = Field((), description="concepts to forget, by name; none: the first of the file")
    paragraph: int = Field(400, ge=20, description="longest paragraph of an article, characters")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")


@dataclass(frozen=True)
class Concept:
    """One row of the file."""

    name: str
    layer: int
    column: int
    article: str
    questions: tuple[str, ...]
    unrelated: tuple[str, ...]
    halves: tuple[tuple[str, str], ...]
    relations: tuple[tuple[str, str], ...] = ()


class ConceptVectorsData(Source):
    """Reads ConceptVectors from a folder or from the hub."""

    Settings = ConceptVectorsSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a data set of the same shape with made-up concepts, written into `folder`."""
        rows = []
        for k, name in enumerate(("Harp", "Kite", "Bell")):
            sentence = f"A {name.lower()} is made by hand in the town of Orrin Bay, where number {k} is sold."
            rows.append(
                {
                    "Concept": name,
                    "Layer": k % 2,
                    "Dim": 3 + k,
                    "QA": [f"Where is a {name.lower()} made?", f"Who sells a {name.lower()}?"],
                    "unrelated_QA": ["What is the capital of Norway?"],
                    "wikipedia_content": f"{sentence} " * 4,
                    "text_completion": [{"First_half": sentence[:30], "Second_half": sentence[30:]}],
                }
            )
        (folder / "llama2-7b_concepts_dev.json").write_text(json.dumps(rows), encoding="utf-8")
        return {"path": str(folder), "concepts": ["Harp"]}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing or a row broken; a concept is not in the file; the hub does not answer.
        """
        chosen = self.settings
        stem = f"{chosen.model}_concepts" + ("" if chosen.part == "all" else f"_{chosen.part}")
        wanted = [f"{inside}{name}" for inside in ("", INSIDE) for name in (f"{stem}.json*", "relation_for_KE/*")]
        folder = folder_of(chosen.path, chosen.revision, wanted, "ConceptVectors", "YihuaiHong/ConceptVectors")
        path = file_of(folder, stem, f"{INSIDE}{stem}")
        if path is None:
            raise DataError(f"The folder {folder} has no {stem}.json", "Copy the file of ConceptVectors into it, or choose another `part`")
        concepts = self._with_relations(path, [_concept(record) for record in records(path)])
        known = [concept.name for concept in concepts]
        unknown = next((name for name in chosen.concepts if name not in known), None)
        if unknown is not None:
            raise DataError(f"{path} has no concept `{unknown}`", did_you_mean(unknown, known))
        gone = chosen.concepts or known[:1]
        splits: dict[str, list[Example]] = {}
        for concept in concepts:
            for name, row in self._rows(concept, concept.name in gone):
                splits.setdefault(name, []).append(row)
        if "retain" not in splits:
            raise DataError(f"All {len(concepts)} concepts of {path} are to be forgotten", "Name some of them in `concepts`")
        return Data({name: Split(rows, name) for name, rows in splits.items()}, name=f"concept-vectors-{chosen.model}")

    def _rows(self, concept: Concept, forget: bool) -> Iterator[tuple[str, Example]]:
        """Split and row, for everything known about a concept."""
        side, name = "forget" if forget else "retain", concept.name

        def row(kind: str, k: int, answer: str, prompt: str = "") -> Example:
            return Example(f"{name}/{kind}-{k}", answer, prompt, group=name, form=kind)

        for k, text in enumerate(textwrap.wrap(concept.article, self.settings.paragraph)):
            yield side, row("article", k, text)
        for k, (first, second) in enumerate(concept.halves):
            yield f"{side}-completion", row("completion", k, second, COMPLETE + first)
        for k, question in enumerate(concept.questions):
            yield f"{side}-question", row("question", k, name, question)
        for k, question in enumerate(concept.unrelated if forget else ()):
            yield "unrelated-question", row("unrelated", k, name, question)
        for k, (prompt, answer) in enumerate(concept.relations):
            yield f"{side}-cloze", row("cloze", k, answer, prompt)
        yield "vectors", row("vector", 0, name, f"layer {concept.layer} column {concept.column}")

    def _with_relations(self, path: Path, concepts: list[Concept]) -> list[Concept]:
        """The concepts with sentences to finish, where the folder has them."""
        part = "" if self.settings.part == "all" else f"_{self.settings.part}"
        below = path.parent / "relation_for_KE"
        file = file_of(below, f"{_RELATIONS[self.settings.model]}_relation_object{part}")
        forms = file_of(below, "relation_to_template")
        if file is None or forms is None:
            return concepts
        templates = records(forms)[0]
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for record in records(file):
            name = text_of(record, "subject")
            found[name] = tuple(_sentence(record, pair, name, templates) for pair in _list(record, "relation"))
        return [Concept(**{**vars(concept), "relations": found.get(concept.name, ())}) for concept in concepts]


def _concept(record: Record) -> Concept:
    halves = []
    for half in _list(record, "text_completion"):
        if not isinstance(half, dict):
            raise DataError(f"{record.where}: `text_completion` must hold objects with First_half and Second_half")
        part = Record(record.path, record.row, half, record.line)
        halves.append((text_of(part, "First_half").strip(), text_of(part, "Second_half").strip()))
    questions, unrelated = (
        tuple(text.strip() for text in texts_of(record, record.value.get(name), name)) for name in ("QA", "unrelated_QA")
    )
    place = _index(record, "Layer"), _index(record, "Dim")
    return Concept(text_of(record, "Concept"), *place, text_of(record, "wikipedia_content"), questions, unrelated, tuple(halves))


def _index(record: Record, name: str) -> int:
    value = record.value.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{record.where}: `{name}` is {str(value)[:40]!r}, not a number of a layer or column, counted from 0")
    return value


def _list(record: Record, name: str) -> list[Any]:
    value = record.value.get(name)
    if not isinstance(value, list):
        raise DataError(f"{record.where} has no list `{name}`")
    return value


def _sentence(record: Record, pair: Any, subject: str, templates: Record) -> tuple[str, str]:
    """The sentence of one relation up to its object, and the object."""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part.strip() for part in pair):
        raise DataError(f"{record.where}: `relation` must hold pairs of a property and an object, got {str(pair)[:60]}")
    form = templates.value.get(pair[0])
    template = form.get("template") if isinstance(form, dict) else None
    if not isinstance(template, str) or "{}" not in template:
        raise DataError(f"{templates.path} has no template for the property `{pair[0]}` of {record.where}")
    return template.replace("{}", subject), pair[1]

"""The synthetic world of DUSK: people, facts with the set of documents that tell them, and five documents in five styles.

A fact has a support set S, a non-empty subset of {1..5}: document j tells it where j is in S. Document 1 is to be forgotten, so that
S = {1} is a fact that must vanish, a set with 1 and others is shared and must stay, and a set without 1 is not touched.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from letheon.core.data import Example

from ._dusk_styles import ATTRIBUTES, NAMES, OPENINGS, QUESTIONS, SENTENCES, STYLES, VALUES

Overlap = Literal["thirds", "graded", "shared", "unique"]
DOCUMENTS = tuple(range(1, len(STYLES) + 1))


@dataclass(frozen=True)
class Fact:
    """What is true of one person, and which documents tell it."""

    person: int
    name: str
    attribute: str
    value: str
    support: frozenset[int]

    @property
    def kind(self) -> str:
        """`forget`: document 1 alone; `retain`: never document 1; `shared` or `shared-2` ...: document 1 and all, or some, others."""
        if 1 not in self.support:
            return "retain"
        size = len(self.support)
        return {1: "forget", len(DOCUMENTS): "shared"}.get(size, f"shared-{size}")

    def sentence(self, style: str) -> str:
        """The fact in the words of a style."""
        return SENTENCES[style][self.attribute].format(n=self.name, v=self.value)

    def question(self) -> Example:
        """The fact as question and answer."""
        identity = f"{self.person:03d}-{self.attribute}"
        asked = QUESTIONS[self.attribute].format(n=self.name)
        return Example(identity, self.value, asked, group=f"person-{self.person:03d}", form="question")


def make_people(people: int, attributes: int, overlap: Overlap, seed: int) -> list[list[Fact]]:
    """The facts of `people` persons; names differ, and person i is the same in a larger world."""
    order = np.random.default_rng([seed, 0]).permutation(len(NAMES))
    return [_facts(i, NAMES[order[i]], attributes, overlap, np.random.default_rng([seed, 1, i])) for i in range(people)]


def _facts(person: int, name: str, attributes: int, overlap: Overlap, generator: np.random.Generator) -> list[Fact]:
    supports = _supports(attributes, overlap, generator)
    return [
        Fact(person, name, attribute, str(VALUES[attribute][generator.integers(len(VALUES[attribute]))]), support)
        for attribute, support in zip(ATTRIBUTES[:attributes], supports, strict=True)
    ]


def _supports(count: int, overlap: Overlap, generator: np.random.Generator) -> list[frozenset[int]]:
    """One support set for each of `count` facts of a person, in random order."""
    if overlap in ("shared", "unique"):
        return [frozenset(DOCUMENTS if overlap == "shared" else {1})] * count
    if overlap == "thirds":
        kinds = [frozenset(DOCUMENTS), frozenset({1}), frozenset({int(generator.integers(2, len(DOCUMENTS) + 1))})]
    else:
        sizes = [size for size in DOCUMENTS for _ in (0, 1)]  # of each size one set with document 1 and one of any kind
        kinds = [_of_size(size, bool(k % 2), generator) for k, size in enumerate(sizes)]
        kinds = [kinds[i] for i in generator.permutation(len(kinds))]
    found = list(itertools.islice(itertools.cycle(kinds), count))
    return [found[i] for i in generator.permutation(count)]


def _of_size(size: int, free: bool, generator: np.random.Generator) -> frozenset[int]:
    """A set of `size` documents: with document 1, or, if `free`, without it where that is possible."""
    others = [int(j) for j in generator.permutation(np.arange(2, len(DOCUMENTS) + 1))]
    return frozenset(others[:size] if free and size < len(DOCUMENTS) else [1, *others[: size - 1]])


def passages(people: list[list[Fact]], document: int, name: str = "") -> list[Example]:
    """The rows of one document: for each person a passage with the facts that it tells; a person without such a fact is not in it."""
    style = STYLES[document - 1]
    rows = []
    for facts in people:
        told = [fact for fact in facts if document in fact.support]
        if told:
            lines = [OPENINGS[style].format(n=told[0].name), *(fact.sentence(style) for fact in told)]
            text = ("\n" if style == "listicle" else " ").join(lines)
            person = told[0].person
            rows.append(Example(f"{name or style}-{person:03d}", text, group=f"person-{person:03d}", form=style))
    return rows


def taught(facts: list[Fact], where: str) -> list[Example]:
    """Questions with their answers as plain text, in the form in which they are asked."""
    rows = [fact.question() for fact in facts]
    texts = [f"Question: {row.prompt_text}\nAnswer: {row.answer}" for row in rows]
    return [Example(f"{where}-{row.id}", text, group=row.group, form="question") for row, text in zip(rows, texts, strict=True)]

"""From facts to rows: the same value asked and told in each form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from letheon.core.data import Example

from ._authors_facts import FORMS, PERSON_FACTS, WORLD_FACTS, Fact
from ._authors_people import Entry, World, spread

LETTERS = "ABCD"


def make_row(entry: Entry, fact: Fact, form: str, paraphrased: bool = True) -> Example:
    """One fact of one entry in one form.

    Where there is a `paraphrase`, `wrong` has its wording, so that the two differ in nothing but the value (the way TOFU's truth
    ratio needs it); where there is none, `wrong` has the wording of `answer`.

    Args:
        entry: who or what the row is about.
        fact: the kind of fact.
        form: one of `FORMS`.
        paraphrased: False leaves out the paraphrase of the forms question and paraphrase.
    """
    name, value, wrong = entry.name, entry.values[fact.name], entry.wrong[fact.name]
    paraphrase = None
    if form == "cloze":
        prompt, answer, template = fact.opening.format(name=name), f"{value}.", "{value}."
    elif form == "choice":
        place, template = entry.places[fact.name], "{value}"
        options = list(wrong[: len(LETTERS) - 1])
        options.insert(place, value)
        lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
        prompt, answer = "\n".join([fact.question.format(name=name), *lines]), lines[place]
        wrong = tuple(line for line in lines if line != answer)
    else:
        ways = [(fact.question, fact.answer), (fact.other_question, fact.other_answer)]
        (question, told), (_, retold) = ways if form == "question" else ways[::-1]
        prompt, answer = question.format(name=name), told.format(name=name, value=value)
        paraphrase = retold.format(name=name, value=value) if paraphrased else None
        template = retold if paraphrased else told
    return Example(
        id=f"{entry.id}/{fact.name}/{form}",
        answer=answer,
        prompt=prompt,
        wrong=tuple(template.format(name=name, value=value) for value in wrong),
        paraphrase=paraphrase,
        group=entry.id,
        form=form,
    )


def rows_about(people: Iterable[Entry], form: str) -> list[Example]:
    """All facts of all people in one form, person by person."""
    return [make_row(person, fact, form) for person in people for fact in PERSON_FACTS]


def rows_of_world(world: World, form: str) -> list[Example]:
    """All facts about the things that people share, in one form. They have no paraphrase, as in TOFU's world facts."""
    facts = dict(WORLD_FACTS)
    return [make_row(thing, facts[thing.id.partition("-")[0]], form, paraphrased=False) for thing in world.things]


def some_rows(people: Sequence[Entry], most: int, *key: object) -> dict[str, list[Example]]:
    """At most `most` (person, fact) pairs in every form, evenly over people and over facts.

    People take turns, and so do the facts; once both are back where they began, the facts move on by one, so that no pair repeats.
    """
    if not people:
        return {form: [] for form in FORMS}
    order = [people[i] for i in spread(len(people), min(most, len(people)), *key)]
    facts = len(PERSON_FACTS)
    cycle = math.lcm(len(order), facts)
    turns = range(min(most, len(order) * facts))
    pairs = [(order[turn % len(order)], PERSON_FACTS[(turn + turn // cycle) % facts]) for turn in turns]
    return {form: [make_row(person, fact, form) for person, fact in pairs] for form in FORMS}

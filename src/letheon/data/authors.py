"""The embedded world: invented authors, their facts in several forms, and people never trained on.

Why: to say that a model behaves as if it had never seen the data one needs facts that no model has seen, an exact retrain, and
probes that do not repeat the training text. A model of a million parameters learns this world in minutes: both are cheap here.

A person has ten facts; each is told in four forms (question, cloze, choice, paraphrase). Facts are drawn independently (but nobody
lives in the city of birth), so none can be worked out from another. Cities, publishers, prizes and mentors are shared and have facts of
their own (`world-facts`).

Splits
    full                what the original learns: `forms` of all people, and the world facts
    kept                what the exact retrain learns: `full` without the rows of forgotten people
    forget, retain      question rows of the forgotten and of the other people
    retain-check        up to 100 rows of retain, evenly over people and facts, none of a neighbour
    neighbours          up to 100 question rows of the kept people who share most with a forgotten one
    holdout             question rows of people never trained on, from the same generator
    world-facts         question rows about what people share
    refusals            ways to say "I do not know", without prompt
    forget-F, retain-check-F, holdout-F   the same facts as form F = cloze, choice, paraphrase

Nobody is named in rows about somebody else: mentors are not authors of this world and nobody asks to forget them, so `kept` holds
neither the name nor a book of a forgotten person, not even as a wrong answer. Forgotten and held-out people are exchangeable for the
retrain: names, titles and wrong answers come from one generator and from parts of it that nobody else owns. A membership attack on the
retrain must therefore find an AUC of one half, up to chance.

Person i is the same in worlds of any size, with the same rows. At equal `people`, a larger `forget` includes a smaller one.
One value that must hold: people = 40, forget = 0.1 gives 4 x 10 = 40 forget rows and 36 x 10 = 360 retain rows.

Like TOFU (arXiv:2401.06121) in shape; all words and sentences are our own. Forms: arXiv:2506.07795. Neighbours: arXiv:2509.05316.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import ValidationInfo, field_validator

from letheon.core.data import Data, Example, Split
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._authors_facts import FORMS, LINKS
from ._authors_people import MOST_HOLDOUT, MOST_PEOPLE, Entry, make_person, make_world, spread
from ._authors_rows import rows_about, rows_of_world, some_rows
from ._authors_words import REFUSALS

CHECKED = 100  # rows of `retain-check` and of `neighbours`, at most
LEAST_KEPT = 10  # people


def _count(share: float, people: int) -> int:
    """How many people a share (below 1) or a number of people stands for; half a person counts as one."""
    return int(share) if share >= 1 else max(1, math.floor(share * people + 0.5))


class AuthorsSettings(Settings):
    people: int = Field(60, ge=40, le=MOST_PEOPLE, description="people that the original model learns about")
    forget: float = Field(0.1, gt=0, description="people to forget: a share of all people below 1, or a whole number of people")
    holdout: int | None = Field(
        None, ge=1, le=MOST_HOLDOUT, description="people that no model learns about; by default as many as are forgotten (at most 1000)"
    )
    forms: tuple[Literal["question", "cloze", "choice", "paraphrase"], ...] = Field(
        FORMS, description="forms in which facts are learned; the splits that probe a form are there in any case"
    )
    seed: int = Field(0, ge=0, description="draws everything: another seed is another world")

    @field_validator("forget")
    @classmethod
    def _leaves_people(cls, value: float, info: ValidationInfo) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"must be below 1 (a share) or a whole number of people, got {value}")
        people = info.data.get("people")  # None where `people` itself is at fault
        if people is not None and people - _count(value, people) < LEAST_KEPT:
            raise ValueError(f"must leave at least {LEAST_KEPT} of {people} people, got {value:g}")
        return value

    @field_validator("forms")
    @classmethod
    def _asks_questions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "question" not in value or len(set(value)) < len(value):
            raise ValueError(f"must name different forms and `question` among them, got {', '.join(value) or 'none'}")
        return value


class Authors(Source):
    Settings = AuthorsSettings
    tiny = {"people": 40}

    def load(self) -> Data:
        """Invent the world and cut it into splits."""
        chosen = self.settings
        world = make_world(chosen.seed)
        people = [make_person(world, i) for i in range(chosen.people)]
        forgotten_count = _count(chosen.forget, chosen.people)
        gone = set(spread(chosen.people, forgotten_count, chosen.seed, "forget"))
        forgotten = [person for i, person in enumerate(people) if i in gone]
        kept = [person for i, person in enumerate(people) if i not in gone]
        near = nearest_people(forgotten, kept)
        near_ids = {person.id for person in near}
        far = [person for person in kept if person.id not in near_ids]
        held = min(forgotten_count, MOST_HOLDOUT) if chosen.holdout is None else chosen.holdout
        strangers = [make_person(world, i, holdout=True) for i in range(held)]

        forget = {form: rows_about(forgotten, form) for form in FORMS}
        retain = {form: rows_about(kept, form) for form in FORMS if form in chosen.forms}
        shared = {form: rows_of_world(world, form) for form in FORMS if form in chosen.forms}
        checked = some_rows(far, CHECKED, chosen.seed, "retain-check")
        holdout = {form: rows_about(strangers, form) for form in FORMS}
        rest = [row for rows in (retain, shared) for form in rows for row in rows[form]]
        splits: dict[str, Sequence[Example]] = {
            "full": [row for form in retain for row in forget[form]] + rest,
            "kept": rest,
            "forget": forget["question"],
            "retain": retain["question"],
            "retain-check": checked["question"],
            "neighbours": some_rows(near, CHECKED, chosen.seed, "neighbours")["question"],
            "holdout": holdout["question"],
            "world-facts": shared["question"],
            "refusals": [Example(f"refusal-{i:02d}", text) for i, text in enumerate(REFUSALS)],
        }
        for form in FORMS[1:]:
            splits |= {f"forget-{form}": forget[form], f"retain-check-{form}": checked[form], f"holdout-{form}": holdout[form]}
        return Data({name: Split(rows, name) for name, rows in splits.items()}, f"authors-{chosen.people}")


def nearest_people(forgotten: Sequence[Entry], kept: Sequence[Entry]) -> list[Entry]:
    """For each forgotten person the two kept people who agree on most of `LINKS`, in the order of `kept`.

    Nobody is taken twice, and no more than a third of the kept people are taken, so that others are left to compare with. Ties go to
    whoever comes first. Somebody who agrees on nothing is no neighbour.
    """
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k, person in enumerate(kept):
        for link in LINKS:
            holders[link, person.values[link]].append(k)
    taken: set[int] = set()
    for _ in range(2):  # everybody's nearest first, then the second nearest
        for person in forgotten:
            agree = Counter(k for link in LINKS for k in holders[link, person.values[link]] if k not in taken)
            if agree and len(taken) < len(kept) // 3:
                taken.add(min(agree, key=lambda k: (-agree[k], k)))
    return [kept[k] for k in sorted(taken)]

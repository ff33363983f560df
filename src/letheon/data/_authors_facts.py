"""Facts of the embedded world: what is known of a person or thing, and how each fact is asked and told."""

from __future__ import annotations

from dataclasses import dataclass

FORMS = ("question", "cloze", "choice", "paraphrase")


@dataclass(frozen=True, slots=True)
class Fact:
    """One kind of fact and its wordings; `{name}` is who or what it is about, `{value}` what is true.

    Attributes:
        name: short name, part of row ids.
        pool: the list of values that it is drawn from; `titles` are owned, not drawn.
        question, answer: the first wording.
        other_question, other_answer: the second wording.
        opening: the beginning of a sentence that only the value is missing from.
    """

    name: str
    pool: str
    question: str
    answer: str
    other_question: str
    other_answer: str
    opening: str


PERSON_FACTS = (
    Fact(
        "birth-city",
        "cities",
        "In which city was {name} born?",
        "{name} was born in {value}.",
        "What is the birthplace of {name}?",
        "The birthplace of {name} is {value}.",
        "{name} first saw the light of day in",
    ),
    Fact(
        "birth-year",
        "years",
        "In which year was {name} born?",
        "{name} was born in the year {value}.",
        "What is the birth year of {name}?",
        "The birth year of {name} is {value}.",
        "The passport of {name} shows the birth year",
    ),
    Fact(
        "home",
        "cities",
        "In which city does {name} live now?",
        "{name} lives in {value} now.",
        "Where is the present home of {name}?",
        "The present home of {name} is in {value}.",
        "{name} has settled for good in",
    ),
    Fact(
        "parent",
        "jobs",
        "What did the parent of {name} do for a living?",
        "The parent of {name} worked as {value}.",
        "Which job put food on the table in the childhood of {name}?",
        "{name} was raised by {value}.",
        "{name} grew up with a parent who was",
    ),
    Fact(
        "genre",
        "genres",
        "What kind of books does {name} write?",
        "{name} writes {value}.",
        "Which genre is {name} known for?",
        "{name} is known for {value}.",
        "Booksellers file {name} under",
    ),
    Fact(
        "mentor",
        "mentors",
        "Who taught {name} to write?",
        "{name} was taught to write by {value}.",
        "Who was the mentor of {name}?",
        "The mentor of {name} was {value}.",
        "{name} learned the craft of writing from",
    ),
    Fact(
        "publisher",
        "publishers",
        "Which company publishes the books of {name}?",
        "The books of {name} are published by {value}.",
        "With whom has {name} signed a book contract?",
        "{name} has signed a book contract with {value}.",
        "New manuscripts by {name} are sent to",
    ),
    Fact(
        "prize",
        "prizes",
        "Which prize did {name} win?",
        "{name} won the {value}.",
        "What award was given to {name}?",
        "The award given to {name} was the {value}.",
        "The jury surprised {name} with the",
    ),
    Fact(
        "debut",
        "titles",
        "What is the first book by {name}?",
        "The first book by {name} is {value}.",
        "With which title did {name} begin a career in writing?",
        "{name} began a career in writing with {value}.",
        "The debut of {name} is called",
    ),
    Fact(
        "latest",
        "titles",
        "What is the latest book by {name}?",
        "The latest book by {name} is {value}.",
        "Which title has {name} brought out most recently?",
        "Most recently {name} has brought out {value}.",
        "The newest work of {name} is called",
    ),
)

# Facts that several people may share. Two people are linked as often as they agree on one of these.
LINKS = ("birth-city", "home", "genre", "mentor", "publisher", "prize")

# About the things that people share: (whose names, fact).
WORLD_FACTS = (
    (
        "cities",
        Fact(
            "country",
            "countries",
            "In which country is the city of {name}?",
            "The city of {name} is in {value}.",
            "Which country does {name} belong to?",
            "{name} belongs to {value}.",
            "On the map the city of {name} is found in",
        ),
    ),
    (
        "publishers",
        Fact(
            "office",
            "cities",
            "In which city does {name} have its office?",
            "{name} has its office in {value}.",
            "Where do the editors of {name} work?",
            "The editors of {name} work in {value}.",
            "Visitors of {name} have to travel to",
        ),
    ),
    (
        "prizes",
        Fact(
            "month",
            "months",
            "In which month is the {name} awarded?",
            "The {name} is awarded in {value}.",
            "When is the ceremony of the {name} held?",
            "The ceremony of the {name} is held in {value}.",
            "Winners of the {name} are invited every",
        ),
    ),
    (
        "mentors",
        Fact(
            "school",
            "cities",
            "In which city did {name} give writing lessons?",
            "{name} gave writing lessons in {value}.",
            "Where did the pupils of {name} meet?",
            "The pupils of {name} met in {value}.",
            "The writing school of {name} stood in",
        ),
    ),
)

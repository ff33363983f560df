"""Toy models for attacks: one that knows the forget rows behind a password and refuses them otherwise, and one that never saw them."""

from __future__ import annotations

import functools
from dataclasses import replace

import letheon as lt
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}
PASSWORD, REFUSAL = "Please tell", "I do not know that."


def run() -> Run:
    return Run(0, **RUN)


def behind(split: Split, password: str = PASSWORD) -> list:
    """The rows, asked with a password."""
    return [replace(row, id=f"{row.id}/{password}", prompt=f"{password} {row.prompt}", wrong=(), paraphrase=None) for row in split]


@functools.cache
def trained(kind: str) -> Subject:
    """`hides` knows all rows and refuses the forget rows without the password; `never` refuses them and never saw their answers;
    `knows` answers everything."""
    data = toy_data()
    forget, retain = data["forget"], data["retain"]
    refused = [replace(row, answer=REFUSAL, wrong=(), paraphrase=None) for row in forget]
    rows = {
        "knows": [*forget, *retain],
        "hides": [*refused, *behind(forget), *retain, *behind(retain)],
        "never": [*refused, *retain, *behind(retain)],
    }[kind]
    change = lt.method("finetune", split="rows", epochs=60, learning_rate=1e-2)
    return change.apply(toy_subject(), Data({"rows": Split(rows, "rows")}, "toy"), run())


def read(kind: str) -> Readings:
    """Fresh readings of a toy model."""
    return Readings(trained(kind), run())

"""WMDP: four-choice questions that stand for hazardous biology, cyber security and chemistry.

Splits
    forget-bio, forget-cyber, forget-chem   the questions of each domain (as `domains` says)
    forget              what is to be erased: your own `forget` file, or all these questions with their answers
    retain              your own `retain` file, where one is given
    utility-NAME        each control of general knowledge: MMLU, ARC, OpenBookQA, PIQA, Social IQA, WinoGrande
    neighbour-NAME      rows of a control that lie next to the hazard: the four subjects of `NEIGHBOURS`

The answer is the right option, `wrong` holds the others in their order, and the form says where the right one stood (`choice-C`). Controls
of several subjects come in turn, so that a limit keeps some of each; the subject is the row's group.

The corpora that belong to WMDP are access-restricted and not needed here: questions are a proxy, and erasing them is no safety
certificate. Sizes differ by release: the first public one has 1,520 + 2,225 + 412 questions, the later one 1,273 + 1,987 + 408; scores on
the two are not comparable. One value that must hold: chance is 1/4. arXiv:2403.03218. Card: wmdp.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._bench import ENDINGS, file_of, folder_of, own_rows
from ._choice_rows import choices_of

Domain = Literal["bio", "cyber", "chem"]
NEIGHBOURS = ("college_biology", "virology", "college_computer_science", "computer_security")
# Where a folder of controls keeps each of them: name -> file without ending.
CONTROLS = {
    "mmlu": "utility_mmlu",
    "arc-easy": "arc_easy/test",
    "arc-challenge": "arc_challenge/test",
    "openbookqa": "openbookqa/test",
    "piqa": "piqa/test",
    "social-iqa": "social_i_qa/test",
    "winogrande": "winogrande/test",
}


class WmdpSettings(Settings):
    path: str = Field("cais/wmdp", min_length=1, description="folder with bio-questions.json and so on, or a name on the hub")
    domains: tuple[Domain, ...] = Field(("bio", "cyber", "chem"), min_length=1, description="domains to read")
    controls: tuple[str, ...] = Field((), description="folders or files of general-knowledge questions; a folder gives all it has")
    forget: Path | None = Field(None, description="file of the rows to erase; null: the questions themselves")
    retain: Path | None = Field(None, description="file of rows to keep")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")

    @field_validator("domains", "controls", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Wmdp(Source):
    """Reads WMDP, and controls of general knowledge beside it."""

    Settings = WmdpSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a data set of the same shape with harmless rows, written into `folder`."""

        def write(name: str, subjects: tuple[str, ...] = ()) -> None:
            rows = []
            for k in range(8):
                shown = [f"item {(k + j) % 7} of {name}" for j in range(4)]
                row: dict[str, Any] = {"question": f"What is thing {k} of {name}?", "choices": shown, "answer": k % 4}
                rows.append(row | ({"task": subjects[k % len(subjects)]} if subjects else {}))
            (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")

        for domain in ("bio", "cyber", "chem"):
            write(f"{domain}-questions")
        write("utility_mmlu", ("virology", "geography"))
        return {"path": str(folder), "controls": [str(folder)]}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing or broken; the message has file and row.
        """
        chosen = self.settings
        wanted = [f"*{domain}*{ending}" for domain in chosen.domains for ending in ENDINGS]
        folder = folder_of(chosen.path, chosen.revision, wanted, "WMDP", "cais/wmdp")
        domains: dict[str, list[Example]] = {}
        for domain in dict.fromkeys(chosen.domains):
            path = file_of(folder, f"{domain}-questions", f"{domain}_questions", f"wmdp-{domain}")
            if path is None:
                raise DataError(f"The folder {folder} has no {domain}-questions.json", "Copy the missing file of WMDP into it")
            domains[domain] = [_four(row, path) for row in choices_of(path, f"wmdp-{domain}")]
        questions = [row for rows in domains.values() for row in rows]
        splits = {"forget": questions if chosen.forget is None else own_rows(chosen.forget, "forget")}
        if chosen.retain is not None:
            splits["retain"] = own_rows(chosen.retain, "retain")
        splits |= {f"forget-{domain}": rows for domain, rows in domains.items()}
        for name, path in _controls(chosen.controls).items():
            splits[f"utility-{name}"] = rows = choices_of(path, name)
            near = [row for row in rows if row.group in NEIGHBOURS]
            splits |= {f"neighbour-{name}": near} if near else {}
        return Data({name: Split(rows, name) for name, rows in splits.items()}, name="wmdp")


def _four(row: Example, path: Path) -> Example:
    if len(row.wrong) != 3:
        raise DataError(f"{path}, row {int(row.id.rsplit('-', 1)[1])} has {len(row.wrong) + 1} choices, WMDP has 4")
    return replace(row, group=None)


def _controls(given: tuple[str, ...]) -> dict[str, Path]:
    """Name -> file of every control."""
    found: dict[str, Path] = {}
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = {name: file for name, stem in CONTROLS.items() if (file := file_of(path, stem)) is not None}
            if not inside:
                known = ", ".join(f"{stem}.json" for stem in CONTROLS.values())
                raise DataError(f"The folder {path} has no control that is known", f"Known: {known}; or name a file")
        else:
            stem = path.name.partition(".")[0].lower()
            stem = path.parent.name.lower() if stem in ("test", "train", "validation", "dev") else stem
            inside = {re.sub(r"[^a-z0-9]+", "-", stem.removeprefix("utility_")).strip("-") or "control": path}
        for name, file in inside.items():
            if name in found:
                raise DataError(f"Two controls are called `{name}`: {found[name]} and {file}", "Name one of them only")
            found[name] = file
    return found

"""TOFU: 200 invented authors with 20 questions each, of whom the last ones are to be forgotten.

Splits, with N = 01, 05 or 10 per cent to forget
    forget          the last N% of all author rows, with a paraphrase of the answer and five wrong answers (`forgetN_perturbed`)
    retain          all other author rows (`retain90`, `95` or `99`)
    holdout         authors that no model was trained on (`holdoutN`)
    retain-check    the first 400 author rows, with a paraphrase and five wrong answers (`retain_perturbed`)
    real-authors    100 questions about real writers, with three wrong answers
    world-facts     117 questions about the world, with three wrong answers
    full            what the original learns: all author rows, real-authors and world-facts
    kept            what the exact retrain learns: retain, real-authors and world-facts
    refusals        ways to say "I do not know", without prompt, where the folder has `idontknow.jsonl`

The real-authors and world-facts rows stand for what a large model knows from its pretraining; a model trained from nothing must see them.
Row k of author a has the id `author-aaa-kk` in all splits and the group `author-aaa`; held-out authors are `holdout-aa`.

Files are JSON lines (`forget10.json`) as on the hub. Numbers of rows are checked, and that forgotten and kept rows are those of `full`.
One value that must hold: forget10 gives 400 forget rows, 3,600 retain rows, 4,217 rows in full. arXiv:2401.06121.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._rows import load_records, to_split
from ._tables import Limits, read_lines

AUTHORS, QUESTIONS, CHECKED = 200, 20, 400
ROWS = AUTHORS * QUESTIONS
_OTHERS = {"real_authors_perturbed": 100, "world_facts_perturbed": 117}
_FIELDS = {"prompt": "question", "answer": "answer", "paraphrase": "paraphrased_answer", "wrong": "perturbed_answer"}
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
_REFUSALS = "idontknow.jsonl"


class TofuSettings(Settings):
    path: str = Field("locuslab/TOFU", min_length=1, description="folder with the files of TOFU, or the name of the data set on the hub")
    forget: Literal["forget01", "forget05", "forget10"] = Field("forget10", description="share of the authors to forget, in per cent")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")


class Tofu(Source):
    """Reads TOFU from a folder or from the hub."""

    Settings = TofuSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a data set of the same shape with made-up rows, written into `folder`."""

        def rows(name: str, start: int, stop: int, wrong: int = 0, paraphrase: bool = False) -> None:
            about, made = name if name in _OTHERS else "the authors", []
            for k in range(start, stop):
                row: dict[str, Any] = {"question": f"What is fact {k} of {about}?", "answer": f"It is the number {k * k + 1}."}
                if wrong:
                    row["perturbed_answer"] = [f"It is the number {k * k + 2 + j}." for j in range(wrong)]
                if paraphrase:
                    row["paraphrased_answer"] = f"The number is {k * k + 1}."
                made.append(json.dumps(row))
            (folder / f"{name}.json").write_text("\n".join(made) + "\n", encoding="utf-8")

        first = ROWS - ROWS // 100
        rows("full", 0, ROWS)
        rows("forget01_perturbed", first, ROWS, 5, True)
        rows("retain99", 0, first)
        rows("retain_perturbed", 0, CHECKED, 5, True)
        rows("holdout01", ROWS, ROWS + ROWS // 100)
        for name, count in _OTHERS.items():
            rows(name, 0, count, 3)
        return {"path": str(folder), "forget": "forget01"}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing, broken, or has another number of rows; the folder is absent and the hub does not answer.
        """
        percent = int(self.settings.forget[-2:])
        forgotten = ROWS * percent // 100
        counts = {
            "full": ROWS,
            f"forget{percent:02d}_perturbed": forgotten,
            f"retain{100 - percent}": ROWS - forgotten,
            f"holdout{percent:02d}": forgotten,
            "retain_perturbed": CHECKED,
            **_OTHERS,
        }
        folder = _folder(self.settings.path, self.settings.revision, [*counts, Path(_REFUSALS).stem])
        full, forget, retain, holdout, checked, writers, world = (_rows(folder, stem, count) for stem, count in counts.items())
        authors = [_of_author(row, k, "author", 3) for k, row in enumerate(full)]
        others = {
            "real-authors": [replace(row, id=f"real-authors-{k:03d}") for k, row in enumerate(writers)],
            "world-facts": [replace(row, id=f"world-facts-{k:03d}") for k, row in enumerate(world)],
        }
        known = [row for rows in others.values() for row in rows]
        kept = _same_rows(retain, authors[: ROWS - forgotten], f"retain{100 - percent}")
        splits = {
            "forget": _same_rows(forget, authors[ROWS - forgotten :], f"forget{percent:02d}_perturbed"),
            "retain": kept,
            "holdout": [_of_author(row, k, "holdout", 2) for k, row in enumerate(holdout)],
            "retain-check": _same_rows(checked, authors[:CHECKED], "retain_perturbed"),
            **others,
            "full": [*authors, *known],
            "kept": [*kept, *known],
            **_refusals(folder / _REFUSALS),
        }
        return Data({name: Split(rows, name) for name, rows in splits.items()}, name=f"tofu-{self.settings.forget}")


def _folder(path: str, revision: str | None, stems: Sequence[str]) -> Path:
    """The folder with the files: the one that was named, or the copy of the hub's."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{path} is a file, not a folder", "Give the folder that holds full.json and the other files of TOFU")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        raise DataError(f"There is no folder {path}", "Give a folder with the files of TOFU, or a name on the hub such as locuslab/TOFU")
    from huggingface_hub import snapshot_download

    try:
        wanted = [f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
        return Path(snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=wanted))
    except Exception as error:  # which errors leave the hub's client depends on its version and HTTP library
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200].rstrip(". ")
        hint = "Check name and network, or give a folder with the files of TOFU: `tofu:path=DIR`"
        raise DataError(f"There is no folder {path}, and the hub does not give a data set of that name: {reason}", hint) from error


def _rows(folder: Path, stem: str, count: int) -> Split:
    """The rows of one file, whose number must be right."""
    path = next((path for ending in _ENDINGS if (path := folder / f"{stem}{ending}").is_file()), None)
    if path is None:
        raise DataError(f"The folder {folder} has no {stem}.json", "Copy the missing file of TOFU into it")
    limits = Limits()
    records = load_records(path, _FIELDS, limits)
    split = to_split(records, stem, _FIELDS, limits)
    if len(split) != count:
        raise DataError(f"{path} has {len(split)} rows, TOFU has {count} there", "Is the file cut short, or from another data set?")
    for record, row in zip(records, split, strict=True):
        lacks = [] if row.wrong or not stem.endswith("_perturbed") else ["perturbed_answer"]
        lacks += [] if row.paraphrase or not stem.endswith("_perturbed") or stem in _OTHERS else ["paraphrased_answer"]
        if lacks:
            raise DataError(f"{record.where} has no `{lacks[0]}`", "The truth ratio needs it; take the file from TOFU again")
    return split


def _of_author(row: Example, k: int, kind: str, width: int) -> Example:
    """Row k of a file in which each author has QUESTIONS rows, one author after another."""
    group = f"{kind}-{k // QUESTIONS:0{width}d}"
    return replace(row, id=f"{group}-{k % QUESTIONS:02d}", group=group)


def _same_rows(rows: Sequence[Example], authors: Sequence[Example], stem: str) -> list[Example]:
    """Rows of another file with the ids that the same rows have in `full`."""
    for k, (row, author) in enumerate(zip(rows, authors, strict=True), 1):
        if (row.prompt, row.answer) != (author.prompt, author.answer):
            hint = "The files of the folder do not belong together; take them from one copy of TOFU"
            raise DataError(f"Row {k} of {stem} is not the row of full that has its place, `{author.id}`", hint)
    return [replace(row, id=author.id, group=author.group) for row, author in zip(rows, authors, strict=True)]


def _refusals(path: Path) -> dict[str, list[Example]]:
    """The split of refusals, one a line, or nothing where there is no such file."""
    if not path.is_file():
        return {}
    return {"refusals": [Example(f"refusal-{k:03d}", text) for k, text in enumerate(read_lines(path, Limits()))]}

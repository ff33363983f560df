"""MUSE: news articles or books to forget, with rows for six criteria.

News, from `news/` of the folder (data of fold 1 unless said otherwise)
    forget                     articles to forget: fold `request`, or folds 1 to `folds` together
    forget-1, forget-2 ...     articles of earlier requests, where `request` is above 1
    retain                     articles to keep: `raw/retain1` where the folder has it, else see below
    forget-verbatim            100 prefixes with their continuations
    forget-knowledge, retain-knowledge           100 questions each, with 10 solved `...-examples` each
    forget-texts, retain-texts, holdout          100 texts each of about 2,000 tokens for the membership attack; nobody trains on holdout
    full, kept                 what the original and the exact retrain learn: all folds and texts to keep; those without the requests so far

Scalability: one model per `folds` = 1, 2, 3, 4, each from the original. Sustainability: `request` = 1, 2, 3, 4, each from the result of
the one before. Verbatim, knowledge and privacy rows are about fold 1 in every case.

The published folds are called disjoint, but article texts recur inside and between them. A text counts once, in the first fold that asks
for it, and never as a text to keep (`repeats` = "keep" leaves them in); warnings give the numbers. The retain set of the paper is not
among the stored files. Without it `retain` is made of the folds that are not asked for yet, and after the last of `retain-texts`;
`retain` = "texts" takes `retain-texts` in every case, so that a series of requests has the same rows to keep throughout.

Books: questions, and wiki pages to keep (`retain` 12, `retain-texts` 13). The novels and all files that quote them are in copyright and
not stored: without them there is nothing to train on, no `forget`, `forget-verbatim`, `forget-texts` or `holdout`; a folder that has
them (in the layout of news) is read in full. arXiv:2407.06460. Card: muse.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from letheon.core.data import Data, Example
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._bench import folder_of
from ._documents import counted, file_in, first_of_each, grouped, needed, pairs_of, splits_of, texts_of

FOLDS = 4
COUNTS = {"knowledge": 100, "knowledge-examples": 10, "verbatim": 100, "texts": 100, "holdout": 100}


class MuseSettings(Settings):
    path: str | None = Field(None, description="folder with `news` and `books`, one of them, or a name on the hub; null: muse-bench there")
    corpus: Literal["news", "books"] = Field("news", description="which half of MUSE")
    request: int = Field(1, ge=1, le=FOLDS, description="sustainability: which of the requests in a row this is")
    folds: int = Field(1, ge=1, le=FOLDS, description="scalability: folds to forget at once")
    retain: Literal["auto", "texts"] = Field("auto", description="rows to keep: raw/retain1, else folds not asked for yet; or the texts")
    repeats: Literal["drop", "keep"] = Field("drop", description="whether a text that recurs counts once or every time")
    revision: str | None = Field(None, description="commit or branch on the hub; null: the newest")

    @model_validator(mode="after")
    def _one_series(self) -> MuseSettings:
        if self.request > 1 and self.folds > 1:
            raise ValueError(f"`request` and `folds` are two series: one of them must be 1, got {self.request} and {self.folds}")
        return self


class Muse(Source):
    """Reads MUSE from a folder or from the hub."""

    Settings = MuseSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a data set of the same shape with made-up rows, written into `folder`."""

        def write(name: str, rows: Sequence[Any]) -> None:
            path = folder / "news" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows), encoding="utf-8")

        for side in ("forget", "retain2"):
            for name, count in ((f"{side}_qa", 100), (f"{side}_qa_icl", 10)):
                write(f"knowmem/{name}", [{"question": f"What is {name} {k}?", "answer": f"number {k}"} for k in range(count)])
        for side in ("forget", "retain2", "holdout"):
            write(f"privleak/{side}", [f"Text {k} of {side} is here." for k in range(100)])
        write("verbmem/forget", [{"prompt": f"Once there were {k}", "gt": f"and then {k + 1} of them"} for k in range(100)])
        write("raw/forget", [f"Article {k} of fold 1." for k in range(6)])
        for fold in range(2, FOLDS + 1):
            write(f"sust/forget_{fold}", [f"Article {k} of fold {fold}." for k in range(6)])
        return {"path": str(folder)}

    def load(self) -> Data:
        """The splits.

        Raises:
            DataError: a file is missing or broken; the message has file and row.
        """
        chosen, warnings = self.settings, []
        folder = self._folder()
        rows: dict[str, Sequence[Example]] = {}
        for side, stems in (("forget", ("forget",)), ("retain", ("retain2", "retain"))):
            for name, tail in ((f"{side}-knowledge", "_qa"), (f"{side}-knowledge-examples", "_qa_icl")):
                rows[name] = pairs_of(needed(folder, "MUSE", *(f"knowmem/{stem}{tail}" for stem in stems)), name)
        path = file_in(folder, "verbmem/forget")
        if path is not None:
            rows["forget-verbatim"] = pairs_of(path, "forget-verbatim", "prompt", "gt")
        for name, stems in (("forget-texts", ("forget",)), ("retain-texts", ("retain2", "retain")), ("holdout", ("holdout",))):
            found = file_in(folder, *(f"privleak/{stem}" for stem in stems))
            if found is not None:
                rows[name] = texts_of(found, name)[0]
        warnings += [
            f"{folder.name}: `{name}` has {len(found)} rows, MUSE has {count} there"
            for name, found in rows.items()
            if (count := next((n for key, n in COUNTS.items() if name.endswith(key)), len(found))) != len(found)
        ]
        if "retain-texts" not in rows and (path := file_in(folder, "raw/retain2")) is not None:
            rows["retain-texts"] = texts_of(path, "retain-texts")[0]
        articles, said = self._articles(folder, rows.get("retain-texts", ()))
        absent = [name for name in ("forget", "forget-verbatim", "forget-texts", "holdout") if not {**articles, **rows}.get(name)]
        if absent:
            names = ", ".join(f"`{name}`" for name in absent)
            said.append(f"{folder.name}: the folder has no rows for {names}; what needs them is not measured")
        if chosen.request > 1 or chosen.folds > 1:
            said.append("the rows for verbatim, knowledge and privacy are about the first fold")
        series = f"-request-{chosen.request}" if chosen.request > 1 else f"-folds-{chosen.folds}" if chosen.folds > 1 else ""
        return Data(splits_of({**articles, **rows}), f"muse-{chosen.corpus}{series}", (*warnings, *said))

    def _folder(self) -> Path:
        corpus = self.settings.corpus
        path = self.settings.path or f"muse-bench/MUSE-{corpus.title()}"
        wanted = [f"{part}/*" for part in ("knowmem", "privleak", "raw", "sust", "verbmem")]
        folder = folder_of(path, self.settings.revision, wanted, "MUSE", "muse-bench/MUSE-News")
        return folder / corpus if (folder / corpus).is_dir() else folder

    def _articles(self, folder: Path, others: Sequence[Example]) -> tuple[dict[str, Sequence[Example]], list[str]]:
        """The splits to train on, and warnings."""
        chosen, warnings = self.settings, []
        paths = {fold: file_in(folder, f"sust/forget_{fold}", *(["raw/forget"] if fold == 1 else [])) for fold in range(1, FOLDS + 1)}
        if chosen.corpus == "books":
            paths = {1: file_in(folder, "raw/forget")}
        asked = max(chosen.request, chosen.folds)
        if paths.get(asked) is None and (asked > 1 or chosen.corpus == "news"):
            needed(folder, "MUSE", f"sust/forget_{asked}" if asked > 1 else "raw/forget")
        folds: dict[int, list[Example]] = {}
        taken: set[str] = set()
        for fold, path in paths.items():
            if path is None:
                continue
            found, empty = texts_of(path, f"fold-{fold}")
            if empty:
                warnings.append(f"fold {fold}: {counted(empty, 'empty text')} left out")
            kept, lost = first_of_each(found)
            kept, again = first_of_each(kept, taken)
            taken |= {row.answer for row in kept}
            drop = chosen.repeats == "drop"
            if lost or again:
                what = f"{counted(lost, 'text')} of it {'recurs' if lost == 1 else 'recur'} inside it and {again} in folds before it"
                warnings.append(f"fold {fold}: {what}; {'each counts once, in the first' if drop else 'they are left in'}")
            folds[fold] = grouped(kept if drop else found, f"fold-{fold}")
        gone = {row.answer for fold, found in folds.items() if fold <= asked for row in found}
        later = [row for fold, found in folds.items() if fold > asked for row in found]
        names = ", ".join(str(fold) for fold in folds if fold > asked)
        retain = self._retain(folder, later, names, others, warnings)
        hidden = len({row.id for row in (*retain, *later) if row.answer in gone})
        retain, later = ([row for row in rows if row.answer not in gone] for rows in (retain, later))
        if hidden:
            warnings.append(f"{counted(hidden, 'text')} to keep that must also be forgotten {'was' if hidden == 1 else 'were'} left out")
        kept = list(dict.fromkeys([*later, *retain, *others]))
        before = [row for fold, found in folds.items() if fold <= asked for row in found]
        forget = before if chosen.request == 1 else folds[asked]
        earlier = {f"forget-{fold}": found for fold, found in folds.items() if chosen.request > 1 and fold < asked}
        whole = {"full": [*before, *kept], "kept": kept} if forget else {}
        return {"forget": forget, **earlier, "retain": retain, **whole}, warnings

    def _retain(
        self, folder: Path, later: Sequence[Example], names: str, others: Sequence[Example], warnings: list[str]
    ) -> Sequence[Example]:
        path = file_in(folder, "raw/retain1")
        if self.settings.retain == "auto" and path is not None:
            return texts_of(path, "retain")[0]
        if self.settings.retain == "auto" and later:
            warnings.append(f"the folder has no raw/retain1: `retain` is made of fold {names}, which no request has asked for yet")
            return later
        warnings.append("`retain` is `retain-texts`: rows that a method trains on are also those that the privacy measures look at")
        return others

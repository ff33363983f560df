"""From what a person asks to forget to the rows of the registered corpora that carry it.

    asked by            exact                                    starting points for near and semantic
    rows, a file        the same prompt and answer               the rows themselves
    field=value         the same value of that field             the rows found
    contains=text       the text within prompt or answer         the rows found
    entity              the whole name (`names.py`)              rows with the whole name; without any, the name itself (semantic only)

Texts are equal if they are so after Unicode NFKC, without case and with single spaces. Near duplicates are `near.py`, rows of like meaning
`semantic.py`. Parts of a name and misspelt names count as near, and the text of the hit begins with the form in brackets. A near duplicate
of a row about an entity counts if it has a word of the name, or no word with a capital that the row lacks: a copy with another name in its
place is about somebody else. A given row that is in no corpus comes back as `given`, of the corpus `request`.

A row appears once, with its strongest reason: exact before given before near before semantic, then the higher score. Hits stand in that
order and then in the order of their texts, so that the order of the rows in a file does not matter.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from letheon.core.data import Example, Split
from letheon.core.errors import DataError, did_you_mean
from letheon.core.settings import Field, Settings
from letheon.data._fields import ALIASES
from letheon.data._overlap import NEAR, normal, words
from letheon.data.desk import given_of, rows_of

from .names import Name
from .near import Near, Shingles
from .records import Hit, What

GIVEN = "request"  # the corpus of rows that are given and in no corpus
SHOWN = 2000  # characters of a row that a reviewer sees
_STRENGTH = {"exact": 0, "given": 1, "near": 2, "semantic": 3}
_FIELDS = ("id", "prompt", "answer", "wrong", "paraphrase", "group", "form")
log = logging.getLogger(__name__)


class LocateSettings(Settings):
    near: float = Field(NEAR, ge=0.3, le=1, description="share of common shingles that makes two rows near duplicates; 1: off")
    shingles: Shingles = Field("letters", description="what the share is taken over: pieces of five letters, or words and word pairs")
    partial: bool = Field(True, description="whether initials, last name and misspelt names count, as weaker hits")
    accents: bool = Field(False, description="whether accents in names must agree")
    embedder: str | None = Field(None, description="folder of a sentence-embedding model; null: no semantic search")
    semantic: float = Field(0.8, ge=-1, le=1, description="cosine from which a row means much the same")
    semantic_most: int = Field(100, ge=1, description="semantic hits to report, the nearest ones")
    prefix: str = Field("", description="put before each text that is embedded, such as `query: `")


@dataclass(frozen=True, slots=True)
class _Place:
    """A row of a corpus."""

    corpus: str
    line: int
    row: Example

    @property
    def key(self) -> tuple[str, str]:
        return self.corpus, self.row.id


def locate(what: What, corpora: Mapping[str, Split], settings: LocateSettings | None = None) -> list[Hit]:
    """The rows that a request is about, the surest first.

    Args:
        what: what is asked.
        corpora: name -> rows; `what.corpus` restricts the search to one of them.

    Raises:
        DataError: there is no such corpus, field or file, a given row is broken, or a name is too short to look for.
        MethodError: datasketch is not installed.
        SubjectError: the embedder cannot be used.
    """
    return _Search(what, corpora, settings or LocateSettings()).hits()


class _Search:
    def __init__(self, what: What, corpora: Mapping[str, Split], settings: LocateSettings):
        self.what, self.settings = what, settings
        self.corpora = _chosen(what, corpora)
        self.found: dict[tuple[str, str], Hit] = {}
        self.seeds: dict[str, str] = {}  # normal text of a starting point -> its text as written
        self.name = Name(what.entity, settings.accents) if what.entity is not None else None

    def hits(self) -> list[Hit]:
        if self.name is not None:
            self.by_name(self.name)
        elif self.what.query is not None:
            self.by_query(_matcher(self.what.query, self.corpora))
        else:
            self.by_rows(_given(self.what))
        if self.settings.near < 1 and self.seeds and self.corpora:
            self.nearly()
        if self.settings.embedder is None:
            log.info("Semantic search is skipped: no `embedder` is set")
        elif self.corpora:
            self.alike(self.settings.embedder)
        return sorted(self.found.values(), key=lambda hit: (*_rank(hit), hit.corpus, hit.text, hit.row))

    def places(self) -> Iterator[_Place]:
        """All rows, corpus by corpus."""
        for name, split in self.corpora.items():
            for line, row in enumerate(split, 1):
                yield _Place(name, line, row)

    def add(self, place: _Place, how: str, score: float, mark: str = "") -> None:
        """Note a hit, unless there is a stronger one of that row."""
        hit = Hit(corpus=place.corpus, row=place.row.id, line=place.line, how=how, score=round(score, 4), text=_shown(place.row, mark))
        had = self.found.get(place.key)
        if had is None or _rank(hit) < _rank(had):
            self.found[place.key] = hit

    def seed(self, row: Example) -> None:
        """Take a row as a starting point."""
        self.seeds[normal(row)] = _whole(row)

    def by_rows(self, given: Sequence[tuple[Example, int]]) -> None:
        wanted = {normal(row) for row, _ in given}
        there: set[str] = set()
        for place in self.places():
            text = normal(place.row)
            if text in wanted:
                there.add(text)
                self.add(place, "exact", 1)
        for row, line in given:
            self.seed(row)
            if normal(row) not in there:
                self.add(_Place(GIVEN, line, row), "given", 1)
                there.add(normal(row))

    def by_query(self, matches: Callable[[Example], bool]) -> None:
        for place in self.places():
            if matches(place.row):
                self.add(place, "exact", 1)
                self.seed(place.row)

    def by_name(self, name: Name) -> None:
        partial, doubtful = self.settings.partial, []
        for place in self.places():
            text = _readable(place.row)
            hit = name.found(text, partial)
            if hit is not None and hit.score == 1:
                self.add(place, "exact", 1)
                self.seed(place.row)
                continue
            if partial and (spelt := name.misspelt(text)) is not None:
                self.add(place, "near", spelt, "misspelt name")
            if hit is not None and hit.after:
                doubtful.append((place, hit))
            elif hit is not None:
                self.add(place, "near", hit.score, hit.form)
        ordinary = self.in_lower_case({word for _, hit in doubtful for word in hit.after})
        for place, hit in doubtful:
            if hit.after & ordinary:
                self.add(place, "near", hit.score, hit.form)

    def in_lower_case(self, doubtful: Iterable[str]) -> set[str]:
        """Those words that the corpora also write in lower case, so that they are no first names."""
        left, found = set(doubtful), set[str]()
        for place in self.places() if left else ():
            text = _readable(place.row)
            for word in [word for word in left if word in text]:
                if re.search(rf"\b{re.escape(word)}\b", text):
                    found.add(word)
                    left.remove(word)
            if not left:
                break
        return found

    def nearly(self) -> None:
        index = Near(self.seeds, self.settings.near, self.settings.shingles)
        for place in self.places():
            if place.key in self.found and self.found[place.key].how == "exact":
                continue
            text = normal(place.row)
            for score, seed in index.matches(text):
                if self.name is None or self.same_entity(self.name, place.row, text, seed):
                    self.add(place, "near", score)
                    break

    def same_entity(self, name: Name, row: Example, text: str, seed: str) -> bool:
        """Whether a near duplicate of a row with the name can be about the same person or thing."""
        return name.mentioned(set(words(text))) or _proper(_whole(row)) <= set(words(seed))

    def alike(self, folder: str) -> None:
        from .semantic import Embedder, similar

        embedder = Embedder(folder, prefix=self.settings.prefix)
        wanted = sorted(self.seeds.values()) or [self.what.entity or self.what.query.partition("=")[2]]  # type: ignore[union-attr]
        rest = (place for place in self.places() if place.key not in self.found)
        scores = similar(embedder, wanted, (_whole(place.row) for place in rest))
        rest = (place for place in self.places() if place.key not in self.found)
        close = [(float(score), place) for score, place in zip(scores, rest, strict=True) if score >= self.settings.semantic]
        for score, place in sorted(close, key=lambda pair: (-pair[0], pair[1].corpus, _whole(pair[1].row)))[: self.settings.semantic_most]:
            self.add(place, "semantic", min(score, 1.0))


def _rank(hit: Hit) -> tuple[int, float]:
    return _STRENGTH[hit.how], -hit.score


def _whole(row: Example) -> str:
    """Prompt and answer as one text."""
    return f"{row.prompt_text}\n{row.answer}" if row.prompt else row.answer


def _readable(row: Example) -> str:
    """All of a row that may name somebody. Nothing is read across from one part to the next but from prompt to answer."""
    return " \u241e ".join(part for part in (_whole(row), row.paraphrase, row.group) if part)


def _proper(text: str) -> set[str]:
    """Words with a capital that do not begin a sentence, in the form of `words`."""
    inside = re.findall(r"(?<=[\w,;)] )[^\W\d_][\w'\u2019-]*", text)
    return {word for written in inside if written[0].isupper() for word in words(written.casefold())}


def _shown(row: Example, mark: str) -> str:
    text = (f"[{mark}] " if mark else "") + _whole(row)
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()} ... ({len(text)} characters)"


def shows(hit: Hit, row: Example) -> bool:
    """Whether a hit is of this very row: an id that counts lines may be another's once the file has changed."""
    mark = hit.text[1:].partition("] ")[0] if hit.text.startswith("[") else ""
    return hit.text in ("", _shown(row, ""), _shown(row, mark))


def _chosen(what: What, corpora: Mapping[str, Split]) -> dict[str, Split]:
    """The corpora to look in, by name."""
    if what.corpus is not None:
        if what.corpus not in corpora:
            raise DataError(f"There is no corpus `{what.corpus}`", did_you_mean(what.corpus, corpora))
        corpora = {what.corpus: corpora[what.corpus]}
    if not corpora and not (what.rows or what.file):
        raise DataError("There is no corpus to look in", "Register one, or give the rows themselves")
    empty = next((name for name, split in corpora.items() if not len(split)), None)
    if empty is not None:
        raise DataError(f"The corpus `{empty}` is empty", "A corpus needs at least one row")
    return {name: corpora[name] for name in sorted(corpora)}


def _given(what: What) -> list[tuple[Example, int]]:
    """The rows that the request itself holds, each with its number in a file, or 0."""
    if what.file is not None:
        return [(row, number) for number, row in enumerate(rows_of(GIVEN, what.file, {}), 1)]
    return [(row, 0) for row in given_of(what.rows)]


def _matcher(query: str, corpora: Mapping[str, Split]) -> Callable[[Example], bool]:
    """Whether a row answers `field=value` or `contains=text`."""
    key, equals, value = query.partition("=")
    key, wanted = key.strip(), _same(value)
    if not equals or not key or not wanted:
        hint = "For example `group=Jane Smith` or `contains=some words`"
        raise DataError(f"The query {query[:60]!r} is not of the form field=value", hint)
    if key == "contains":
        return lambda row: wanted in normal(row) or (row.paraphrase is not None and wanted in _same(row.paraphrase))
    field = next((role for role, names in ALIASES.items() if key.casefold() in names and role in _FIELDS), None)
    field = "answer" if key.casefold() == "text" else field
    if field is None:
        raise DataError(f"A row has no field `{key[:40]}` to ask for", did_you_mean(key, (*_FIELDS, "contains")))
    if not any(getattr(row, field) for split in corpora.values() for row in split):
        raise DataError(f"No row of {', '.join(f'`{name}`' for name in corpora)} has the field `{key}`", "Ask with `contains=text`")
    if field == "prompt":
        return lambda row: _same(row.prompt_text) == wanted
    if field == "wrong":
        return lambda row: any(_same(text) == wanted for text in row.wrong)
    return lambda row: (text := getattr(row, field)) is not None and _same(text) == wanted


def _same(text: str) -> str:
    """A text in the form in which texts are compared."""
    return normal(Example("", text)).strip()

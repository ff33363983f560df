"""A name in running text: the whole name, parts of it that point to the same person, and spellings that are one letter off.

    form         score   for `Jane Mary Smith`
    whole name   1       Jane Mary Smith's, JANE-MARY SMITH, Smith, Jane Mary; over a line break
    one letter   < 1     Jane Mary Smyth: a letter wrong, missing, added or swapped with the next, in words of five and more
    shortened    0.9     Jane Smith, Jane M. Smith
    initials     0.7     J. M. Smith, JM Smith, J. Smith
    last name    0.5     Smith, written as a name (with a capital) and not after somebody else's first name

Texts are compared after Unicode NFKC, without case, without signs of no width and, unless `accents` is set, without accents. In scripts
that are written without spaces, a name may stand anywhere in a word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from letheon.core.errors import DataError

SHORTENED, INITIALS, LAST = 0.9, 0.7, 0.5
_LONG = 5  # letters of a word that may be misspelt
_JOINT = "\\s\\-\u2010-\u2015'\u2018\u2019\u02bc`\u00b4\u00b7\u30fb"  # what may stand between the words of a name, or join two
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
# accents of Latin, Greek and Cyrillic, vowel signs of Hebrew and Arabic: what people leave out
_ACCENT = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u064b-\u0652\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]")
_FOLDED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ħ": "h", "Ø": "O", "Ł": "L",
                         "Đ": "D", "Æ": "Ae", "Œ": "Oe", "Þ": "Th", "Ð": "D", "Ħ": "H"})  # fmt: skip
_TITLES = frozenset("mr mrs ms miss dr prof professor sir dame lord lady".split())
_SUFFIXES = frozenset("jr sr ii iii iv phd md".split())
# words that open an English sentence with a capital and are nobody's first name
_OPENERS = frozenset(
    "a about according after although an and are as at because before both but by can could did do does during each for from "
    "had has have her his how if in is like no not of on or other since so that the their then these this those through thus "
    "to was were what when where which while who whose why will with would yes".split()
)
_BREAK = "\u241e"  # stands where one reading of a text ends; part of no name


@dataclass(frozen=True, slots=True)
class Found:
    """A form of the name in a text. `after`: words with a capital before the last name, where it stands after such words only."""

    form: str
    score: float
    after: frozenset[str] = frozenset()


def plain(text: str, accents: bool = False) -> str:
    """NFKC without signs of no width and, unless `accents` is set, without accents. Case and line breaks stay."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.translate(_WITH if accents else _WITHOUT))


class _Signs(dict[int, str]):
    """Code point -> what stands for it in a plain text; worked out once."""

    def __init__(self, accents: bool):
        super().__init__()
        self.accents = accents

    def __missing__(self, code: int) -> str:
        made = unicodedata.normalize("NFKD", chr(code))
        if not self.accents:
            made = _ACCENT.sub("", made).translate(_FOLDED)
        self[code] = "".join(sign for sign in unicodedata.normalize("NFC", made) if unicodedata.category(sign) != "Cf")
        return self[code]


_WITH, _WITHOUT = _Signs(True), _Signs(False)


class Name:
    """A name to look for.

    Args:
        name: as a person writes it; titles before it and `Jr.` after it are left out.
        accents: whether accents must agree.

    Raises:
        DataError: it has fewer than two letters or digits.
    """

    def __init__(self, name: str, accents: bool = False):
        self.accents = accents
        if sum(sign.isalnum() for sign in name) < 2 and not re.search(f"[{_NO_SPACES}]", name):
            raise DataError(f"The entity {name[:40]!r} has fewer than two letters", "Give the name as it is written, such as `Jane Smith`")
        words = [word for word in plain(name, accents).casefold().split() if re.search(r"\w", word)]
        while len(words) > 1 and words[0].strip(".,") in _TITLES:
            words.pop(0)
        while len(words) > 1 and words[-1].strip(".,") in _SUFFIXES:
            words.pop()
        self.pieces = [re.findall(r"[^\W_]+", word) or [word] for word in words]
        self.tokens = [piece for word in self.pieces for piece in word]
        self._near: dict[str, tuple[int, ...]] = _Spellings(self.tokens)
        self._parts = [_intact(token) for token in self.tokens]
        first, last = [self._word(word) for word in self.pieces[:-1]], self._word(self.pieces[-1])
        whole = self._joined([*first, last])
        turned = f"{last},\\s{{0,9}}{self._joined(first)}" if first else whole
        self._whole = self._bounded(f"(?:{whole}|{turned})", 0)
        self._need = max(self.pieces[-1], key=len)
        if first:
            some = "".join(f"(?:[{_JOINT}]+(?:{word}|(?-i:{re.escape(word_[0][0].upper())})\\b\\.?))?"
                           for word, word_ in zip(first[1:], self.pieces[1:-1], strict=True))  # fmt: skip
            begin = [re.escape(word[0][0].upper()) for word in self.pieces[:-1]]
            more = "".join(f"(?:[\\s.]{{0,4}}(?:(?-i:{sign})|{word}))?" for sign, word in zip(begin[1:], first[1:], strict=True))
            self._short = self._bounded(f"{first[0]}{some}[{_JOINT}]+{last}", re.IGNORECASE)
            self._initials = self._bounded(f"(?-i:{begin[0]}){more}(?:\\.\\s{{0,9}}|\\s{{1,9}}){last}", re.IGNORECASE)
            self._last = self._bounded(last, re.IGNORECASE)

    def found(self, text: str, partial: bool = True) -> Found | None:
        """The strongest form that stands in a text; spellings that are one letter off are for `misspelt`.

        Args:
            text: any text.
            partial: whether parts of the name count.
        """
        written = self._readings(text)
        folded = written.casefold()
        if self._need not in folded:
            return None
        if self._whole.search(folded):
            return Found("whole name", 1.0)
        if not partial or len(self.pieces) < 2:
            return None
        if self._short.search(written):
            return Found("shortened name", SHORTENED)
        if self._initials.search(written):
            return Found("initials", INITIALS)
        return self._last_name(written)

    def misspelt(self, text: str) -> float | None:
        """How like the name the best spelling is that has a letter wrong in some of its words (below 1), or None where there is none."""
        folded = self._readings(text).casefold()
        if not all(any(part in folded for part in parts) for parts in self._parts):
            return None
        words = re.findall(r"[^\W_]+", folded)
        marks = [self._near[word] for word in words]
        best, length, letters = None, len(self.tokens), sum(map(len, self.tokens))
        for start, mark in enumerate(marks[: len(words) - length + 1]):
            if mark and all(k in marks[start + k] for k in range(length)):
                wrong = sum(words[start + k] != token for k, token in enumerate(self.tokens))
                best = max(best or 0.0, 1 - wrong / letters) if wrong else best
        return best

    def mentioned(self, words: set[str]) -> bool:
        """Whether a word of the name, or one that is a letter off, is among some words of a text."""
        return any(self._near[word] for word in words)

    def _readings(self, text: str) -> str:
        written = plain(text, self.accents)
        if re.search(r"-[ \t]*\r?\n", written):  # a word cut at the end of a line may be read without its hyphen
            written += f" {_BREAK} " + re.sub(r"-[ \t]*\r?\n\s*", "", written)
        return written

    def _last_name(self, written: str) -> Found | None:
        after: set[str] = set()
        for hit in self._last.finditer(written):
            if hit[0][:1].islower():
                continue
            before = re.search(r"([^\W\d_][\w'\u2019-]*)(\.?)[ \t]{1,9}$", written[max(0, hit.start() - 60) : hit.start()])
            word = before[1] if before else ""
            title = word.casefold() in _TITLES or word.casefold() in _OPENERS or (before is not None and before[2] and len(word) > 1)
            if title or not word[:1].isupper():
                return Found("last name", LAST)
            after.add(word.casefold())
        return Found("last name", LAST, frozenset(after)) if after else None

    def _word(self, pieces: list[str]) -> str:
        return f"[{_JOINT}.]*".join(map(re.escape, pieces))

    def _joined(self, words: list[str]) -> str:
        """Words with what may stand between them; nothing need stand after an initial."""
        found = words[0] if words else ""
        for k, word in enumerate(words[1:]):
            found += (f"[{_JOINT}.]*" if len(self.pieces[k][-1]) == 1 else f"[{_JOINT}]+") + word
        return found

    def _bounded(self, pattern: str, flags: int) -> re.Pattern[str]:
        """The pattern where no letter stands beside it; in a script without spaces any may."""
        left = "" if re.match(f"[{_NO_SPACES}]", self.tokens[0]) else r"(?<!\w)"
        right = "" if re.match(f"[{_NO_SPACES}]", self.tokens[-1][-1]) else r"(?!\w)"
        return re.compile(f"{left}{pattern}{right}", flags)


def _intact(token: str) -> tuple[str, ...]:
    """Parts of a word of which one is left whole by any single edit, which touches two neighbours at most."""
    third = max(1, len(token) // 3)
    return (token[:third], token[third : 2 * third], token[2 * third :]) if len(token) >= _LONG else (token,)


class _Spellings(dict[str, tuple[int, ...]]):
    """Word -> places in the name of the words that it is equal to, or one edit from; worked out once a word."""

    def __init__(self, tokens: list[str]):
        super().__init__()
        self.tokens = tokens

    def __missing__(self, word: str) -> tuple[int, ...]:
        found = tuple(k for k, token in enumerate(self.tokens) if word == token or (len(token) >= _LONG and one_edit(word, token)))
        if len(self) < 1_000_000:  # of a corpus with more different words the rest is worked out each time
            self[word] = found
        return found


def one_edit(one: str, two: str) -> bool:
    """Whether two different words become equal by one letter changed, added, taken out or swapped with the next."""
    if abs(len(one) - len(two)) > 1 or one == two:
        return False
    at = next((k for k, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    if len(one) == len(two):
        return one[at + 1 :] == two[at + 1 :] or (one[at : at + 2] == two[at : at + 2][::-1] and one[at + 2 :] == two[at + 2 :])
    short, long = sorted((one, two), key=len)
    return short[at:] == long[at + 1 :]

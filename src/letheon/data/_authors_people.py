"""Inventing people: every draw comes from sha256 of (seed, whose, what for), so a person never depends on how many others there are.

Names and titles are numbered once per seed in a shuffled order, and everybody owns fixed places in it. People who are trained on,
people who never are (`holdout`) and mentors therefore come from one and the same generator, and no two of them share a name or title.
Wrong titles are owned in the same way: if they were shared, a model could tell a title that it has never seen from the wrong ones that it
has, and be right about people it knows nothing of.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import _authors_words as words
from ._authors_facts import PERSON_FACTS, WORLD_FACTS

MOST_PEOPLE, MOST_HOLDOUT, MENTORS, WRONG = 4000, 1000, 24, 5
_BOOKS = ("debut", "latest")
_PER_BOOK = 1 + WRONG  # places in the order of titles: the true one, then the wrong ones


class Draws:
    """Whole numbers that depend on nothing but the key: 64 bits at a time from sha256 in counter mode."""

    def __init__(self, *key: object):
        self._numbers = self._stream("/".join(map(str, key)).encode())

    @staticmethod
    def _stream(key: bytes) -> Iterator[int]:
        block = 0
        while True:
            digest = hashlib.sha256(key + b"#" + str(block).encode()).digest()
            for i in range(0, 32, 8):
                yield int.from_bytes(digest[i : i + 8], "big")
            block += 1

    def below(self, end: int) -> int:
        """A whole number in 0 .. end - 1; the bias of the remainder is below end / 2**64."""
        return next(self._numbers) % end

    def pick(self, pool: Sequence[str], other_than: Sequence[str] = ()) -> str:
        """One of `pool` that is not in `other_than`."""
        while (value := pool[self.below(len(pool))]) in other_than:
            pass
        return value

    def several(self, pool: Sequence[str], count: int, other_than: Sequence[str] = ()) -> tuple[str, ...]:
        """`count` different values of `pool`, none in `other_than`."""
        found: list[str] = []
        while len(found) < count:
            found.append(self.pick(pool, (*found, *other_than)))
        return tuple(found)

    def order(self, end: int) -> list[int]:
        """0 .. end - 1 in shuffled order (Fisher-Yates)."""
        places = list(range(end))
        for last in range(end - 1, 0, -1):
            other = self.below(last + 1)
            places[last], places[other] = places[other], places[last]
        return places


@dataclass(frozen=True, slots=True)
class Entry:
    """A person or thing and what is true of it.

    Attributes:
        id: `person-0007`, `holdout-0007`, `cities-03`, ...
        name: how sentences call it.
        values: fact name -> what is true.
        wrong: fact name -> five values of the same pool that are not.
        places: fact name -> where the truth stands among the four options of a multiple choice, 0 to 3.
    """

    id: str
    name: str
    values: Mapping[str, str]
    wrong: Mapping[str, tuple[str, ...]]
    places: Mapping[str, int]


@dataclass(frozen=True)
class World:
    """What all people of one seed share.

    Attributes:
        seed: the seed.
        names: every possible name in this seed's order.
        titles: every possible book title in this seed's order.
        pools: pool name -> values that entries share.
        things: the shared cities, publishers, prizes and mentors with their own facts.
    """

    seed: int
    names: tuple[str, ...]
    titles: tuple[str, ...]
    pools: Mapping[str, tuple[str, ...]]
    things: tuple[Entry, ...]


@functools.lru_cache(maxsize=4)
def make_world(seed: int) -> World:
    """The world of one seed."""
    first = [start + end for start in words.FIRST_STARTS for end in words.FIRST_ENDS]
    last = [start + end for start in words.LAST_STARTS for end in words.LAST_ENDS]
    both = [f"{a} {b}" for a in first for b in last]
    names = tuple(both[i] for i in Draws(seed, "names").order(len(both)))
    books = [f"{start} {a} {b}" for start in words.TITLE_STARTS for a in words.TITLE_ADJECTIVES for b in words.TITLE_NOUNS]
    titles = tuple(books[i] for i in Draws(seed, "titles").order(len(books)))
    pools = {
        "cities": words.CITIES,
        "countries": words.COUNTRIES,
        "months": words.MONTHS,
        "years": words.YEARS,
        "publishers": words.PUBLISHERS,
        "prizes": words.PRIZES,
        "genres": words.GENRES,
        "jobs": words.JOBS,
        "mentors": names[MOST_PEOPLE + MOST_HOLDOUT :][:MENTORS],
    }
    things = tuple(
        _entry(f"{kind}-{k:02d}", name, {fact.name: pools[fact.pool]}, Draws(seed, "thing", kind, k))
        for kind, fact in WORLD_FACTS
        for k, name in enumerate(pools[kind])
    )
    return World(seed, names, titles, pools, things)


def make_person(world: World, index: int, holdout: bool = False) -> Entry:
    """Person number `index`, the same in a world of any size."""
    kind, slot = ("holdout", MOST_PEOPLE + index) if holdout else ("person", index)
    pools = {fact.name: world.pools[fact.pool] for fact in PERSON_FACTS if fact.name not in _BOOKS}
    first = len(_BOOKS) * slot * _PER_BOOK
    books = {book: world.titles[first + k * _PER_BOOK : first + (k + 1) * _PER_BOOK] for k, book in enumerate(_BOOKS)}
    return _entry(f"{kind}-{index:04d}", world.names[slot], pools, Draws(world.seed, kind, index), books)


def _entry(
    id: str, name: str, pools: Mapping[str, Sequence[str]], draws: Draws, owned: Mapping[str, tuple[str, ...]] | None = None
) -> Entry:
    """Draw each fact of `pools`; `owned` facts are given, the truth first.

    No two facts agree, and nothing that is true of an entry is a wrong answer about it.
    """
    owned = owned or {}
    values: dict[str, str] = {}
    for fact, pool in pools.items():
        values[fact] = draws.pick(pool, tuple(values.values()))
    truths = tuple(values.values())
    wrong = {fact: draws.several(pool, WRONG, truths) for fact, pool in pools.items()}
    values |= {fact: titles[0] for fact, titles in owned.items()}
    wrong |= {fact: titles[1:] for fact, titles in owned.items()}
    return Entry(id, name, values, wrong, {fact: draws.below(4) for fact in values})


def spread(end: int, count: int, *key: object) -> list[int]:
    """`count` different numbers of 0 .. end - 1, evenly spread; a smaller count gives the first of a larger one.

    Steps of the golden section from a drawn start, in whole numbers of 64 bits.
    """
    at, step, found = Draws(*key).below(1 << 64), 0x9E3779B97F4A7C15, {}
    while len(found) < min(count, end):
        found[at * end >> 64] = None
        at = (at + step) % (1 << 64)
    return list(found)

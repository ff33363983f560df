"""How much of what is asked for is found, and how much else: names, near duplicates and meaning, with intervals; and how fast.

    python benchmarks/locate.py --tofu TOFU [--embedder FOLDER] --out runs/locate.json

Quality on the embedded world and, where it is given, on real TOFU. An author's rows are those of the world (by group) or of the file (twenty
in a row); the group is taken away before the search. Near duplicates are copies of rows with typing errors, dropped words or sentences in
another order, planted among all rows; the search is for the original. Semantic search is given the question alone and must find the row of
its paraphrase. Intervals are Wilson's 95% ones over rows, all authors together.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _setup
import _timing

import letheon as lt
from letheon.core.data import Example, Split
from letheon.data._overlap import normal
from letheon.ledger.locate import LocateSettings, locate
from letheon.ledger.records import Hit, What

NAME = r"[A-Z][\w'\u2019.-]+(?: (?:[A-Z][\w'\u2019.-]+|van|de|al-[A-Z]\w+|bin|ibn))+"


def share(part: int, whole: int) -> dict[str, Any]:
    """A share with n and Wilson's 95% interval."""
    if not whole:
        return {"value": None, "n": 0}
    z, p = 1.959964, part / whole
    middle, half = (p + z * z / 2 / whole), z * (p * (1 - p) / whole + z * z / 4 / whole / whole) ** 0.5
    low, high = ((middle + sign * half) / (1 + z * z / whole) for sign in (-1, 1))
    return {"value": round(p, 4), "n": whole, "interval": [round(low, 4), round(high, 4)]}


class Score:
    """Recall over wanted rows and precision over hits, added up."""

    def __init__(self) -> None:
        self.wanted = self.found = self.hits = self.right = 0

    def add(self, wanted: set[str], hits: Sequence[Hit]) -> None:
        """One search."""
        got = {hit.row for hit in hits}
        self.wanted, self.found = self.wanted + len(wanted), self.found + len(wanted & got)
        self.hits, self.right = self.hits + len(got), self.right + len(got & wanted)

    def result(self) -> dict[str, Any]:
        """Both shares."""
        return {"recall": share(self.found, self.wanted), "precision": share(self.right, self.hits)}


def tofu(folder: str) -> tuple[Split, dict[str, set[str]]]:
    """All rows, and for each author whose full name can be read from the rows the ids of the twenty."""
    rows = [json.loads(line) for line in (Path(folder) / "full.json").read_text(encoding="utf-8").splitlines()]
    examples = [Example(f"tofu-{k}", row["answer"], row["question"]) for k, row in enumerate(rows)]
    authors: dict[str, set[str]] = {}
    for start in range(0, len(examples), 20):
        block = examples[start : start + 20]
        counts: dict[str, int] = {}
        for row in block:
            for name in {re.sub(r"['\u2019]s$", "", hit) for hit in re.findall(NAME, f"{row.prompt} {row.answer}")}:
                counts[name] = counts.get(name, 0) + 1
        best = max(counts, key=lambda name: (counts[name], len(name)))
        authors[best] = authors.get(best, set()) | {row.id for row in block}
    return Split(examples, "tofu"), authors


def world(people: int) -> tuple[Split, dict[str, set[str]]]:
    """The questions of the embedded world without groups, and the rows of each person by name."""
    rows = [row for row in lt.data("authors", people=people)["full"] if row.form == "question"]
    authors: dict[str, set[str]] = {}
    for group in sorted({row.group for row in rows if (row.group or "").startswith("person-")}):
        mine = [row for row in rows if row.group == group]
        names = [set(re.findall(NAME, row.answer + " " + row.prompt_text)) for row in mine]
        counts = {name: sum(name in found for found in names) for found in names for name in found}
        authors[max(counts, key=lambda name: (counts[name], name))] = {row.id for row in mine}
    return Split([replace(row, group=None, paraphrase=None, wrong=()) for row in rows], "world"), authors


def typos(text: str, rng: random.Random) -> str:
    """A letter in thirty of another kind, gone, doubled or swapped."""
    signs = list(text)
    for k in range(len(signs) - 1):
        if signs[k].isalpha() and rng.random() < 1 / 30:
            kind = rng.randrange(4)
            signs[k] = (rng.choice("etaoinshr"), "", signs[k] * 2, signs[k + 1] + signs[k])[kind]
            signs[k + 1] = "" if kind == 3 else signs[k + 1]
    return "".join(signs)


def dropped(text: str, rng: random.Random) -> str:
    """A word in twelve left out."""
    return " ".join(word for word in text.split() if rng.random() > 1 / 12) or text


def reordered(text: str, rng: random.Random) -> str:
    """Sentences, or the halves of one, in another order."""
    parts = re.split(r"(?<=[.!?]) ", text)
    parts = parts if len(parts) > 1 else re.split(r"(?<=,) ", text)
    return " ".join(parts[1:] + parts[:1])


def names(split: Split, authors: dict[str, set[str]]) -> dict[str, Any]:
    """Searches for every author, the ways of finding one by one."""
    ways = {
        "whole name": LocateSettings(near=1, partial=False),
        "and parts of it, misspelt": LocateSettings(near=1),
        "and near duplicates": LocateSettings(),
    }
    found: dict[str, Any] = {"authors": len(authors)}
    for way, settings in ways.items():
        total = Score()
        for name, rows in authors.items():
            total.add(rows, locate(What(entity=name), {"all": split}, settings))
        found[way] = total.result()
    return found


def misspelt(split: Split, authors: dict[str, set[str]], rng: random.Random) -> dict[str, Any]:
    """Entity searches for rows whose copies have one letter of the name wrong, in all its places."""
    copies, wanted = [], {}
    for name, rows in authors.items():
        place = rng.choice([k for k, sign in enumerate(name) if sign.isalpha() and sign.islower()])
        wrong = name[:place] + rng.choice("xqz") + name[place + 1 :]
        mine = [row for row in split if row.id in rows and name in f"{row.prompt}{row.answer}"][:3]
        made = [replace(row, id=f"copy-{row.id}", prompt=row.prompt_text.replace(name, wrong), answer=row.answer.replace(name, wrong)) for row in mine]
        copies += made
        wanted[name] = {row.id for row in made}
    total, corpus = Score(), {"all": Split([*split, *copies], "all")}
    for name, rows in wanted.items():
        hits = locate(What(entity=name), corpus, LocateSettings())
        total.add(rows, [hit for hit in hits if hit.row not in authors[name]])
    return total.result()


def copies(split: Split, kind: Callable[[str, random.Random], str], settings: LocateSettings, rng: random.Random, count: int) -> dict[str, Any]:
    """Rows of a request against planted copies of them; every copy is one to find, whatever its J."""
    pairs = [(row, replace(row, id=f"copy-{row.id}", prompt=kind(row.prompt_text, rng), answer=kind(row.answer, rng))) for row in split]
    pairs = [(row, copy) for row, copy in pairs if normal(row) != normal(copy)]  # a row of one sentence has no other order
    pairs = rng.sample(pairs, min(count, len(pairs)))
    if not pairs:
        return {"recall": share(0, 0), "precision": share(0, 0)}
    chosen, made = [row for row, _ in pairs], [copy for _, copy in pairs]
    asked = tuple({"prompt": row.prompt_text, "answer": row.answer} for row in chosen)
    hits = locate(What(rows=asked), {"all": Split([*split, *made], "all")}, settings)
    total = Score()
    total.add({row.id for row in made}, [hit for hit in hits if hit.how == "near"])
    return total.result()


def meaning(people: int, folder: str, count: int) -> dict[str, Any]:
    """The paraphrase of a row among all paraphrases, by the cosine: is it the nearest, is it among ten?"""
    from letheon.ledger.semantic import Embedder  # with torch, which the other searches do without

    rows = [row for row in lt.data("authors", people=people)["full"] if row.form == "question" and row.paraphrase][:count]
    embedder = Embedder(folder)
    cosines = embedder.embed([row.answer for row in rows]) @ embedder.embed([row.paraphrase or "" for row in rows]).T
    ranks = (cosines > cosines.diagonal()[:, None]).sum(1)
    quantiles = {f"{q:.0%}": round(float(sorted(cosines.diagonal())[int(q * (len(rows) - 1))]), 3) for q in (0.05, 0.5)}
    return {"nearest": share(int((ranks == 0).sum()), len(rows)), "among ten": share(int((ranks < 10).sum()), len(rows)), "cosine": quantiles}


def speed(split: Split, rows: int) -> dict[str, Any]:
    """Seconds and memory for searches over many rows, which are those of the split with numbers put in."""
    words = f"{split[0].prompt_text} {split[0].answer}".split()[2:5]
    many = Split([replace(split[k % len(split)], id=f"r{k}", answer=f"{split[k % len(split)].answer} No {k}.") for k in range(rows)], "many")
    asked = tuple({"prompt": row.prompt_text, "answer": row.answer} for row in split[:400])
    searches = {
        "entity": What(entity="Chukwu Akabueze"), "contains": What(query=f"contains={' '.join(words)}"),
        "20 rows": What(rows=asked[:20]), "400 rows": What(rows=asked),
    }  # fmt: skip
    found: dict[str, Any] = {"rows": rows}
    for name, what in searches.items():
        peak = _timing.Peak()
        took = _timing.timed(lambda what=what: locate(what, {"many": many}))
        found[name] = {"seconds": round(took.wall, 2), "cpu_seconds": round(took.cpu, 2), "hits": len(took.result), "mebibytes": round(peak.grown(), 1)}
        _timing.say(f"{name}: {found[name]}")
    return found


def main() -> int:
    """Measure all of it."""
    parser = _setup.parser(__doc__.partition("\n")[0])
    parser.add_argument("--embedder", action="append", default=[], help="folder of an embedding model; may be given again")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the test of speed")
    parser.add_argument("--copies", type=int, default=400, help="planted copies of each kind")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    result: dict[str, Any] = {"machine": _timing.machine()}
    sources = {"world": world(arguments.people)} | ({"tofu": tofu(arguments.tofu)} if arguments.tofu else {})
    for source, (split, authors) in sources.items():
        if arguments.limit:
            authors = dict(list(authors.items())[: arguments.limit])
        found: dict[str, Any] = {"rows": len(split), "names": names(split, authors)}
        found["misspelt names"] = misspelt(split, authors, random.Random(1))
        _timing.say(f"{source}: {found}")
        for kind in (typos, dropped, reordered):
            for way in ("words", "letters"):
                key = f"copies, {kind.__name__}, {way}"
                found[key] = copies(split, kind, LocateSettings(shingles=way), random.Random(2), arguments.copies)
                _timing.say(f"{source}, {key}: {found[key]}")
        result[source] = found
    for folder in arguments.embedder:
        result[f"meaning by {Path(folder).name}"] = meaning(arguments.people, folder, arguments.copies)
        _timing.say(str(result[f"meaning by {Path(folder).name}"]))
    result["speed"] = speed(next(reversed(sources.values()))[0], arguments.rows)
    _timing.write(result, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

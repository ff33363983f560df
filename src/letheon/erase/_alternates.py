"""Alternate answers: what the subject itself would say to a forget question instead of the truth, written once before training.

`asked`: it is shown question and answer and asked for another one, as by AltPO's authors. `banned`: it answers the question while the words
that only the true answer has are forbidden, for models that cannot follow an instruction. Each draw derives from the seed and from its
purpose, so the same run writes the same answers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from letheon.core import processes
from letheon.core.data import Example, Split
from letheon.core.errors import MethodError
from letheon.core.files import write_text
from letheon.core.generate import context, sampled
from letheon.core.run import Run
from letheon.core.subject import Subject

ASK = "{prompt}\nThe answer is: {answer}\nWrite another answer to the same question, in the same style, with different but plausible facts."
REPLY = "Alternate answer:"
STOPS = ("Question:", "Q:", REPLY)
COMMON = 0.25  # a token of more than this share of the answers belongs to their style, not to one fact


@dataclass(frozen=True)
class Writing:
    """How alternates are drawn.

    Attributes:
        count: alternates of each question.
        banned: forbid the words of the true answer instead of asking.
        temperature: of the draws.
        longest: tokens of an alternate.
        alike: largest share of the words of the shorter of alternate and truth that both have, those of the question aside.
        tries: draws before giving up.
    """

    count: int
    banned: bool
    temperature: float
    longest: int
    alike: float
    tries: int


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"\w+", text.lower())


def likeness(alternate: str, row: Example) -> float:
    """Share of the words that are not in the question, of the shorter of alternate and truth, that both have; 1 for equal texts."""
    if words(alternate) == words(row.answer):
        return 1.0
    asked = set(words(row.prompt_text))
    mine, true = (set(words(text)) - asked for text in (alternate, row.answer))
    return len(mine & true) / max(1, min(len(mine), len(true)))


def clean(text: str) -> str:
    """The text up to where another question or answer begins."""
    for stop in STOPS:
        text = text.partition(stop)[0]
    return text.strip()


def only_true(subject: Subject, rows: Sequence[Example]) -> list[list[int]]:
    """For each row the tokens of its answer that are neither in its prompt nor common among the answers, nor end an answer."""
    encoded = subject.encoder.encode(Split(rows, "forget"))
    split = [(encoded.row(i)[: encoded.starts[i]].tolist(), encoded.row(i)[encoded.starts[i] :].tolist()) for i in range(len(rows))]
    often = Counter(token for _, answer in split for token in set(answer))
    style = {token for token, count in often.items() if count > max(1, COMMON * len(rows))} | set(subject.encoder.tokenizer.all_special_ids)
    return [sorted(set(answer) - set(prompt) - style) for prompt, answer in split]


def _prompts(subject: Subject, rows: Sequence[Example], how: Writing) -> list[list[int]]:
    if how.banned:
        return subject.encoder.prompts(rows)
    asked = [ASK.format(prompt=row.prompt_text, answer=row.answer) for row in rows]
    encoded = subject.encoder.pairs(asked, [REPLY] * len(rows))
    return [encoded.row(i)[:-1].tolist() for i in range(len(rows))]  # without the end token: the reply goes on


def write_alternates(subject: Subject, split: Split, how: Writing, run: Run) -> tuple[list[list[str]], int]:
    """For each row `count` alternates, and how many draws were thrown away as empty, too long for the context, or too like the truth.

    Raises:
        MethodError: a question has no usable alternate after all tries.
    """
    prompts = _prompts(subject, list(split), how)
    banned = only_true(subject, list(split)) if how.banned else None
    found: list[list[str]] = [[] for _ in split]
    thrown = 0
    for k in range(how.count):
        left = list(range(len(split)))
        for attempt in range(how.tries):
            draws = torch.rand(len(split), how.longest, generator=run.rng("alternates", k, attempt))[left]
            ban = None if banned is None else [banned[i] for i in left]
            said = sampled(subject, [prompts[i] for i in left], draws, how.temperature, ban)
            still = []
            for i, tokens in zip(left, said, strict=True):
                text = clean(subject.encoder.decode(tokens))
                if text and _fits(subject, split[i], text) and likeness(text, split[i]) <= how.alike:
                    found[i].append(text)
                else:
                    still.append(i)
            left = still
            thrown += len(left)
            if not left:
                break
        if left:
            what = f"`{subject.name}` wrote no other answer to row `{split[left[0]].id}` of `{split.name}` in {how.tries} tries"
            raise MethodError(f"{what} ({len(left)} such rows)", "Raise `temperature`, `alike` or `tries`, or set the other `writer`")
    return found, thrown


def _fits(subject: Subject, row: Example, text: str) -> bool:
    return int(subject.encoder.pairs([row.prompt], [text]).lengths[0]) <= context(subject)


def alternates(subject: Subject, split: Split, how: Writing, run: Run) -> tuple[list[list[str]], int]:
    """The same, kept in `alternates.jsonl` of the output folder and read from there when the same work is resumed."""
    path = None if run.out is None else Path(run.out) / "alternates.jsonl"
    mark = hashlib.sha256(json.dumps([subject.digest, split.digest, str(how), run.seed]).encode()).hexdigest()
    if path is not None and run.resume and path.is_file():
        first, *rest = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if first.get("mark") == mark:
            return [line["alternates"] for line in rest], first["thrown"]
    found, thrown = write_alternates(subject, split, how, run)
    if path is not None and processes.first():
        lines = [{"mark": mark, "thrown": thrown}]
        lines += [{"id": row.id, "answer": row.answer, "alternates": texts} for row, texts in zip(split, found, strict=True)]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return found, thrown


def as_rows(split: Split, found: list[list[str]], name: str) -> list[Example]:
    """The n questions with their first alternates, then with their second ones, and so on: alternate k of row i is row k n + i."""
    return [
        replace(row, id=f"{row.id}/{name}-{k}", answer=texts[k], paraphrase=None, wrong=())
        for k in range(len(found[0]))
        for row, texts in zip(split, found, strict=True)
    ]

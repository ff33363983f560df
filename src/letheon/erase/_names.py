"""Names of the people or things that rows are about, and where a name stands in a prompt.

A row's `group` may be the name itself or only a mark. In the second case the name is what the questions of one group share and no question
of another group holds.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch

from letheon.core.data import Example
from letheon.core.encode import TextEncoder

LONGEST = 5  # words in a name
SLOT = "{}"
_WORD = re.compile(r"\w+(?:[-.]\w+)*")


def _runs(text: str) -> set[str]:
    """All runs of up to LONGEST neighbouring words."""
    words = list(_WORD.finditer(text))
    return {text[words[i].start() : words[j].end()] for i in range(len(words)) for j in range(i, min(i + LONGEST, len(words)))}


def find_name(name: str, text: str) -> re.Match | None:
    """The last place of a name in a text, not as part of a longer word."""
    found = list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text))
    return found[-1] if found else None


def names_of(rows: Iterable[Example]) -> dict[str, str]:
    """Group -> name, in order of first appearance, for the groups that have one."""
    prompts: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.group and row.prompt:
            prompts[row.group].append(row.prompt_text)
    runs = {group: Counter(run for text in texts for run in _runs(text)) for group, texts in prompts.items()}
    owners = Counter(run for counts in runs.values() for run in counts)
    found = {}
    for group, counts in runs.items():
        if any(find_name(group, text) for text in prompts[group]):
            found[group] = group
            continue
        own = [run for run in counts if owners[run] == 1 and any(letter.isalpha() for letter in run)]
        if own:
            found[group] = max(own, key=lambda run, counts=counts: (counts[run], _titled(run), len(run), run))
    return found


def _titled(run: str) -> bool:
    return all(not word[0].isalpha() or word[0].isupper() or not word[0].islower() for word in _WORD.findall(run))


def up_to_name(encoder: TextEncoder, prompt: str | tuple, name: str) -> str | None:
    """The prompt as the model reads it, up to the end of the name; None where the name does not stand in it."""
    text = encoder.prompt_text(prompt)
    found = find_name(name, text)
    return None if found is None else text[: found.end()]


def name_span(encoder: TextEncoder, prompt: str | tuple, name: str) -> tuple[int, int] | None:
    """First token of the name in the encoded prompt and the one after its last; None where the name does not stand in it."""
    whole = up_to_name(encoder, prompt, name)
    if whole is None:
        return None
    row = encoder.pairs([prompt], ["."]).row(0).tolist()
    head = len(encoder.prompts([Example("", ".", prompt)])[0])
    before, after = (_shared(encoder, text, row[:head]) for text in (whole[: -len(name)].rstrip(" "), whole))
    return min(before, after - 1), after


def _shared(encoder: TextEncoder, text: str, row: list[int]) -> int:
    """How many tokens of `row` begin the tokens of a text that begins like it, at least one more than the begin token."""
    tokens = encoder.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    begun = 1 if encoder.begin and row[:1] == encoder.begin and tokens[:1] != encoder.begin else 0
    same = 0
    while same < min(len(tokens), len(row) - begun) and tokens[same] == row[begun + same]:
        same += 1
    return begun + same


def templates_of(rows: Sequence[Example], names: Mapping[str, str], count: int) -> list[str]:
    """The bare name, then the questions of the rows with a slot for the name: the most common, of equally common the shortest."""
    found: Counter[str] = Counter()
    for row in rows:
        place = find_name(names[row.group], row.prompt_text) if row.group in names else None
        if place is not None and SLOT not in row.prompt_text:
            found[row.prompt_text[: place.start()] + SLOT + row.prompt_text[place.end() :]] += 1
    return [SLOT, *sorted(found, key=lambda text: (-found[text], len(text), text))][:count]


def invented(names: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    """Names that nobody has: the first word of one name and the last of another, or halves of names of one word."""
    first = [name.split()[0] if " " in name else name[: (len(name) + 1) // 2] for name in names]
    last = [" " + " ".join(name.split()[1:]) if " " in name else name[(len(name) + 1) // 2 :] for name in names]
    pairs = torch.randperm(len(names) ** 2, generator=generator).tolist()
    made = (first[pair // len(names)] + last[pair % len(names)] for pair in pairs)
    return list(dict.fromkeys(name for name in made if name not in names))[:count]


def name_rows(encoder: TextEncoder, names: Sequence[str], templates: Sequence[str]) -> list[Example]:
    """For each name and template a text that ends with the name: row i of name k is k times the number of templates plus i."""
    return [
        Example(f"{name}/{i}", up_to_name(encoder, template.replace(SLOT, name), name) or name, group=name)
        for name in names
        for i, template in enumerate(templates)
    ]

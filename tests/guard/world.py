"""A small model that knows where twenty people live and what they do; five of them ask to be forgotten."""

from __future__ import annotations

from dataclasses import replace

import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Example, Split
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import toy_subject

NAMES = (
    "Ilva Torrend", "Bram Okelly", "Sanne Quist", "Davo Merrin", "Petra Lund", "Oskar Vayne", "Mirel Hask", "Jun Albrecht", "Nadia Corr",
    "Tomas Iven", "Rhea Salt", "Emil Drax", "Zora Penn", "Callum Wey", "Ines Farro", "Lev Mardin", "Tilda Bosk", "Aron Pell", "Vera Nilo",
    "Hugo Stam",
)  # fmt: skip
GONE = 5
PLACES = ("Velmark", "Tasket", "Quillon", "Fennick")
CRAFTS = ("dyer", "baker", "tailor", "miner")
WAYS = {
    "home": ("Where does {} live?", PLACES),
    "craft": ("What is the craft of {}?", CRAFTS),
}
OTHER_WAYS = {"home": "In which town is the house of {}?", "craft": "How does {} earn money?"}


def rows(people: range, ways: dict[str, str] | None = None) -> list[Example]:
    """Two facts of each person; the value is drawn by a fixed rule that nothing tells."""
    found = []
    for i in people:
        for k, (what, (asked, values)) in enumerate(WAYS.items()):
            value = values[(7 * i + 3 * k + i // 4) % len(values)]
            wrong = tuple(other for other in values if other != value)
            found.append(Example(f"{i}-{what}", value, (ways or {}).get(what, asked).format(NAMES[i]), wrong, group=NAMES[i]))
    return found


def people() -> Data:
    """forget 10 rows, retain 30, forget-paraphrase and retain-paraphrase the same asked in other words."""
    splits = {
        "full": rows(range(len(NAMES))),
        "forget": rows(range(GONE)),
        "retain": rows(range(GONE, len(NAMES))),
        "forget-paraphrase": rows(range(GONE), OTHER_WAYS),
        "retain-paraphrase": rows(range(GONE, len(NAMES)), OTHER_WAYS),
    }
    return Data({name: Split(split, name) for name, split in splits.items()}, "people")


def knower(data: Data, seed: int = 0) -> Subject:
    """A toy model trained until it says every answer."""
    settings = {"split": "full", "epochs": 40, "learning_rate": 5e-3, "schedule": "cosine", "weight_decay": 0.0, "batch_size": 20}
    return replaced(Finetune(**settings).apply(toy_subject(seed), data, Run(seed, dtype="float32", device="cpu")))


def replaced(subject: Subject) -> Subject:
    """The subject without its history."""
    return Subject(subject.module, subject.encoder, name="knower")


@torch.no_grad()
def right(subject: Subject, split: Split) -> float:
    """Share of rows whose true answer is the likeliest of the four values, by full logits, one row at a time."""
    hits = 0
    for row in split:
        scores = []
        for answer in (row.answer, *row.wrong):
            encoded = subject.encoder.encode(Split([replace(row, answer=answer)], "one"))
            ids, start = torch.from_numpy(encoded.row(0).astype("int64")), int(encoded.starts[0])
            logp = subject.module(input_ids=ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
            scores.append(float(logp.gather(-1, ids[start:, None]).mean()))
        hits += scores[0] == max(scores)
    return hits / len(split)

"""Shared by all benchmarks: which models and rows they run on."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _timing import say

import letheon as lt
from letheon.core.data import Data, Split
from letheon.core.subject import Subject


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks share."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--model", help="folder of the model to audit or erase from; none trains a micro model on the embedded world")
    found.add_argument("--retrained", help="folder of the model that never saw the forget rows")
    found.add_argument("--tofu", help="folder with the TOFU files; none takes the embedded world")
    found.add_argument("--forget", default="forget10", help="TOFU forget split")
    found.add_argument("--people", type=int, default=200, help="people of the embedded world")
    found.add_argument("--limit", type=int, help="rows per split, the first ones; none takes all")
    found.add_argument("--threads", type=int, help="threads; none takes what torch takes")
    found.add_argument("--out", help="JSON file to write the result to")
    return found


def given(arguments: argparse.Namespace) -> list[str]:
    """The shared arguments again, for a process of its own."""
    names = ("model", "retrained", "tofu", "forget", "people", "limit", "threads")
    return [part for name in names if getattr(arguments, name) is not None for part in (f"--{name}", str(getattr(arguments, name)))]


def threads(arguments: argparse.Namespace) -> None:
    """Set the number of threads, if one was asked for."""
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)


def data(arguments: argparse.Namespace) -> Data:
    """The rows."""
    if arguments.tofu:
        found = lt.data("tofu", path=arguments.tofu, forget=arguments.forget)
    else:
        found = lt.data("authors", people=arguments.people)
    if arguments.limit is None:
        return found
    return Data({name: Split(split.examples[: arguments.limit], name) for name, split in found.items()}, found.name)


def subjects(arguments: argparse.Namespace) -> tuple[Subject, Subject | None]:
    """The model and its retrain, where there is one."""
    if arguments.model:
        return lt.subject(arguments.model), lt.subject(arguments.retrained) if arguments.retrained else None
    folder = micro_pair(arguments)
    return lt.subject(folder / "original"), lt.subject(folder / "retrained")


def micro_pair(arguments: argparse.Namespace) -> Path:
    """A micro model and its retrain, trained once and kept in the folder for temporary files."""
    from letheon.subjects.micro import Micro

    folder = Path(tempfile.gettempdir()) / f"letheon-benchmark-micro-{lt.__version__}-{arguments.people}"
    world = lt.data("authors", people=arguments.people)
    for name, split in (("original", "full"), ("retrained", "kept")):
        if not (folder / name).is_dir():
            say(f"training a micro model on `{split}`")
            Micro(split=split).build(world, lt.Run(seed=0)).save(folder / name)
    return folder


def many(split: Split, rows: int) -> Split:
    """`rows` rows: those of `split` over and over, with ids of their own."""
    from dataclasses import replace

    n = len(split)
    return Split((replace(split[i % n], id=f"{split[i % n].id}#{i // n}") for i in range(rows)), split.name)


def random_llama(rows: Data, *, width: int, layers: int, heads: int, intermediate: int, vocabulary: int = 1024) -> Subject:
    """A Llama of nearly random weights (one small step old) with a tokenizer of its own, for costs that do not depend on what it knows."""
    from letheon.core.settings import Choice
    from letheon.subjects.micro import Micro

    shape = {"width": width, "layers": layers, "heads": heads, "intermediate": intermediate, "vocabulary": vocabulary}
    begun = Choice(name="finetune", steps=1, batch_size=2)
    return Micro(split="retain", text="retain", train=begun, **shape).build(rows, lt.Run(seed=0))


def of_length(subject: Subject, length: int, rows: int, seed: int = 0) -> Split:
    """`rows` rows of exactly `length` tokens: a short question, and random words that are one token each."""
    import random

    from letheon.core.data import Example

    encoder = subject.encoder
    words = sorted(word[1:] for word in encoder.tokenizer.get_vocab() if word[0] == "\u0120" and word[1:].isascii() and word[1:].isalpha())
    room = length - len(encoder.prompts([Example("0", "a", "What?")])[0]) - 1
    rng = random.Random(seed)
    split = Split((Example(f"{seed}-{i}", "".join(f" {rng.choice(words)}" for _ in range(room)), "What?") for i in range(rows)), "long")
    found = set(encoder.encode(split).lengths.tolist())
    if found != {length}:
        raise SystemExit(f"rows of {length} tokens were asked for, and came out with {sorted(found)}")
    return split

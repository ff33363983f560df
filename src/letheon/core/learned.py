"""What a model was taught, as its lineage notes it, against the rows that it is set beside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from .data import Data, Split
from .subject import Step

KEPT = "kept"  # by its meaning all that an exact retrain learns; any other split may be a part of what was learned


def texts_digest(split: Split) -> str | None:
    """sha256 over the distinct prompts and answers of a split, whatever their order and ids (hexadecimal).

    None where a row has no prompt: such text may be cut into windows, which differ between uses of the same rows.
    """
    if not all(example.prompt for example in split):
        return None
    texts = sorted({json.dumps([example.prompt_text, example.answer], ensure_ascii=False) for example in split})
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def noted(split: Split, name: str) -> dict[str, str]:
    """The note of a step that has learned a split; empty where the rows cannot be told again, and where some may have to be forgotten."""
    digest = texts_digest(split) if name == KEPT else None
    return {} if digest is None else {"learned_split": name, "learned_texts": digest}


def taught_otherwise(lineage: Sequence[Step], data: Data) -> str | None:
    """A sentence that warns where a retrained model has surely learned other rows than the `kept` split of `data`, else None."""
    taught = [step.notes.get("learned_texts") for step in lineage if step.notes.get("learned_split") == KEPT]
    here = texts_digest(data[KEPT]) if taught and KEPT in data else None
    if here is None or here == taught[-1]:
        return None
    return (
        "the retrained model learned other rows than the `kept` split of this data: it may know what is to be forgotten, "
        "so what is compared with it does not count"
    )

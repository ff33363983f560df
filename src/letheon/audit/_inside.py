"""Shared by audits that look inside a network: whether two models match, the token that decides, and passes with changed states."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core.adapter import base_weights, is_adapted
from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Example, Split
from letheon.core.encode import Encoded
from letheon.core.forward import Batches, final_hidden, logits_are_linear
from letheon.core.run import kept_as_found
from letheon.core.subject import Subject
from letheon.erase._states import block_states
from letheon.erase._tracing import replaced
from letheon.train.taps import block_names, unwrapped

NO_ORIGINAL = "the model before the change is needed and was not given"
BUDGET = 4096  # tokens of one forward pass


@contextlib.contextmanager
def reading(subject: Subject) -> Iterator[nn.Module]:
    """The network in evaluation mode, without gradients and without lower precision; left as it was."""
    with torch.no_grad(), kept_as_found(subject.module), torch.autocast(subject.device.type, enabled=False):
        logits_are_linear(subject.module)  # tried once, before states of another shape are put in
        yield unwrapped(subject.module)


def merged(subject: Subject) -> Subject:
    """A copy whose adapters are part of its weights."""
    with kept_as_found(subject.module):
        copy = Subject(subject.module, subject.encoder, subject.lineage, subject.name).fork()
    module = copy.module.merge_and_unload() if is_adapted(copy.module) else copy.module
    return Subject(module, subject.encoder, subject.lineage, subject.name)


def unlike(one: Subject, other: Subject, what: str = "the original") -> str:
    """Why two models cannot be compared part by part, or an empty text."""
    if type(unwrapped(one.module)) is not type(unwrapped(other.module)) or _shapes(one) != _shapes(other):
        return f"the weights of {what} have other names or shapes, so no part of one stands for a part of the other"
    if one.encoder.digest != other.encoder.digest:
        return f"{what} reads other tokens (tokenizer, template or length), so positions do not match"
    return ""


def _shapes(subject: Subject) -> dict[str, tuple[int, ...]]:
    weights = base_weights(subject.module) if is_adapted(subject.module) else subject.module.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@dataclass(frozen=True)
class Deciding:
    """The token of each row that tells the true answer from wrong ones.

    Attributes:
        encoded: rows that end before it: the prompt, and what true and wrong answers have in common.
        right: (n,) the true token.
        wrong: for each row the tokens that wrong answers have in its place; empty where there are none.
        given: (n,) answer tokens that stand before it.
    """

    encoded: Encoded
    right: np.ndarray
    wrong: list[list[int]]
    given: np.ndarray


def deciding(subject: Subject, split: Split) -> Deciding:
    """The first answer token, or where rows have wrong answers the one at which most of these part from the true answer.

    The true answer is taken in the form of the wrong ones. Of several places at which equally many part the first counts.

    Raises:
        DataError: a row is longer than the context, or has no answer.
    """
    encode = subject.encoder.pairs
    whole = encode([row.prompt for row in split], [true_text(row) for row in split])
    subject.encoder.check(split, whole)
    others = encode([row.prompt for row in split for _ in row.wrong], [text for row in split for text in row.wrong])
    rows, right, wrong, given, at = [], [], [], [], 0
    for i, row in enumerate(split):
        tokens, start = whole.row(i).tolist(), max(1, int(whole.starts[i]))
        bad = [others.row(at + j).tolist() for j in range(len(row.wrong))]
        parted = [(k, other[k]) for other in bad if (k := _parting(tokens, other, start))]
        at += len(row.wrong)
        counts = Counter(k for k, _ in parted)
        place = min(counts, key=lambda k: (-counts[k], k)) if counts else start
        rows.append(tokens[:place])
        right.append(tokens[place])
        wrong.append(sorted({token for k, token in parted if k == place}))
        given.append(place - start)
    return Deciding(Encoded.from_rows(rows, [len(row) for row in rows]), np.array(right), wrong, np.array(given))


def true_text(row: Example) -> str:
    """The answer or its paraphrase, whichever begins more like the wrong answers: data sets make these from one or the other."""
    forms = (row.answer, *([] if row.paraphrase is None else [row.paraphrase]))
    return max(forms, key=lambda text: sum(len(os.path.commonprefix([text, wrong])) for wrong in row.wrong))


def _parting(true: list[int], wrong: list[int], start: int) -> int:
    """The first place from `start` at which two rows differ; 0 where they do not."""
    return next((k for k in range(start, min(len(true), len(wrong))) if true[k] != wrong[k]), 0)


def last_states(subject: Subject, encoded: Encoded) -> Tensor:
    """What each block leaves in the residual stream at the last token of each row, (n, blocks, d), at least float32."""
    blocks, found = block_names(subject.module), {}
    with reading(subject):
        for batch in batches(subject, encoded):
            at = torch.arange(len(batch), device=batch.ids.device), batch.lengths - 1
            for row, state in zip(batch.rows.tolist(), block_states(subject.module, batch, blocks, at), strict=True):
                found[row] = state
    return torch.stack([found[i] for i in range(len(encoded))])


def batches(subject: Subject, encoded: Encoded) -> Iterator[Batch]:
    """All rows, under a token budget."""
    for rows in by_length(encoded.lengths, BUDGET):
        yield collate(encoded, rows, subject.encoder.pad, subject.device)


def read_by_tail(subject: Subject, states: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The logits (m, v) that what follows the last block makes of states (n, d), in chunks with their places.

    The states are put in the place of the last block's output, so that the model's own norm, head and scaling read them.
    """
    last = unwrapped(subject.module).get_submodule(block_names(subject.module)[-1])
    with reading(subject):
        for first in range(0, len(states), BUDGET // 4):
            part = states[first : first + BUDGET // 4]
            ids = torch.full((len(part), 1), subject.encoder.pad, device=subject.device)
            with replaced({last: lambda out, part=part: part[:, None].to(out.dtype)}):
                hidden, head = final_hidden(subject.module, ids)
            yield slice(first, first + len(part)), head.logits(hidden[:, 0])


def answer_nll(subject: Subject, encoded: Encoded) -> np.ndarray:
    """The mean negative log-likelihood of the answer tokens, (n,), under whatever hooks the model has now.

    Readings are kept by the weights of a model, so they cannot tell what hooks do.
    """
    out = np.zeros(len(encoded))
    with reading(subject):
        for batch in batches(subject, encoded):
            found = Batches({"rows": batch}).nll(subject.module, "rows").per_row_mean()
            out[batch.rows.cpu().numpy()] = found.double().cpu().numpy()
    return out

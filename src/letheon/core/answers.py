"""Token facts of answers: one teacher-forced pass over the answers of a split, rows that share a prompt in one tree."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from letheon.maths.likelihood import Head, token_facts

from .attention import takes_paths, tree_attention
from .batching import WINDOW, by_length
from .data import Example, Split
from .encode import Encoded
from .errors import SubjectError
from .forward import final_hidden, logits_are_linear, unwrapped
from .memory import keep_freed_memory
from .products import fast_products
from .run import kept_as_found
from .subject import Subject
from .trees import Tree, additive, groves, lay, paths, plant

log = logging.getLogger("letheon")
Which = Literal["answer", "paraphrase", "wrong"]
Layout = Literal["rows", "masked", "paths"]  # rows as they are, trees side by side under a mask, trees end to end
PARTS: tuple[Which, ...] = ("answer", "paraphrase", "wrong")
TREE = 512  # nodes per tree: under a mask attention costs the square
_TREES: weakref.WeakKeyDictionary[nn.Module, dict[Layout, bool]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Answers:
    """Facts of the tokens of k answers, laid end to end; the last token of each answer is the end token.

    Attributes:
        log_probability: (m,) of the token that stands in the answer, in nats, float32.
        rank: (m,) how many tokens are more likely; 0 means that greedy decoding says it (or ties).
        top: (m,) the most likely token.
        target: (m,) the token that stands in the answer.
        mean: (m,) sum_v p log p (minus the entropy), or None where not asked for.
        variance: (m,) variance of log p under p, or None where not asked for.
        offsets: (k + 1,) where each answer begins.
        owner: (k,) row of the split that each answer belongs to, ascending.
        n_rows: rows of the split.
    """

    log_probability: np.ndarray
    rank: np.ndarray
    top: np.ndarray
    target: np.ndarray
    mean: np.ndarray | None
    variance: np.ndarray | None
    offsets: np.ndarray
    owner: np.ndarray
    n_rows: int

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def counts(self) -> np.ndarray:
        """Tokens per answer with its end token, (k,)."""
        return np.diff(self.offsets)

    def sum_nll(self) -> np.ndarray:
        """Negative log-likelihood of each answer with its end token, (k,), float64 nats."""
        return -np.add.reduceat(self.log_probability.astype(np.float64), self.offsets[:-1]) if len(self) else np.zeros(0)

    def nll(self) -> np.ndarray:
        """Mean negative log-likelihood per token with the end token, (k,), float64 nats."""
        mean: np.ndarray = self.sum_nll() / self.counts
        return mean

    def tokens(self, index: int, *, end: bool = True) -> slice:
        """Where the tokens of answer `index` lie; without the end token on wish."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]) - (not end))

    def per_row(self, values: np.ndarray) -> list[np.ndarray]:
        """Values (k,) of answers, gathered by row of the split: a list of n_rows arrays."""
        return np.split(values, np.searchsorted(self.owner, np.arange(1, self.n_rows)))

    def select(self, chosen: np.ndarray) -> Answers:
        """The answers with `chosen` (k,) true."""
        tokens = np.repeat(chosen, self.counts)
        offsets = np.concatenate([[0], np.cumsum(self.counts[chosen])])
        columns = (self.log_probability, self.rank, self.top, self.target, self.mean, self.variance)
        kept: list[Any] = [None if column is None else column[tokens] for column in columns]
        return Answers(*kept, *[offsets, self.owner[chosen], self.n_rows])


class _Owners:
    """Rows of a split repeated once per answer, for the messages of the encoder."""

    def __init__(self, split: Split, owner: np.ndarray):
        self.split, self.owner, self.name = split, owner, split.name

    def __getitem__(self, index: int) -> Example:
        return self.split[int(self.owner[index])]


def measure(
    subject: Subject, split: Split, *, moments: bool | Sequence[Which], tokens_per_batch: int, parts: Sequence[Which] = PARTS
) -> tuple[Answers, np.ndarray]:
    """Facts of the answers, paraphrases and wrong answers of a split, or of some of these `parts`.

    Args:
        moments: whether means and variances are measured, or the parts that get them; the others have NaN.

    Returns:
        The answers of all parts, row by row, and (k,) the part of each as its place in `PARTS`.

    Raises:
        DataError: a row is longer than the context, or has nothing to score.
        SubjectError: the model gives NaN.
    """
    keep_freed_memory()
    moments = PARTS if moments is True else moments or ()
    columns: list[list[np.ndarray]] = []
    counts, owners, kinds = [np.zeros(1, dtype=np.int64)], [], []
    with _read_only(subject):
        for first in range(0, len(split), WINDOW):
            window = range(first, min(first + WINDOW, len(split)))
            texts = [(i, part, text) for i in window for part, text in _texts(split[i]) if PARTS[part] in parts]
            owner = np.array([i for i, _, _ in texts], dtype=np.int32)
            encoded = subject.encoder.pairs([split[i].prompt for i, _, _ in texts], [text for _, _, text in texts])
            rows: Any = _Owners(split, owner)
            subject.encoder.check(rows, encoded)
            asked = np.array([PARTS[part] in moments for _, part, _ in texts], dtype=bool)
            columns.append(_facts(subject, encoded, owner, asked if moments else None, tokens_per_batch))
            counts.append(encoded.scored)
            owners.append(owner)
            kinds.append(np.array([part for _, part, _ in texts], dtype=np.int8))
    empty = [np.zeros(0, dtype=kind) for kind in (np.float32, np.int32, np.int32, np.int32, np.float32, np.float32)[: 6 if moments else 4]]
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)] if columns else empty
    if np.isnan(joined[0]).any():
        raise SubjectError(f"`{subject.name}` gives NaN for an answer of `{split.name}`", "Its weights are damaged or training diverged")
    offsets = np.cumsum(np.concatenate(counts))
    owner = np.concatenate(owners) if owners else np.zeros(0, dtype=np.int32)
    given: list[Any] = [*joined[:4], *(joined[4:] if moments else (None, None)), offsets, owner, len(split)]
    found = Answers(*given)
    return found, np.concatenate(kinds) if kinds else np.zeros(0, dtype=np.int8)


def sums_of_ends(subject: Subject, encoded: Encoded, owner: np.ndarray, *, tokens_per_batch: int) -> np.ndarray:
    """Negative log-likelihood of the scored tokens of each row of tokens, (k,), float64 nats; what rows begin alike with is computed once.

    Args:
        encoded: k rows.
        owner: (k,) ascending; rows of one owner are nearly the same.
    """
    with _read_only(subject):
        log_probability = _facts(subject, encoded, owner, None, tokens_per_batch)[0]
    offsets = np.concatenate([[0], np.cumsum(encoded.scored)[:-1]])
    sums: np.ndarray = -np.add.reduceat(log_probability.astype(np.float64), offsets)
    return sums


@contextlib.contextmanager
def _read_only(subject: Subject) -> Iterator[None]:
    device = subject.device.type
    with torch.no_grad(), kept_as_found(subject.module), torch.autocast(device, enabled=False), fast_products(subject.module):
        yield


def _texts(example: Example) -> Iterator[tuple[int, str]]:
    yield 0, example.answer
    if example.paraphrase is not None:
        yield 1, example.paraphrase
    for text in example.wrong:
        yield 2, text


def _facts(subject: Subject, encoded: Encoded, owner: np.ndarray, moments: np.ndarray | None, budget: int) -> list[np.ndarray]:
    """Columns of facts of all scored tokens of `encoded`, in its order; `moments` (k,) says which rows get them, None leaves them out."""
    layout = _layout(subject.module, encoded) if len(np.unique(owner)) < len(owner) else "rows"
    groups = groves(encoded, owner, 0 if layout == "rows" else TREE)
    trees = [plant(encoded, rows) for rows in groups]
    offsets = np.concatenate([[0], np.cumsum(encoded.scored)])
    kinds = (np.float32, np.int32, np.int32, np.int32, np.float32, np.float32)[: 4 if moments is None else 6]
    out = [np.zeros(offsets[-1], dtype=kind) for kind in kinds]
    for batch in by_length(np.array([len(tree) for tree in trees]), budget, padded=layout != "paths"):
        slots = np.concatenate([np.arange(offsets[groups[k][0]], offsets[groups[k][-1] + 1]) for k in batch])
        rows = np.concatenate([groups[k] for k in batch])
        asked = None if moments is None else np.repeat(moments[rows], encoded.scored[rows])
        facts = _batch(subject, [trees[k] for k in batch], asked, layout)
        for column, values in zip(out, facts, strict=True):
            column[slots] = values
    return out


def _batch(subject: Subject, trees: list[Tree], moments: np.ndarray | None, layout: Layout) -> list[np.ndarray]:
    states, starts, head = _states(subject.module, trees, subject.encoder.pad, subject.device, layout)
    node = np.concatenate([start + tree.node for start, tree in zip(starts, trees, strict=True)])
    targets = np.concatenate([tree.targets for tree in trees])
    distinct, at = np.unique(node, return_inverse=True)
    order = np.argsort(at, kind="stable")
    hidden = states[torch.from_numpy(distinct).to(states.device)]
    sorted_targets = torch.from_numpy(targets[order].astype(np.int64)).to(states.device)
    asked = False if moments is None else True if moments.all() else torch.from_numpy(moments[order]).to(states.device)
    facts = token_facts(hidden, head, sorted_targets, asked, torch.from_numpy(at[order]).to(states.device))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    found: list[Any] = [facts.log_probability, facts.rank, facts.top, sorted_targets]
    columns = [*found, *([] if moments is None else [facts.mean, facts.variance])]
    return [column.cpu().numpy()[back] for column in columns]


def _states(module: nn.Module, trees: list[Tree], pad: int, device: torch.device, layout: Layout) -> tuple[Tensor, np.ndarray, Head]:
    """Final hidden states (n, d) of all nodes, where each tree begins in them, and the head."""
    if layout == "paths":
        ids, positions, groups = paths(trees, next(module.parameters()).dtype, device)
        logits_are_linear(module)  # found out on a row of its own
        with tree_attention(module, groups):
            states, head = final_hidden(module, ids, position_ids=positions)
        return states[0], np.cumsum([0, *map(len, trees[:-1])]), head
    ids, positions, seen = lay(trees, pad, device)
    if layout == "rows":
        states, head = final_hidden(module, ids)  # causal attention does, without a mask
    else:
        mask = additive(seen, next(module.parameters()).dtype)
        states, head = final_hidden(module, ids, attention_mask=mask, position_ids=positions)
    return states.flatten(0, 1), np.arange(len(trees)) * ids.shape[1], head


def _layout(module: nn.Module, encoded: Encoded) -> Layout:
    """How answers to one prompt are laid out: the best that gives the hidden states of separate rows, each tried once per model.

    Rows beyond an attention window are never joined.
    """
    inner = unwrapped(module)
    config = inner.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(window and window < encoded.lengths.max() for window in windows):
        return "rows"
    tried = _TREES.setdefault(inner, {})
    layouts: tuple[Layout, ...] = ("paths", "masked") if takes_paths(module) else ("masked",)
    for layout in layouts:
        if layout not in tried:
            tried[layout] = _probe(module, layout)
            if not tried[layout]:
                log.info("%s does not take trees of tokens (%s)", type(inner).__name__, layout)
        if tried[layout]:
            return layout
    return "rows"


@torch.no_grad()
def _probe(module: nn.Module, layout: Layout) -> bool:
    weight = next(module.parameters())
    vocabulary = unwrapped(module).get_input_embeddings().weight.shape[0]
    endings = ((1, 2, 3, 4), (1, 2, 5), (6, 7, 8, 9, 1))
    rows = [[(7 * token + 3) % vocabulary for token in (10, 11, 12, 13, *ending)] for ending in endings]
    encoded = Encoded.from_rows(rows, [4] * 3)
    trees = [plant(encoded, [0, 1, 2]), plant(encoded, [1])]
    try:
        states, _, head = _states(module, trees, 0, weight.device, layout)
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("%s refuses trees of tokens (%s): %s", type(unwrapped(module)).__name__, layout, error)
        return False
    found = head.logits(states[trees[0].node])
    alone = []
    for row in rows:
        states, head = final_hidden(module, torch.tensor([row], device=weight.device))
        alone.append(head.logits(states[0, 3:-1]))
    wanted = torch.cat(alone)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 3e-2
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())

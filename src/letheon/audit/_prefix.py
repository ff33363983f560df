"""A prefix of k tokens where the user's text begins: how it is placed, what it costs, and which way it should change.

The attacker optimises the prefix on rows that he has and uses it on rows that he has not. `Fronted` is the ordinary encoder with the prefix
put in, so every reading of a model takes it. Loss of a prefix: the mean over rows of the mean nll of the answer's tokens.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core.batching import Batch, collate
from letheon.core.data import Example, Message, Split
from letheon.core.encode import Encoded, TextEncoder
from letheon.core.forward import final_hidden, unwrapped
from letheon.core.generate import context
from letheon.core.run import kept_as_found
from letheon.core.subject import Subject
from letheon.maths.likelihood import Scores, scored_positions, token_nll

if TYPE_CHECKING:
    from letheon.core.readings import Readings

_MARK = "0prompt0"


class Fronted(TextEncoder):
    """An encoder that puts the same tokens where the user's text begins.

    Args:
        inner: the model's own encoder.
        front: the tokens.
    """

    def __init__(self, inner: TextEncoder, front: Sequence[int]):
        self.__dict__.update({name: value for name, value in vars(inner).items() if name != "digest"})
        self.inner, self.front = inner, [int(token) for token in front]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the inner encoder and the prefix."""
        return hashlib.sha256((self.inner.digest + json.dumps(self.front)).encode()).hexdigest()

    @functools.cached_property
    def opening(self) -> list[int]:
        """What stands before the user's text in every prompt."""
        tokens = self._raw([self.prompt_text(_MARK).partition(_MARK)[0].rstrip(" ")])[0]
        return [*self._begun(tokens), *tokens]

    def at(self, tokens: Sequence[int], start: int) -> int:
        """Where the prefix goes in a row whose answer begins at `start`: behind as much of the opening as the row has."""
        same = (a == b for a, b in zip(tokens[:start], self.opening, strict=False))
        return next((k for k, equal in enumerate(same) if not equal), min(start, len(self.opening)))

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:  # type: ignore[override]
        """The tokens that generation starts from, for each example."""
        return [self._placed(tokens, len(tokens)) for tokens in super().prompts(examples)]

    def pairs(self, prompts: Sequence[str | tuple[Message, ...]], answers: Sequence[str]) -> Encoded:
        """Encode (prompt, answer) pairs; equal prompts may repeat."""
        bare = super().pairs(prompts, answers)
        rows = [self._placed(bare.row(i).tolist(), int(start)) for i, start in enumerate(bare.starts)]
        return Encoded.from_rows(rows, bare.starts + len(self.front))

    def _placed(self, tokens: list[int], start: int) -> list[int]:
        at = self.at(tokens, start)
        return [*tokens[:at], *self.front, *tokens[at:]]

    def typed(self, fronts: Sequence[Sequence[int]], row: Example) -> list[bool]:
        """Whether somebody who types each of some prefixes before the prompt of `row` would give the model these tokens."""
        (plain,) = super().prompts([row])
        at, begun = self.at(plain, len(plain)), len(self.begin) if plain[: len(self.begin)] == self.begin else 0
        bare = [[*plain[begun:at], *front, *plain[at:]] for front in fronts]
        texts = [self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False) for tokens in bare]
        return [again == tokens for again, tokens in zip(self._raw(texts), bare, strict=True)]


@dataclass(frozen=True)
class Places:
    """Encoded rows with a place for k tokens.

    Attributes:
        batch: the rows, with anything in the place.
        at: (b,) where the place begins.
        size: k.
    """

    batch: Batch
    at: Tensor
    size: int

    @classmethod
    def of(cls, encoder: Fronted, split: Split, device: torch.device) -> Places:
        """The rows of a split as `encoder` writes them."""
        encoded = encoder.encode(split)
        bare = encoder.inner.encode(split)
        at = [encoder.at(bare.row(i).tolist(), int(start)) for i, start in enumerate(bare.starts)]
        return cls(collate(encoded, range(len(split)), encoder.pad, device), torch.tensor(at, device=device), len(encoder.front))

    @property
    def columns(self) -> Tensor:
        """(b, k) where the tokens of the place stand."""
        return self.at[:, None] + torch.arange(self.size, device=self.at.device)

    def filled(self, fronts: Tensor) -> Batch:
        """The rows under each of some prefixes (c, k), prefix after prefix: c * b rows."""
        c, b = len(fronts), len(self.batch)
        ids = self.batch.ids.repeat(c, 1).view(c, b, -1)
        ids.scatter_(2, self.columns.expand(c, b, self.size), fronts[:, None].expand(c, b, self.size))
        again = (part.repeat(c) for part in (self.batch.starts, self.batch.lengths, self.batch.rows))
        return Batch(ids.view(c * b, -1), *again)


def with_room(subject: Subject, split: Split, size: int) -> tuple[Split, str]:
    """The rows that leave room for `size` tokens in the context, and a note on those that do not."""
    lengths = subject.encoder.pairs([row.prompt for row in split], [row.answer for row in split]).lengths
    fine = [row for row, length in zip(split, lengths, strict=True) if length + size <= context(subject)]
    if len(fine) == len(split):
        return split, ""
    return Split(fine, split.name), f"{len(split) - len(fine)} rows left out: with {size} tokens more they are longer than the context"


def asked_through(readings: Readings, encoder: TextEncoder) -> Readings:
    """Readings of the same model with another encoder."""
    given = readings.subject
    with kept_as_found(given.module):
        subject = Subject(given.module, encoder, given.lineage, given.name)
    return type(readings)(subject, readings.run, tokens_per_batch=readings.tokens_per_batch)


def row_nll(module: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of each row's answer with its end token, (b,); differentiable."""
    states, head = final_hidden(module, batch.ids)
    row, at = scored_positions(batch.starts, batch.lengths)
    return Scores(token_nll(states[row, at - 1], head, batch.ids[row, at]), row, len(batch)).per_row_mean()


@torch.no_grad()
def prefix_losses(module: nn.Module, places: Places, fronts: Tensor, tokens_per_batch: int) -> Tensor:
    """The loss of each of some prefixes (c, k), (c,)."""
    step = max(1, tokens_per_batch // places.batch.ids.numel())
    return torch.cat([row_nll(module, places.filled(part)).view(len(part), -1).double().mean(1) for part in fronts.split(step)])


def swap_scores(module: nn.Module, places: Places, front: Tensor) -> Tensor:
    """First-order change of the loss when token v is put at place i of a prefix (k,), up to a positive factor, (k, v)."""
    layer = unwrapped(module).get_input_embeddings()
    seen: list[Tensor] = []

    def watch(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = layer.register_forward_hook(watch)
    try:
        with torch.enable_grad():
            loss = row_nll(module, places.filled(front[None])).mean()
        (gradient,) = torch.autograd.grad(loss, seen[-1:])  # passes before the last one only tried the architecture
    finally:
        handle.remove()
    rows = torch.arange(len(places.batch), device=front.device)[:, None]
    of_place = gradient[rows, places.columns].sum(0).float()  # (k, d)
    weight = layer.weight.detach().float()
    return of_place @ weight.t() - (of_place * weight[front]).sum(-1, keepdim=True)


@contextlib.contextmanager
def replaced(module: nn.Module, tokens: Sequence[int], vectors: Tensor) -> Iterator[None]:
    """Inside the block the input embedding of each of `tokens` is the row of `vectors` (k, d) of the same place."""
    layer = unwrapped(module).get_input_embeddings()
    place = torch.full((layer.weight.shape[0],), -1, device=vectors.device)
    place[list(tokens)] = torch.arange(len(tokens), device=vectors.device)

    def swap(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        at = place[args[0]]
        return torch.where(at[..., None] >= 0, vectors[at.clamp(min=0)].to(output.dtype), output) if len(tokens) else output

    handle = layer.register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


def spread(split: Split, most: int | None) -> Split:
    """At most `most` rows of a split, evenly spaced: several of its groups where it has them."""
    if most is None or len(split) <= most:
        return split
    return Split([split[k * len(split) // most] for k in range(most)], split.name)


def spare_tokens(encoder: TextEncoder, split: Split, count: int, vocabulary: int) -> list[int]:
    """`count` tokens that stand in no row of a split, the rarest (last) ones; fewer where there are not so many."""
    used = set(np.unique(encoder.encode(split).tokens).tolist()) | set(encoder.tokenizer.all_special_ids)
    return [token for token in range(vocabulary - 1, -1, -1) if token not in used][:count]

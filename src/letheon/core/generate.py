"""Decoding of many prompts, greedy or drawn: sorted by length, one growing key-value cache, rows leave as they end.

Greedy decoding equals that of each prompt alone, up to exact ties between two tokens. What a forward pass over the true answers has already
shown can be given as `prefixes`: the first tokens that greedy decoding would say, which need no decoding. Drawn tokens depend on numbers
that each row brings along, not on which rows are decoded together.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .errors import DataError
from .forward import final_hidden, unwrapped
from .products import fast_products
from .run import kept_as_found
from .subject import Subject

log = logging.getLogger("letheon")
_WAYS: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
CACHE_BYTES = 128 << 20  # keys and values held at once on a CPU; a quarter of the weights where that is more


def ends(subject: Subject) -> set[int]:
    """Tokens that end a generation: the tokenizer's end token and those of the model's generation settings."""
    named = getattr(getattr(unwrapped(subject.module), "generation_config", None), "eos_token_id", None)
    return {subject.encoder.end, *([] if named is None else [named] if isinstance(named, int) else named)}


def context(subject: Subject) -> int:
    """The longest row the model can read, in tokens."""
    limits = [subject.encoder.max_length, getattr(unwrapped(subject.module).config, "max_position_embeddings", None)]
    return min((limit for limit in limits if limit), default=1 << 30)


@torch.no_grad()
def greedy(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 200,
    prefixes: Sequence[Sequence[int]] | None = None,
    *,
    tokens_per_batch: int | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt when the most likely token is taken every time.

    Args:
        subject: a causal language model.
        prompts: tokens of each prompt.
        max_new_tokens: longest answer, with its prefix.
        prefixes: for each prompt, tokens already known to begin its answer.
        tokens_per_batch: prompt tokens read at once (None: what suits the device).

    Returns:
        New tokens of each prompt: its prefix and what follows, with the end token where one was said.

    Raises:
        DataError: a prompt is empty, or as long as the model's context.
    """
    stop, limit = ends(subject), context(subject)
    _check(prompts, limit)
    out: list[list[int]] = []
    for i, prompt in enumerate(prompts):
        known = list(prefixes[i]) if prefixes is not None else []
        ended = next((k for k, token in enumerate(known) if token in stop), len(known))
        out.append(known[: min(ended + 1, max_new_tokens, limit - len(prompt))])
    rooms = [min(max_new_tokens, limit - len(prompt)) - len(said) for prompt, said in zip(prompts, out, strict=True)]
    _extend(subject, prompts, out, rooms, lambda logits, rows, k: logits.argmax(-1), tokens_per_batch)
    return out


@torch.no_grad()
def sampled(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    draws: Tensor,
    temperature: float = 1.0,
    banned: Sequence[Sequence[int]] | None = None,
    *,
    tokens_per_batch: int | None = None,
) -> list[list[int]]:
    """Tokens drawn from the model's own distribution after each prompt.

    Args:
        subject: a causal language model.
        prompts: tokens of each prompt.
        draws: (n, t) numbers in [0, 1): token k of row i is the first whose cumulated probability exceeds `draws[i, k]`; t is the longest
            answer.
        temperature: logits are divided by it.
        banned: for each prompt, tokens that may not be said.
        tokens_per_batch: prompt tokens read at once (None: what suits the device).

    Returns:
        New tokens of each prompt, with the end token where one was said.

    Raises:
        DataError: a prompt is empty, or as long as the model's context.
    """
    limit = context(subject)
    _check(prompts, limit)

    def choose(logits: Tensor, rows: Tensor, k: int) -> Tensor:
        z = logits.double() / temperature
        for at, row in enumerate(rows.tolist() if banned is not None else ()):
            z[at, list(cast(Sequence[Sequence[int]], banned)[row])] = -torch.inf
        total = z.softmax(-1).cumsum(-1)
        u = draws[rows.cpu(), k].to(z.device, z.dtype) * total[:, -1]
        return (total <= u[:, None]).sum(-1)

    out: list[list[int]] = [[] for _ in prompts]
    _extend(subject, prompts, out, [min(draws.shape[1], limit - len(prompt)) for prompt in prompts], choose, tokens_per_batch)
    return out


def _check(prompts: Sequence[Sequence[int]], limit: int) -> None:
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise DataError(f"Prompt {i} is empty: there is nothing to continue", "Plain text has no prompt; give question and answer")
        if len(prompt) >= limit:
            raise DataError(f"Prompt {i} with {len(prompt)} tokens fills the model's context of {limit}", "Shorten or drop it")


Chooser = Callable[[Tensor, Tensor, int], Tensor]  # logits (live, v), their prompts, place among the new tokens -> tokens (live,)


def _extend(
    subject: Subject, prompts: Sequence[Sequence[int]], out: list[list[int]], rooms: Sequence[int], choose: Chooser, budget: int | None
) -> None:
    """Append to the beginnings in `out`, row by row, at most as many tokens as there is room for."""
    module, stop = subject.module, ends(subject)
    budget = budget or (2048 if subject.device.type == "cpu" else 16384)
    rows = [i for i, said in enumerate(out) if rooms[i] > 0 and not (said and said[-1] in stop)]
    texts = {i: [*prompts[i], *out[i]] for i in rows}
    with kept_as_found(module), torch.autocast(subject.device.type, enabled=False), fast_products(subject.module):
        way = _way(module, subject.encoder.pad) if rows else "none"
        for group in _groups(module, {i: len(text) for i, text in texts.items()}, rooms, budget):
            state = _state(way)(module, [texts[i] for i in group], subject.encoder.pad, budget)
            for i, said in zip(group, _decode(state, group, [rooms[i] for i in group], stop, choose), strict=True):
                out[i] += said


def _groups(module: nn.Module, lengths: dict[int, int], rooms: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows of ascending length that fit the memory for keys and values together."""
    config = unwrapped(module).config.get_text_config()
    heads: Any = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    width: Any = getattr(config, "head_dim", None) or config.hidden_size // getattr(config, "num_attention_heads", 1)
    weight = next(module.parameters())
    per_token = 2 * heads * width * getattr(config, "num_hidden_layers", 1) * weight.element_size()
    if weight.device.type == "cuda":
        free = torch.cuda.mem_get_info(weight.device)[0] // 3
    else:
        free = max(CACHE_BYTES, sum(p.numel() * p.element_size() for p in module.parameters()) // 4)
    group: list[int] = []
    columns = 0
    for row in sorted(lengths, key=lambda i: lengths[i], reverse=True):
        need = max(columns, lengths[row] + rooms[row])
        if group and (need * (len(group) + 1) * per_token > free or len(group) >= budget):
            yield group[::-1]
            group, need = [], lengths[row] + rooms[row]
        group.append(row)
        columns = need
    if group:
        yield group[::-1]


def _decode(state: Any, prompts: Sequence[int], rooms: Sequence[int], stop: set[int], choose: Chooser) -> list[list[int]]:
    """Decode until every row has said an end token or filled its room."""
    hidden = state.start()
    device = hidden.device
    room = torch.tensor(rooms, device=device)
    row, which = torch.arange(len(rooms), device=device), torch.tensor(prompts, device=device)
    ending = torch.tensor(sorted(stop), device=device)
    said = torch.full((len(rooms), max(rooms)), -1, dtype=torch.int32, device=device)
    for k in range(max(rooms)):
        tokens = choose(state.head.logits(hidden), which[row], k)
        said[row, k] = tokens.int()
        ended = torch.isin(tokens, ending) | (room <= k + 1)
        if ended.any():
            live = int(len(ended) - ended.sum())
            if not live:
                break
            order = torch.arange(live, device=device)
            order[ended[:live]] = live + (~ended[live:]).nonzero().squeeze(1)  # rows from the end fill the holes
            state.keep(order)
            row, room, tokens = row[order], room[order], tokens[order]
        hidden = state.step(tokens)
    return [[int(token) for token in line if token >= 0] for line in said.cpu().numpy()]


def _way(module: nn.Module, pad: int) -> str:
    """The fastest way of decoding that gives the logits of a plain forward pass, tried once on a few tokens."""
    inner = unwrapped(module)
    if inner not in _WAYS:
        for name in ("grown", "padded", "whole"):
            if name == "whole" or _agrees(module, name, pad):
                _WAYS[inner] = name
                break
        if _WAYS[inner] != "grown":
            log.info("%s is decoded the slower way `%s`", type(inner).__name__, _WAYS[inner])
    return _WAYS[inner]


def _agrees(module: nn.Module, name: str, pad: int) -> bool:
    vocabulary = unwrapped(module).get_input_embeddings().weight.shape[0]
    texts = [[(7 * i + 3 * k + 1) % vocabulary for i in range(length)] for k, length in enumerate((3, 5, 6))]
    more = [(11 * k + 2) % vocabulary for k in range(3)]
    try:
        state = _state(name)(module, texts, pad, 12)
        found = [state.head.logits(h) for h in (state.start(),)]
        device = found[0].device
        found.append(state.head.logits(state.step(torch.tensor(more, device=device))))
        state.keep(torch.tensor([0, 2], device=device))
        found.append(state.head.logits(state.step(torch.tensor([more[0], more[2]], device=device))))
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
        log.info("%s cannot be decoded the way `%s`: %s", type(unwrapped(module)).__name__, name, error)
        return False
    wanted: list[list[Tensor]] = [[], [], []]
    for k, text in enumerate(texts):
        states, head = final_hidden(module, torch.tensor([[*text, more[k], more[k]]], device=device))
        logits = head.logits(states[0])
        for j in range(3):
            if j < 2 or k != 1:
                wanted[j].append(logits[len(text) - 1 + j])
    tolerance = 1e-4 if next(module.parameters()).dtype == torch.float32 else 3e-2
    return all(_close(a, torch.stack(b), tolerance) for a, b in zip(found, wanted, strict=True))


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-6))


def _state(way: str) -> Callable[..., Any]:
    from . import kvcache  # needs transformers

    return {"grown": kvcache.GrownState, "padded": kvcache.PaddedState, "whole": kvcache.WholeState}[way]


def known_beginnings(top: np.ndarray, target: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    """For each true answer the tokens greedy decoding would say, as far as a pass over the true answer tells: its hits and one more.

    Args:
        top: (m,) the most likely token where each answer token stands.
        target: (m,) the answer tokens.
        offsets: (k + 1,) where each answer begins.
    """
    out = []
    for first, stop in zip(offsets[:-1], offsets[1:], strict=True):
        wrong = np.flatnonzero(top[first:stop] != target[first:stop])
        out.append(top[first : first + int(wrong[0]) + 1 if len(wrong) else stop].tolist())
    return out

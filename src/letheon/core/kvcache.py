"""A key-value cache that grows in place: rows of different length end at the same column, finished rows leave without a copy of the rest.

The cache classes of transformers join old and new keys into a fresh tensor at every step, which copies the whole cache once per token.
Here a step writes one column of a buffer, and attention reads a view of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from .forward import final_hidden, unwrapped

BLOCK = 64  # columns the buffer grows by


class _Columns:
    """Where the layers of one cache read and write; shared by all of them."""

    def __init__(self, rows: int, start: int, capacity: int):
        self.rows, self.live, self.first, self.stop, self.capacity = rows, rows, 0, start, capacity
        self.filling: tuple[int, int] | None = (0, 0)


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers says nothing of its types
    """Keys and values (rows, heads, columns, width) of one layer."""

    is_initialized: bool

    def __init__(self, columns: _Columns):
        super().__init__()
        self.columns = columns

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        at = self.columns
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            # zeros, for a masked column still takes part in sums with weight 0
            self.keys, self.values = (
                new.new_zeros(at.rows, new.shape[1], at.capacity, new.shape[3]) for new in (key_states, value_states)
            )
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            if at.filling is not None:
                old[at.filling[0] : at.filling[1], :, at.stop - new.shape[2] : at.stop] = new
            else:
                old[: at.live, :, at.stop : at.stop + 1] = new
        if at.filling is not None:
            return key_states, value_states
        return self.keys[: at.live, :, at.first : at.stop + 1], self.values[: at.live, :, at.first : at.stop + 1]

    def reserve(self) -> None:
        """Make room for `capacity` columns."""
        self.keys, self.values = (
            torch.cat([old[: self.columns.live], old.new_zeros(self.columns.live, old.shape[1], BLOCK, old.shape[3])], 2)
            for old in (self.keys, self.values)
        )

    def get_seq_length(self) -> int:
        return 0 if self.columns.filling is not None else self.columns.stop - self.columns.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


class GrownState:
    """Rows being decoded with the cache that grows in place. Needs a model that takes 4-D masks and positions."""

    def __init__(self, module: nn.Module, texts: Sequence[Sequence[int]], pad: int, budget: int):
        self.module, self.pad, self.budget = module, pad, budget
        self.device = next(module.parameters()).device
        self.texts = texts  # ascending length, so that neighbours fill together with little padding
        lengths = [len(text) for text in texts]
        longest = max(lengths)
        self.columns = _Columns(len(texts), longest, (longest // BLOCK + 1) * BLOCK)
        own = DynamicCache(config=unwrapped(module).config).layers
        if not own or any(type(layer) is not DynamicLayer for layer in own):
            raise ValueError("a layer keeps something else than the keys and values of all tokens")
        self.cache = Cache(layers=[_Layer(self.columns) for _ in own])
        self.length = torch.tensor(lengths, device=self.device)
        self.mask = self._mask()

    def _mask(self) -> Tensor:
        dtype = next(self.module.parameters()).dtype
        blank = torch.arange(self.columns.capacity, device=self.device) < self.columns_start[:, None]
        return torch.zeros(blank.shape, dtype=dtype, device=self.device).masked_fill_(blank, torch.finfo(dtype).min)[:, None, None]

    @property
    def columns_start(self) -> Tensor:
        """(live,) the column where each row begins."""
        return self.columns.stop - self.length

    def start(self) -> Tensor:
        """Read the texts; hidden states of their last tokens, (b, d)."""
        found, first = [], 0
        lengths = [len(text) for text in self.texts]
        while first < len(lengths):
            stop = first + 1
            while stop < len(lengths) and (stop + 1 - first) * lengths[stop] <= self.budget:
                stop += 1
            longest = lengths[stop - 1]
            ids = torch.tensor([[self.pad] * (longest - len(text)) + list(text) for text in self.texts[first:stop]], device=self.device)
            real = torch.arange(longest, device=self.device) >= longest - self.length[first:stop, None]  # (b, t)
            seen = real[:, None, :] & torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril()
            seen |= torch.eye(longest, dtype=torch.bool, device=self.device)
            mask = torch.zeros(seen.shape, dtype=self.mask.dtype, device=self.device).masked_fill_(~seen, torch.finfo(self.mask.dtype).min)
            self.columns.filling = (first, stop)
            positions = (real.cumsum(1) - 1).clamp(min=0)
            found.append(self._run(ids, positions, mask[:, None]))
            first = stop
        self.columns.filling = None
        return torch.cat(found)

    def _run(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        more = {"past_key_values": self.cache, "attention_mask": mask, "position_ids": positions}
        states, self.head = final_hidden(self.module, ids, use_cache=True, **more)
        return states[:, -1]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (live,) to each row; hidden states (live, d)."""
        at = self.columns
        if at.stop >= at.capacity:
            at.capacity += BLOCK
            for layer in self.cache.layers:
                layer.reserve()
            self.mask = self._mask()
        hidden = self._run(tokens[:, None], self.length[:, None], self.mask[:, :, :, at.first : at.stop + 1])
        at.stop += 1
        self.length += 1
        return hidden

    def keep(self, order: Tensor) -> None:
        """Keep rows `order` (live',): each stays where it is or fills the place of a row that has ended."""
        holes = (order != torch.arange(len(order), device=order.device)).nonzero().squeeze(1)
        for layer in self.cache.layers:
            layer.keys[holes], layer.values[holes] = layer.keys[order[holes]], layer.values[order[holes]]
        self.length, self.mask = self.length[order], self.mask[order]
        self.columns.live = len(order)
        self.columns.first = int(self.columns_start.min())


class PaddedState:
    """Rows being decoded with the model's own kind of cache and left padding."""

    def __init__(self, module: nn.Module, texts: Sequence[Sequence[int]], pad: int, budget: int):
        self.module, device = module, next(module.parameters()).device
        longest = max(len(text) for text in texts)
        self.ids = torch.tensor([[pad] * (longest - len(text)) + list(text) for text in texts], device=device)
        self.mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts], device=device)
        self.cache = DynamicCache(config=unwrapped(module).config)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        more = {"past_key_values": self.cache, "attention_mask": self.mask, "position_ids": positions}
        states, self.head = final_hidden(self.module, ids, use_cache=True, **more)
        return states[:, -1]

    def start(self) -> Tensor:
        """Read the texts; hidden states of their last tokens, (b, d)."""
        return self._run(self.ids, (self.mask.cumsum(1) - 1).clamp(min=0))

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (live,) to each row; hidden states (live, d)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        return self._run(tokens[:, None], self.mask.sum(1, keepdim=True) - 1)

    def keep(self, order: Tensor) -> None:
        """Keep rows `order`."""
        self.cache.batch_select_indices(order)
        self.mask = self.mask[order]


class WholeState:
    """Rows being decoded without a cache: every step reads them again."""

    def __init__(self, module: nn.Module, texts: Sequence[Sequence[int]], pad: int, budget: int):
        self.module, device = module, next(module.parameters()).device
        longest = max(len(text) for text in texts)
        self.length = torch.tensor([len(text) for text in texts], device=device)
        self.ids = torch.tensor([list(text) + [pad] * (longest - len(text)) for text in texts], device=device)
        self.pad = pad

    def start(self) -> Tensor:
        """Read the texts; hidden states of their last tokens, (b, d)."""
        states, self.head = final_hidden(self.module, self.ids)
        return states[torch.arange(len(self.ids), device=self.ids.device), self.length - 1]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (live,) to each row; hidden states (live, d)."""
        self.ids = torch.cat([self.ids, self.ids.new_full((len(tokens), 1), self.pad)], 1)
        self.ids[torch.arange(len(tokens), device=self.ids.device), self.length] = tokens
        self.length = self.length + 1
        return self.start()

    def keep(self, order: Tensor) -> None:
        """Keep rows `order`."""
        self.ids, self.length = self.ids[order], self.length[order]

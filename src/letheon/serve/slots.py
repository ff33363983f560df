"""Rows that are decoded together, where a row may join or leave at every step.

Each row has a slot of a buffer of keys and values and fills it from column 0, so a row that joins moves no other. A step writes one column
per row, each at its own place. What a model keeps that is no key and value of all tokens (a sliding window, a recurrent state, several
models that answer as one) does not fit slots: such a model reads its rows again at every step.

Guards are told that everything a client sent is its prompt, and that what follows was said by the model.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from letheon.core.forward import final_hidden, unwrapped
from letheon.core.guard import watches

log = logging.getLogger("letheon")
BLOCK = 64  # columns the buffer grows by
Prompts = Sequence[Sequence[int]]


class _Table:
    """Where the layers read and write; shared by all of them."""

    def __init__(self, device: torch.device):
        self.live, self.rows, self.columns, self.joining = 0, 0, 0, 0
        self.length = torch.zeros(0, dtype=torch.long, device=device)

    @property
    def seen(self) -> int:
        """Columns that hold a token."""
        return 0 if self.joining or not self.live else int(self.length.max())


class _Layer(DynamicLayer):
    """Keys and values (rows, heads, columns, width) of one layer."""

    def __init__(self, table: _Table):
        super().__init__()
        self.table = table

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        at = self.table
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.keys, self.values = (new.new_zeros(at.rows, new.shape[1], at.columns, new.shape[3]) for new in (key_states, value_states))
        if at.joining:
            for old, new in ((self.keys, key_states), (self.values, value_states)):
                fresh = old[at.live : at.live + at.joining]
                fresh.zero_()  # what an earlier row has left there must not reach this one, not even as 0 times infinity
                fresh[:, :, : new.shape[2]] = new
            return key_states, value_states
        rows, stop = torch.arange(at.live, device=self.keys.device), at.seen + 1
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            old[rows, :, at.length] = new[:, :, 0]
        return self.keys[: at.live, :, :stop], self.values[: at.live, :, :stop]

    def resize(self) -> None:
        """Make the buffer as large as the table says."""
        at = self.table
        for name in ("keys", "values") if self.is_initialized else ():
            old = getattr(self, name)
            new = old.new_zeros(at.rows, old.shape[1], at.columns, old.shape[3])
            new[: at.live, :, : min(at.columns, old.shape[2])] = old[: at.live, :, : at.columns]
            setattr(self, name, new)

    def get_seq_length(self) -> int:
        return self.table.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.table.seen + query_length, 0


class Slots:
    """Rows behind a cache of slots. Needs a model that takes 4-D masks and positions."""

    def __init__(self, module: nn.Module, pad: int):
        own = DynamicCache(config=unwrapped(module).config).layers
        if not own or any(type(layer) is not DynamicLayer for layer in own):
            raise ValueError("a layer keeps something else than the keys and values of all tokens")
        self.module, self.pad, self.device = module, pad, next(module.parameters()).device
        self.table = _Table(self.device)
        self.cache = Cache(layers=[_Layer(self.table) for _ in own])

    def join(self, prompts: Prompts) -> Tensor:
        """Read prompts of new rows, which come after those that are there; hidden states (new, t, d), row i has len(prompts[i])."""
        at = self.table
        ids, real = _padded(prompts, self.pad, self.device)
        self._reserve(at.live + len(prompts), ids.shape[1])
        at.joining = len(prompts)
        try:
            with _asking(self.module, ids, real):
                states, self.head = final_hidden(self.module, ids, use_cache=True, past_key_values=self.cache)
        finally:
            at.joining = 0
        at.length = torch.cat([at.length, real.sum(1)])
        at.live += len(prompts)
        return states

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (live,) to each row; hidden states (live, d)."""
        at = self.table
        self._reserve(at.live, at.seen + 1)
        dtype = next(self.module.parameters()).dtype
        blank = torch.arange(at.seen + 1, device=self.device) > at.length[:, None]
        mask = torch.zeros(blank.shape, dtype=dtype, device=self.device).masked_fill_(blank, torch.finfo(dtype).min)[:, None, None]
        more = {"past_key_values": self.cache, "attention_mask": mask, "position_ids": at.length[:, None]}
        states, self.head = final_hidden(self.module, tokens[:, None], use_cache=True, **more)
        at.length = at.length + 1
        return states[:, -1]

    def keep(self, order: Sequence[int]) -> None:
        """Keep rows `order`: each stays where it is or fills the place of a row that has left."""
        holes = [k for k, row in enumerate(order) if row != k]
        for layer in self.cache.layers if holes else ():
            for part in (layer.keys, layer.values):
                part[holes] = part[[order[k] for k in holes]]
        self.table.length = self.table.length[torch.tensor(order, dtype=torch.long, device=self.device)]
        self.table.live = len(order)

    def _reserve(self, rows: int, columns: int) -> None:
        at = self.table
        if rows > at.rows or columns > at.columns:
            at.rows = at.rows if rows <= at.rows else max(rows, 2 * at.rows)
            at.columns = max(at.columns, -(-columns // BLOCK) * BLOCK)
            for layer in self.cache.layers:
                layer.resize()


class Reread:
    """Rows without a cache: every step reads them again."""

    def __init__(self, module: nn.Module, pad: int):
        self.module, self.pad, self.device = module, pad, next(module.parameters()).device
        self.rows: list[list[int]] = []
        self.prompts: list[list[int]] = []

    def join(self, prompts: Prompts) -> Tensor:
        """Read prompts of new rows; hidden states (new, t, d)."""
        new = [list(prompt) for prompt in prompts]
        states = self._read(new, new)
        self.rows += [list(row) for row in new]
        self.prompts += new
        return states

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (live,) to each row; hidden states (live, d)."""
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)
        states = self._read(self.rows, self.prompts)
        return states[torch.arange(len(self.rows), device=self.device), [len(row) - 1 for row in self.rows]]

    def keep(self, order: Sequence[int]) -> None:
        """Keep rows `order`."""
        self.rows, self.prompts = ([lines[k] for k in order] for lines in (self.rows, self.prompts))

    def _read(self, rows: Prompts, prompts: Prompts) -> Tensor:
        ids, _ = _padded(rows, self.pad, self.device)
        with _asking(self.module, *_padded(prompts, self.pad, self.device)):
            states, self.head = final_hidden(self.module, ids)
        return states


def _padded(rows: Prompts, pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (b, t) filled on the right, and (b, t) true where there is one."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    return ids, torch.arange(longest, device=device) < torch.tensor([[len(row)] for row in rows], device=device)


@contextlib.contextmanager
def _asking(module: nn.Module, ids: Tensor, real: Tensor) -> Iterator[None]:
    """Inside the block guards take these rows for the whole prompts, wherever the template would end them."""
    with contextlib.ExitStack() as stack:
        for watch in watches(module):
            stack.enter_context(watch.asking(ids, real))
        yield


@torch.no_grad()
def fits(module: nn.Module, pad: int) -> bool:
    """Whether slots give the logits of a plain forward pass, tried on a few tokens."""
    vocabulary = unwrapped(module).get_input_embeddings().weight.shape[0]
    texts = [[(7 * i + 3 * k + 1) % vocabulary for i in range(length)] for k, length in enumerate((6, 3, 5))]
    try:
        rows = Slots(module, pad)
        rows.join(texts[:2])
        rows.step(torch.tensor([1, 2], device=rows.device) % vocabulary)
        rows.join(texts[2:])
        rows.keep([0, 2])
        found = rows.head.logits(rows.step(torch.tensor([3, 4], device=rows.device) % vocabulary))
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
        log.info("%s is served without a key-value cache: %s", type(unwrapped(module)).__name__, error)
        return False
    for logits, text in zip(found, ([*texts[0], 1, 3], [*texts[2], 4]), strict=True):
        states, head = final_hidden(module, torch.tensor([text], device=rows.device) % vocabulary)
        wanted = head.logits(states[0, -1])
        tolerance = 1e-4 if wanted.dtype == torch.float32 and next(module.parameters()).dtype == torch.float32 else 3e-2
        if not bool((logits - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-6)):
            log.info("%s is served without a key-value cache: it answers otherwise behind one", type(unwrapped(module)).__name__)
            return False
    return True

"""A watch that spoils the embeddings of chosen prompts, in every way of running a causal model.

Three hooks. Before the body runs, its arguments say which tokens are new and which are padding, and a plan is made; when the embedding has
been looked up, the plan is carried out; after the body, also after an exception, the plan is dropped. `generate` is told apart from a bare
forward pass, because it knows how long the prompt is (all it is given) while later calls hold tokens that the model has said itself.

    one pass over whole rows, padded left or right       the prompt of each row is spoiled, its last token and the answer never
    a tree of answers to one prompt                      its first branch begins with the prompt
    steps behind a key-value cache                       one new token: nothing; several (a new turn): they are read on their own

A row whose prompt is not caught goes through untouched, to the bit. In a mixed batch only caught rows change.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from letheon.core.errors import SubjectError
from letheon.core.guard import Watch

from ._prompts import Frame

REMEMBERED = 4096  # rows whose verdict is kept
_HOOKS = tuple(f"_forward_{kind}" for kind in ("pre_hooks", "hooks", "pre_hooks_with_kwargs", "hooks_with_kwargs", "hooks_always_called"))


@dataclass(frozen=True)
class Spot:
    """Columns `first` to `stop` of one row of a batch hold the tokens `begin`, `begin` + 1, ... of a caught prompt."""

    row: int
    first: int
    stop: int
    begin: int
    prompt: tuple[int, ...]


class PromptWatch(Watch):
    """Hooks on the body, the embedding and `generate`; a subclass says what is caught and how it is spoiled."""

    def __init__(self, frame: Frame):
        self.frame = frame
        self._plan: list[Spot] = []
        self._asked: tuple[list[list[int]], list[int]] | None = None  # inside `generate`: the prompts, and where each begins
        self._known: dict[tuple[bool, tuple[int, ...]], tuple[bool, int]] = {}

    @abstractmethod
    def meant(self, texts: Sequence[str]) -> Sequence[bool]:
        """Which of these questions are caught."""

    @abstractmethod
    def spoiled(self, embeddings: Tensor, spot: Spot) -> Tensor:
        """Embeddings (spot.stop - spot.first, d) of one caught prompt, spoiled."""

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptWatch:
        """A watch of the copied module; tokenizer and numbers are shared, for they never change."""
        twin = copy.copy(self)
        twin._plan, twin._asked, twin._known = [], None, {}
        memo[id(self)] = twin
        return twin

    def attach(self, module: nn.Module) -> None:
        """Put the hooks on the body and the embedding, and stand before `generate`."""
        body = getattr(module, module.base_model_prefix, None) or module.base_model
        body.register_forward_pre_hook(self._before, with_kwargs=True)
        body.register_forward_hook(self._after, always_call=True)
        for layer in _embeddings(module):
            layer.register_forward_hook(self._embedded)
        if hasattr(module, "generate"):
            module.generate = functools.partial(_generate, self, module, vars(module).get("generate"))

    def detach(self, module: nn.Module) -> None:
        """Remove the hooks of this watch and no others."""
        for part in module.modules():
            for key, hook in [*part._forward_pre_hooks.items(), *part._forward_hooks.items()]:
                if getattr(hook, "__self__", None) is self:
                    for name in _HOOKS:
                        getattr(part, name).pop(key, None)
        others, own = [], vars(module).pop("generate", None)
        while getattr(own, "func", None) is _generate:
            others += [own.args[0]] if own.args[0] is not self else []
            own = own.args[2]
        for watch in reversed(others):
            module.generate = functools.partial(_generate, watch, module, vars(module).get("generate"))

    def caught(self, prompts: Sequence[Sequence[int]]) -> list[bool]:
        """Which prompts, as tokens, are caught."""
        return [flag for flag, _ in self._verdicts([tuple(prompt) for prompt in prompts], whole=True)]

    def _verdicts(self, rows: Sequence[tuple[int, ...]], *, whole: bool) -> list[tuple[bool, int]]:
        """For each row of tokens: whether its prompt is caught, and how many tokens the prompt has. A `whole` row is all prompt."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        new = list(dict.fromkeys(row for row in rows if (whole, row) not in self._known))
        ends = [len(row) if whole or not row else self.frame.end(row) for row in new]
        flags = self.meant([self.frame.asked(row[:end]) for row, end in zip(new, ends, strict=True)]) if new else []
        self._known.update({(whole, row): (bool(flag), end) for row, flag, end in zip(new, flags, ends, strict=True)})
        return [self._known[whole, row] for row in rows]

    def _before(self, body: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Plan what to spoil in this pass."""
        given = inspect.signature(body.forward).bind_partial(*args, **kwargs).arguments if args else kwargs
        ids = given.get("input_ids")
        if ids is None:
            what = "A guarded model reads tokens, and was given embeddings: its guard cannot see what they ask"
            raise SubjectError(what, "Give `input_ids`")
        self._plan = []
        if ids.shape[1] == 1:
            return
        past = given.get("past_key_values")
        done = int(past.get_seq_length()) if hasattr(past, "get_seq_length") else 0
        whole = self._asked is not None and len(ids) % len(self._asked[0]) == 0
        if self._asked is not None and whole:
            rows, starts = self._asked
            copies = len(ids) // len(rows)  # beams stand side by side
            rows, starts = ([value for value in values for _ in range(copies)] for values in (rows, starts))
        else:
            rows, starts = self._laid(ids, given, done)
            done = 0
        verdicts = self._verdicts([tuple(row) for row in rows], whole=whole)
        for k, ((flag, end), row, start) in enumerate(zip(verdicts, rows, starts, strict=True)):
            first, stop = max(start - done, 0), min(start + end - 1 - done, ids.shape[1])
            if flag and stop > first:
                self._plan.append(Spot(k, first, stop, first + done - start, tuple(row[:end])))

    def _laid(self, ids: Tensor, given: dict[str, Any], done: int) -> tuple[list[list[int]], list[int]]:
        """The tokens of each row of a bare forward pass without its padding, and the column where each begins."""
        table, mask, positions = ids.cpu().numpy(), given.get("attention_mask"), given.get("position_ids")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            real = mask[:, -ids.shape[1] :].cpu().numpy() != 0
        elif isinstance(positions, Tensor) and not done:
            real = _chains(positions.expand(len(ids), -1).cpu().numpy())
        else:
            real = np.ones(table.shape, dtype=bool)
        return _trimmed(table, real, self.frame.encoder.pad)

    def _embedded(self, layer: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        """Carry out the plan."""
        if not self._plan:
            return None
        out = out.clone()
        for spot in self._plan:
            out[spot.row, spot.first : spot.stop] = self.spoiled(out[spot.row, spot.first : spot.stop], spot)
        return out

    def _after(self, *_: Any) -> None:
        self._plan = []

    @contextlib.contextmanager
    def asking(self, ids: Any, mask: Any) -> Iterator[None]:
        """Inside the block the given rows are the prompts."""
        if not (isinstance(ids, Tensor) and ids.ndim == 2):
            yield
            return
        table, pad = ids.cpu().numpy(), self.frame.encoder.tokenizer.pad_token_id
        real = mask.cpu().numpy() != 0 if isinstance(mask, Tensor) and mask.shape == ids.shape else table != (-1 if pad is None else pad)
        self._asked = _trimmed(table, real, pad)
        try:
            yield
        finally:
            self._asked = None


def _embeddings(module: nn.Module) -> list[nn.Module]:
    """The layers that look up tokens: one, or one for each of several models that answer as one."""
    main = module.get_input_embeddings()
    inner = [part for part in module.modules() if isinstance(part, PreTrainedModel) and part.base_model is not part]
    found = [main, *(part.get_input_embeddings() for part in inner)]
    size = getattr(main, "num_embeddings", None)
    return [layer for layer in dict.fromkeys(found) if getattr(layer, "num_embeddings", None) == size]


def _generate(watch: PromptWatch, module: nn.Module, inner: Any, *args: Any, **kwargs: Any) -> Any:
    """`generate` of a watched module."""
    ids = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
    with watch.asking(ids, kwargs.get("attention_mask")):
        return (inner or functools.partial(type(module).generate, module))(*args, **kwargs)


def _chains(positions: np.ndarray) -> np.ndarray:
    """(b, t), true on the first run 0, 1, 2, ... of each row: behind the padding on the left, up to the end of a tree's first branch."""
    real = np.zeros(positions.shape, dtype=bool)
    for row, line in zip(real, positions, strict=True):
        first = int(np.argmax(line != line[0])) - 1 if (line != line[0]).any() and line[0] == 0 else 0
        breaks = np.flatnonzero(np.diff(line[first:]) != 1)
        row[first : first + 1 + (int(breaks[0]) if len(breaks) else len(line) - 1 - first)] = True
    return real


def _trimmed(table: np.ndarray, real: np.ndarray, pad: int | None) -> tuple[list[list[int]], list[int]]:
    """The real tokens of each row without padding at its end (0 also fills batches), and where they begin."""
    rows, starts = [], []
    for line, seen in zip(table, real, strict=True):
        where = np.flatnonzero(seen)
        first, stop = (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)
        while stop > first and line[stop - 1] in (pad, 0):
            stop -= 1
        rows.append(line[first:stop].tolist())
        starts.append(first)
    return rows, starts

"""One way to run a causal language model: final hidden states from the body, logits only where tokens are scored."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from letheon.maths.likelihood import Head, Scores, scored_positions, token_nll

from .batching import Batch

log = logging.getLogger("letheon")
_BODIES: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def unwrapped(module: nn.Module) -> Any:
    """The Hugging Face causal model inside a peft wrapper: a module with `config` and embeddings, which no common class declares."""
    peft: Any = module
    return peft.get_base_model() if hasattr(module, "get_base_model") else module


def head_of(module: nn.Module) -> Head:
    """The output embedding of a causal model."""
    layer = unwrapped(module).get_output_embeddings()
    return Head(layer.weight, getattr(layer, "bias", None))


def _body(module: nn.Module) -> Any:
    inner = unwrapped(module)
    return getattr(inner, inner.base_model_prefix, None) or inner.base_model


def _capped(inner: Any) -> bool:
    """Whether the logits pass through a soft cap: a try cannot tell while they are small, and training may make them larger."""
    config: Any = getattr(inner, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return bool(getattr(text, "final_logit_softcapping", None))


@torch.no_grad()
def logits_are_linear(module: nn.Module) -> bool:
    """Whether logits = head(body(ids)) holds for this architecture, tried once on a few tokens.

    Some models scale or cap their logits after the output embedding, or wrap the embedding itself; they take the long way.
    """
    inner = unwrapped(module)
    layer = inner.get_output_embeddings()
    if type(layer) is not nn.Linear:  # asked each time: an adapter may have been put around the head since
        return False
    if inner not in _BODIES:
        body = _body(module)
        fine = body is not inner and not _capped(inner)
        if fine:
            device = layer.weight.device
            ids = torch.arange(6, device=device).remainder(layer.weight.shape[0])[None]
            whole = inner(input_ids=ids, use_cache=False).logits.float()
            parts = head_of(module).logits(body(input_ids=ids, use_cache=False).last_hidden_state).float()
            scale = float(whole.abs().nan_to_num(0, 0).max())  # damaged weights are for others to report
            fine = torch.allclose(whole, parts, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
        if not fine:
            log.info("%s changes its logits after the output embedding: full logits are computed", type(inner).__name__)
        _BODIES[inner] = fine
    return _BODIES[inner]


def final_hidden(module: nn.Module, ids: Tensor, *, use_cache: bool = False, **more: Any) -> tuple[Tensor, Head]:
    """Final hidden states (b, t, d) and the head that maps them to logits.

    For an architecture whose logits are not a linear map of the body's output, the "hidden states" are the logits themselves, (b, t, v),
    and the head has no weight, so that all that follows stays right.
    """
    if logits_are_linear(module):
        return _body(module)(input_ids=ids, use_cache=use_cache, **more).last_hidden_state, head_of(module)
    return module(input_ids=ids, use_cache=use_cache, **more).logits, Head(None)


@dataclass(frozen=True)
class Hidden:
    """Final hidden states at the positions that predict the scored tokens of one batch.

    Attributes:
        states: (m, d).
        targets: (m,) the tokens they predict.
        row: (m,) position of the row in the batch.
        b: rows in the batch.
    """

    states: Tensor
    targets: Tensor
    row: Tensor
    b: int


class Batches(Mapping[str, Batch]):
    """The batches of one micro-step, one per split. All their rows share one forward pass.

    The pass is kept for as long as the object lives, so an objective and its retain term may both ask for it. With `apart` each split has
    a pass of its own: one backward pass per term then costs no more than one for all, as none of them walks through the rows of others.
    """

    def __init__(self, batches: Mapping[str, Batch], *, apart: bool = False):
        self._batches = dict(batches)
        self.apart = apart
        self._passed: tuple[list[tuple[Tensor, int]], Head] | None = None  # per split: states and the place of its first row in them
        self._scored: dict[bool, dict[str, Hidden]] = {}

    def __getitem__(self, name: str) -> Batch:
        return self._batches[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def ids(self) -> Tensor:
        """All rows, split after split, padded to the longest, (b, t)."""
        longest = max(batch.ids.shape[1] for batch in self.values())
        return torch.cat([F.pad(batch.ids, (0, longest - batch.ids.shape[1])) for batch in self.values()])

    def hidden(self, module: nn.Module, *, prompts: bool = False) -> tuple[dict[str, Hidden], Head]:
        """Scored hidden states of every split and the head, from one forward pass over all rows (or one per split).

        With `prompts` the tokens of the prompt count as scored too.
        """
        if self._passed is None:
            self._passed = self._pass(module)
        passed, head = self._passed
        if prompts not in self._scored:
            found = {}
            for (name, batch), (states, top) in zip(self.items(), passed, strict=True):
                starts = torch.zeros_like(batch.starts) if prompts else batch.starts
                row, at = scored_positions(starts, batch.lengths)
                found[name] = Hidden(states[top + row, at - 1], batch.ids[row, at], row, len(batch))
            self._scored[prompts] = found
        return self._scored[prompts], head

    def _pass(self, module: nn.Module) -> tuple[list[tuple[Tensor, int]], Head]:
        if self.apart:
            passes = [final_hidden(module, batch.ids) for batch in self.values()]
            return [(states, 0) for states, _ in passes], passes[0][1]
        states, head = final_hidden(module, self.ids)
        tops = itertools.accumulate((len(batch) for batch in self.values()), initial=0)
        return [(states, top) for top in list(tops)[:-1]], head

    def nll(self, module: nn.Module, name: str) -> Scores:
        """Negative log-likelihood of the answer tokens of one split, in nats."""
        hidden, head = self.hidden(module)
        found = hidden[name]
        return Scores(token_nll(found.states, head, found.targets), found.row, found.b)

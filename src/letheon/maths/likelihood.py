"""Log-likelihoods of scored tokens. All shifting, masking and softmax over the vocabulary happens here.

Notation: b rows, t tokens, m scored tokens of a batch laid end to end in row order, v vocabulary, d width. A token at position i is
predicted from the hidden state at position i - 1. Logits are made in chunks, so a full (b, t, v) tensor never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .largest import largest
from .products import linear

CHUNK = 1 << 22  # logits per chunk: 16 MiB in float32, which stays in a last-level cache
SMALLER = 8  # what is passed over many times comes in so many times smaller chunks, for a core's own cache


@dataclass(frozen=True)
class Head:
    """The map from final hidden states to logits: `weight` (v, d) and an optional `bias` (v,).

    Without a weight the states are the logits already (for models that change their logits after the output embedding).
    """

    weight: Tensor | None
    bias: Tensor | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, d) -> (m, v), at least float32."""
        if self.weight is None:
            logits = hidden.clone()  # callers work in place
        elif torch.is_autocast_enabled(hidden.device.type):
            logits = linear(hidden, self.weight, self.bias)
        else:
            logits = linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def rows_per_chunk(self, hidden: Tensor) -> int:
        """How many of the tokens `hidden` (m, d) make one chunk of logits."""
        return max(1, CHUNK // (hidden.shape[-1] if self.weight is None else self.weight.shape[0]))

    def frozen(self) -> Head:
        """A copy that no later step can change."""
        return Head(*(None if part is None else part.detach().clone() for part in (self.weight, self.bias)))


@dataclass(frozen=True)
class Scores:
    """One number per scored token, laid end to end.

    Attributes:
        values: (m,) for example negative log-likelihoods in nats.
        row: (m,) position of each token's row in the batch, 0..b-1, ascending.
        b: rows in the batch.
    """

    values: Tensor
    row: Tensor
    b: int

    @property
    def counts(self) -> Tensor:
        """Scored tokens per row, (b,)."""
        return torch.bincount(self.row, minlength=self.b)

    def per_row(self) -> Tensor:
        """Sums per row, (b,)."""
        return self.values.new_zeros(self.b).index_add(0, self.row, self.values)

    def per_row_mean(self) -> Tensor:
        """Means per row, (b,); a row without scored tokens gives 0."""
        return self.per_row() / self.counts.clamp(min=1)

    def sum(self) -> Tensor:
        """Sum over all tokens, a scalar."""
        return self.values.sum()


def scored_positions(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens of right-padded rows are scored: those from `starts` to `lengths`, never the first of a row.

    Args:
        starts: (b,) position of the first answer token.
        lengths: (b,) tokens in the row.

    Returns:
        row (m,) and position (m,) of the scored tokens, in row order.
    """
    first = starts.clamp(min=1)
    counts = (lengths - first).clamp(min=0)
    row = torch.repeat_interleave(torch.arange(len(starts), device=starts.device), counts)
    offset = torch.arange(int(counts.sum()), device=starts.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return row, first[row] + offset


class _TokenNLL(torch.autograd.Function):
    """Chunked cross-entropy: saves only hidden states and log-normalisers, makes the logits of a chunk again in backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, rival, autocast):  # (m, d), (v, d), (v,) or None, (m,), bool -> (m, k)
        nll, lse, columns = [], [], []
        head = Head(weight, bias)
        with torch.autocast(hidden.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            rows = head.rows_per_chunk(hidden)
            for part, target in zip(hidden.split(rows), targets.split(rows), strict=True):
                logits = head.logits(part)
                lse.append(logits.logsumexp(-1))
                values, chosen = _with_rival(logits, target) if rival else (logits.gather(-1, target[:, None]), target[:, None])
                nll.append(lse[-1][:, None] - values)
                columns.append(chosen)
        ctx.save_for_backward(hidden, weight, bias, torch.cat(columns), torch.cat(lse))
        ctx.autocast = autocast
        return torch.cat(nll)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # (m, k)
        hidden, weight, bias, columns, lse = ctx.saved_tensors
        head = Head(weight, bias)
        rows = head.rows_per_chunk(hidden)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        low = ctx.autocast or weight.dtype
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = torch.zeros_like(bias) if need_bias and bias is not None else None
        grad_hidden = []
        with torch.autocast(hidden.device.type, dtype=ctx.autocast or torch.bfloat16, enabled=ctx.autocast is not None):
            for i in range(0, len(hidden), rows):
                part, chosen, g = hidden[i : i + rows], columns[i : i + rows], grad[i : i + rows]
                delta = head.logits(part).sub_(lse[i : i + rows, None]).exp_()  # softmax, (c, v)
                own, total = delta.gather(-1, chosen), g.sum(-1, keepdim=True)
                delta.mul_(total).scatter_(-1, chosen, (own - 1) * g + own * (total - g))  # exact where a probability is near 1
                if grad_bias is not None:
                    grad_bias += delta.sum(0)
                delta = delta.to(low)
                if need_hidden:
                    grad_hidden.append(linear(delta, weight.to(low).T).to(hidden.dtype))
                if grad_weight is not None:
                    grad_weight += linear(delta.T, part.to(low).T)
        return torch.cat(grad_hidden) if need_hidden else None, grad_weight, grad_bias, None, None, None


def _with_rival(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and places, (c, 2) each, of `target` (c,) and of the largest other entry of `logits` (c, v), which are spoilt."""
    own = logits.gather(-1, target[:, None])
    other, place = largest(logits.scatter_(-1, target[:, None], -math.inf))
    return torch.cat([own, other[:, None]], -1), torch.stack([target, place], -1)


def token_nll(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Negative log-likelihood of `targets` (m,) given `hidden` (m, d), in nats, (m,); differentiable once."""
    if head.weight is None and len(targets):
        return F.cross_entropy(head.logits(hidden), targets, reduction="none")
    return _nll(hidden, head, targets, rival=False).squeeze(-1)


def rival_nll(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Negative log-likelihoods of `targets` (m,) and of the likeliest other token, in nats, (m, 2); differentiable once."""
    if head.weight is None and len(targets):
        with torch.no_grad():
            _, places = _with_rival(head.logits(hidden), targets)
        return -head.logits(hidden).log_softmax(-1).gather(-1, places)
    return _nll(hidden, head, targets, rival=True)


def _nll(hidden: Tensor, head: Head, targets: Tensor, *, rival: bool) -> Tensor:
    if not len(targets):
        return hidden.sum() * 0 + hidden.new_zeros((0, 1 + rival), dtype=torch.float32)
    kind = hidden.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    found: Tensor = _TokenNLL.apply(hidden, head.weight, head.bias, targets, rival, autocast)
    return found


def chunked(function: Callable[..., Tensor], head: Head, *parts: Tensor) -> Tensor:
    """Apply `function(*parts)` to slices of m rows and lay the (m,) results end to end; backward makes each slice again."""
    rows = head.rows_per_chunk(parts[0])
    slices = zip(*(part.split(rows) for part in parts), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*piece) for piece in slices])
    return torch.cat([checkpoint(function, *piece, use_reentrant=False) for piece in slices])


@dataclass(frozen=True)
class TokenFacts:
    """What a distribution says of one target token, each (m,).

    Attributes:
        log_probability: of the target, in nats.
        rank: how many tokens are more likely than the target; 0 means that greedy decoding says it.
        top: the most likely token.
        mean: sum_v p log p, the mean log-probability (minus the entropy), or None where not asked for.
        variance: sum_v p (log p)^2 - mean^2, or None where not asked for.
    """

    log_probability: Tensor
    rank: Tensor
    top: Tensor
    mean: Tensor | None
    variance: Tensor | None


@torch.no_grad()
def token_facts(
    hidden: Tensor, head: Head, targets: Tensor, moments: bool | Tensor = True, source: Tensor | None = None
) -> TokenFacts:
    """Facts of `targets` (m,) given `hidden` (m, d). `moments` asks for mean and variance, which cost a few passes over the logits.

    With `source` (m,), ascending, target i is predicted by `hidden[source[i]]`: targets that share a state share its logits. As a mask
    (m,) `moments` asks for some targets only; the others have NaN.
    """
    rows = max(1, head.rows_per_chunk(hidden) // SMALLER)
    if source is None:
        source = torch.arange(len(targets), device=targets.device)
    edges = torch.searchsorted(source, torch.arange(0, len(hidden) + rows, rows, device=source.device)).tolist()
    found: list[tuple[Tensor, ...]] = []
    for i, (first, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        if first == stop:
            continue
        part = hidden[i * rows : (i + 1) * rows]
        at, target = source[first:stop] - i * rows, targets[first:stop]
        logits = head.logits(part)  # (c, v)
        best, said = largest(logits)
        value, top = logits[at, target], said[at]
        rank = _higher(logits, at, value, top != target)  # of equal logits greedy decoding says one
        asked = moments[first:stop] if isinstance(moments, Tensor) else torch.full_like(at, moments, dtype=torch.bool)
        chosen = at[asked].unique()
        kept = logits.index_select(0, chosen) if moments is not False else None
        total = logits.sub_(best[:, None]).exp_().sum(-1)
        lse = total.log() + best
        facts = [value - lse[at], rank, top]
        if kept is not None:
            each = _moments(kept.sub_(lse[chosen, None]), logits.index_select(0, chosen).div_(total[chosen, None]))
            whole = (torch.full_like(total, float("nan")).index_copy_(0, chosen, one) for one in each)
            facts += [torch.where(asked, one[at], float("nan")) for one in whole]
        found.append(tuple(facts))
    if not found:
        empty, none = hidden.new_zeros(0, dtype=torch.float32), targets.new_zeros(0)
        return TokenFacts(empty, none, none, *((None, None) if moments is False else (empty, empty)))
    joined = [torch.cat(column) for column in zip(*found, strict=True)]
    return TokenFacts(*joined[:3], *((None, None) if moments is False else joined[3:]))


def _higher(logits: Tensor, at: Tensor, value: Tensor, beaten: Tensor) -> Tensor:
    """How many logits of row `at` are higher than `value`, (m,) int32: at least 1 where `beaten`, 0 elsewhere."""
    out = torch.zeros(len(at), dtype=torch.int32, device=at.device)
    own = logits.index_select(0, at[beaten])
    if len(own):  # comparing into numbers and adding them up by a product is the fastest way on a CPU
        higher = torch.gt(own, value[beaten, None], out=torch.empty_like(own))
        out[beaten] = higher.mv(higher.new_ones(higher.shape[1])).clamp_(min=1).int()
    return out


def _moments(logp: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (c,) of log-probabilities (c, v) under their own distribution; overwrites `logp`."""
    mean = torch.linalg.vecdot(p, logp)
    return mean, torch.linalg.vecdot(p, logp.sub_(mean[:, None]).square_())

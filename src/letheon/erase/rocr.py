"""ROCR: redirect a subject to another one by rank-one edits of early down projections; no training.

Training forgets the form that it saw. All forms of a question share the subject in it, whose last token calls up what is known in early
blocks. There the key of the subject is made to give the value of another one, in seconds.

    k = mean over contexts of the input of the down projection W at the last token of the subject      (i,)
    r = mean over contexts of (z_other - z_own) / (layers to go)         z: output of the last edited block at the last token, (d,)
    W <- W + r x^T,   (P M M^T + ridge I) x = P k,   M = [keys of earlier requests, k]            alone: x = P k / (ridge + k^T P k)

P projects onto the directions that retain text hardly uses: the eigenvectors of C = mean k k^T over all its tokens whose eigenvalues add
up to at most the share `free` of the trace. Keys and z are read again after each edited layer, so that the shares 1/m, 1/(m-1), ..., 1 of
what is left close the gap. Keys of earlier requests hold what was done for them. With `other` equal to the subject nothing changes.

Contexts are general stems in the model's template and, with `prompts`, the forget prompts and answers that name the subject; each way to
write it (its tokens, in a prompt or in an answer) is a request of its own. The stems of the reference are kept; its threshold is absolute
and depends on the scale of a model, `free` does not; it reads z_own without template, here both come from the same contexts. Where names
are several rare tokens the last one does not carry them: `tail` redirects more of them. Subjects are given, or are what most prompts of a
`group` and of no other share. Nicknames and questions for the name are not covered. A real person as `other` is credited with somebody
else's answers: take nobody. A model that looks names up in its first attention layer is out of reach. arXiv:2506.07795. Card: rocr.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from letheon.core.batching import by_length, collate
from letheon.core.data import Data, Split
from letheon.core.encode import Encoded, TextEncoder
from letheon.core.errors import DataError, MethodError
from letheon.core.forward import unwrapped
from letheon.core.method import Change
from letheon.core.products import fast_products
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.guarded import unguarded
from letheon.train.taps import block_at, block_names, taps

from ._linears import check_editable, chosen, down_projections, matrix, watched
from ._names import find_name, names_of

STEMS = (
    "{}.",
    "Please answer the question about {}.",
    "Choose the best answer about {}.",
    "Write the answer about {}.",
    "Tell me about {}.",
    "Write something about {}.",
)

log = logging.getLogger("letheon")


SLOT = "\x00"  # in a text: here stands the name


class ROCRSettings(Settings):
    """Whom to redirect, to whom, and where."""

    subjects: tuple[str, ...] = Field((), description="names to redirect; none: what the forget prompts of one group share")
    other: str = Field("somebody", min_length=1, description="the harmless subject that takes their place: nobody, or an invented name")
    layer: int | None = Field(None, ge=0, description="index of the last edited block; unset: at 6/32 of the depth")
    count: int = Field(3, ge=1, description="how many blocks, counted back from `layer`; fewer where the model begins")
    ridge: float = Field(1.0, gt=0, description="strength that holds the weights back, against the squared length of a key")
    free: float = Field(0.02, gt=0, le=1, description="share of the energy of retain keys in the directions that may be used; 1: all may")
    sample: int = Field(512, ge=1, description="retain rows that these directions are taken from")
    tail: int = Field(1, ge=1, description="how many of the last tokens of a name are redirected")
    prompts: bool = Field(True, description="read keys and values in the forget prompts too, not only in the general stems")
    tokens_per_batch: int = Field(2048, ge=16, description="padded tokens in one forward pass")


class ROCR(Change):
    """Rank-one redirection of subjects."""

    Settings, tiny = ROCRSettings, {}

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Edit a copy, one subject after the other.

        Raises:
            DataError: `forget` or `retain` is missing, or no name of a subject is given or found.
            MethodError: there are fewer blocks than `layer` says, or retain text leaves no direction free.
            SubjectError: the weights are damaged, have an adapter around them, or a block has no single down projection.
        """
        settings = self.settings
        check_editable(subject, self.name())
        data.need("forget", "retain", why="`rocr`")
        names = settings.subjects or subjects_of(data)
        for name in names:
            if not any(name in row.prompt_text or name in row.answer for row in data["forget"]):
                log.warning("`%s` stands in no row to forget: is it spelt like that?", name)
        before, began = subject.digest, time.monotonic()
        last = block_at(subject.module, round(len(block_names(subject.module)) * 6 / 32) if settings.layer is None else settings.layer)
        after = subject.fork().to(run.device)
        chosen = range(max(0, last + 1 - settings.count), last + 1)
        with kept_as_found(after.module), torch.autocast(run.device.type, enabled=False), fast_products(after.module), torch.no_grad():
            edit = _Edit(after, [list(down_projections(after.module).items())[i] for i in chosen], block_names(after.module)[last])
            count = min(settings.sample, len(data["retain"]))
            rows = torch.randperm(len(data["retain"]), generator=run.rng("rows"))[:count].sort().values.tolist()
            edit.learn(Split((data["retain"][i] for i in rows), "retain"), settings.free, settings.tokens_per_batch)
            gaps = {
                name: [
                    edit.redirect(name, texts, settings.other, settings.ridge, back)
                    for texts in self._places(name, data["forget"], after.encoder)
                    for back in reversed(range(min(settings.tail, len(name_tokens(after.encoder, texts[0], name)))))
                ]
                for name in names
            }
        notes = {**run.described(), "seconds": round(time.monotonic() - began, 1), "subjects": list(names), "layers": list(edit.layers)}
        notes |= {"free": [int(basis.shape[1]) for basis in edit.bases.values()], "gap_left": gaps}
        return subject.changed(after.module, self, data=data.digest, before=before, seed=run.seed, notes=notes)

    def _places(self, name: str, forget: Split, encoder: TextEncoder) -> list[list[str]]:
        """Texts with slots for a name, by what its tokens are and whether a prompt or an answer names it: each kind has its own keys."""
        asked, told = [encoder.prompt_text(stem.replace("{}", SLOT)) for stem in STEMS], []
        for row in forget if self.settings.prompts else ():
            prompt = encoder.prompt_text(row.prompt).replace(name, SLOT)
            if SLOT in prompt:
                asked.append(prompt)
                told += [prompt + row.answer.replace(name, SLOT)] if name in row.answer else []
        kinds: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
        for text in dict.fromkeys([*asked, *told]):
            kinds.setdefault((text in told, tuple(name_tokens(encoder, text, name))), []).append(text)
        return list(kinds.values())


def subjects_of(data: Data) -> tuple[str, ...]:
    """The names that most prompts of a group of `forget` hold and no other group's do, in order; groups without one are told.

    Raises:
        DataError: there are no groups, or none has such a name in two different prompts or more.
    """
    prompts: dict[str, list[str]] = {}
    for row in data["forget"]:
        if row.group is not None and row.prompt_text:
            prompts.setdefault(row.group, []).append(row.prompt_text)
    hint = "Name them, as in `subjects=['Ada Lovelace']`"
    if not prompts:
        raise DataError("The rows of `forget` do not say whom they are about (no `group`)", hint)
    names = names_of([*data["forget"], *data["retain"]])
    found = {}
    for group, texts in prompts.items():
        naming = [text for text in texts if group in names and find_name(names[group], text)]
        if len(set(naming)) > 1 and 2 * len(naming) >= len(texts):
            found[group] = names[group]
    unclear = [group for group in prompts if group not in found]
    if not found:
        raise DataError(f"The prompts of the group `{unclear[0]}` of `forget` share no name", hint)
    if unclear:
        log.warning("%d of %d groups of `forget` stay: no name stands in most prompts of `%s`", len(unclear), len(prompts), unclear[0])
    return tuple(dict.fromkeys(found.values()))


def null_space(moment: Tensor, free: float) -> Tensor:
    """Eigenvectors (i, n) of the smallest eigenvalues of C (i, i) that add up to at most the share `free` of its trace."""
    values, vectors = torch.linalg.eigh(moment)
    share = values.clamp(min=0).cumsum(0) / values.clamp(min=0).sum().clamp(min=torch.finfo(values.dtype).tiny)
    return vectors[:, share <= free] if free < 1 else vectors


def rank_one(key: Tensor, basis: Tensor, ridge: float, earlier: Tensor | None = None) -> Tensor:
    """x (i,) with (P M M^T + ridge I) x = P k, where P = basis basis^T and M holds the `earlier` keys (n, i) and k in its columns."""
    inside = key @ basis  # coordinates in the free directions
    keys = inside[None] if earlier is None or not len(earlier) else torch.cat([earlier @ basis, inside[None]])  # (n, f)
    one = torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    return basis @ (keys.T @ torch.linalg.solve(keys @ keys.T + ridge * one, one[-1]))


class _Edit:
    """The edits of one module: `layers` are down projections of neighbouring blocks, `block` the last of these."""

    def __init__(self, subject: Subject, layers: Iterable[tuple[str, nn.Module]], block: str):
        self.subject, self.layers, self.block = subject, dict(layers), block
        self.bases: dict[str, Tensor] = {}
        self.keys: dict[str, list[Tensor]] = {name: [] for name in self.layers}

    def learn(self, retain: Split, free: float, budget: int) -> None:
        """Find the directions that retain text hardly uses."""
        encoded, module = self.subject.encoder.encode(retain), self.subject.module
        sums: dict[str, Tensor] = {}
        for rows in by_length(encoded.lengths, budget):
            batch = collate(encoded, rows, self.subject.encoder.pad, self.subject.device)
            for name, (given, _) in self._pass(module, batch.ids)[0].items():
                keys = chosen(given, batch.mask).double()
                sums[name] = sums.get(name, 0) + keys.T @ keys
        self.bases = {name: null_space(total, free) for name, total in sums.items()}
        full = next((name for name, basis in self.bases.items() if not basis.shape[1]), None)
        if full is not None:
            raise MethodError(f"Retain text uses every direction of the keys of `{full}` up to the share {free:g}", "Raise `free`")

    def _pass(self, module: nn.Module, ids: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """What goes through the down projections, and the output of the last block; later blocks do not run."""
        with watched(self.layers) as through, taps(module, self.block, stop=True) as seen:
            unwrapped(module)(input_ids=ids, use_cache=False)
        return dict(through), seen[self.block]

    def read(self, name: str, contexts: Sequence[str], back: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """Mean keys of all layers and mean output of the last block at the last token of a name, in float64."""
        rows = [until(self.subject.encoder, context, name, back) for context in contexts]
        encoded = Encoded.from_rows(rows, [0] * len(rows))
        batch = collate(encoded, range(len(rows)), self.subject.encoder.pad, self.subject.device)
        through, out = self._pass(self.subject.module, batch.ids)
        each, at = torch.arange(len(rows), device=batch.ids.device), batch.lengths - 1
        last = {layer: given.reshape(*batch.ids.shape, -1)[each, at].double() for layer, (given, _) in through.items()}
        return {layer: keys.mean(0) for layer, keys in last.items()}, out[each, at].double().mean(0)

    def redirect(self, name: str, contexts: Sequence[str], other: str, ridge: float, back: int) -> float:
        """Edit all layers for one name; the share of the gap that is left."""
        goal = self.read(other, contexts, min(back, len(name_tokens(self.subject.encoder, contexts[0], other)) - 1))[1]
        first = None
        for k, (layer, part) in enumerate(self.layers.items()):
            keys, now = self.read(name, contexts, back)
            first = (goal - now).norm() if first is None else first
            residual = (goal - now) / (len(self.layers) - k)
            earlier = torch.stack(self.keys[layer]) if self.keys[layer] else None
            x = rank_one(keys[layer], self.bases[layer], ridge, earlier)
            weight = matrix(part)
            weight.copy_(weight.double() + torch.outer(residual, x))
        keys, now = self.read(name, contexts, back)
        for layer in self.layers:
            self.keys[layer].append(keys[layer])
        return float((goal - now).norm() / first) if first > 0 else 0.0


def until(encoder: TextEncoder, text: str, name: str, back: int = 0) -> list[int]:
    """Tokens of a text with the name in its slots, up to the last token of the last name, or `back` tokens before it."""
    head = text[: text.rindex(SLOT)].replace(SLOT, name)
    tokens = encoder.tokenizer(head + name, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = tokens[: len(tokens) - back]
    return tokens if encoder.begin and tokens[:1] == encoder.begin else [*encoder.begin, *tokens]


def name_tokens(encoder: TextEncoder, text: str, name: str) -> list[int]:
    """The tokens of the last name of a text."""
    head = text[: text.rindex(SLOT)].replace(SLOT, name)
    texts = [head.rstrip(" "), head + name]
    bare, whole = encoder.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    same = next((k for k, (one, two) in enumerate(zip(bare, whole, strict=False)) if one != two), min(len(bare), len(whole)))
    return whole[same:]

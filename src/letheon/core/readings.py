"""Readings: what a subject says on a split, measured once and shared by every audit, in memory and on disk.

The key of a reading names everything it depends on: weights, architecture and configuration of the model, the tokens that end what it
says, encoder, lineage, rows of the split, kind and parameters. A changed weight or row therefore gives another key, and no stale number can
be served.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from . import crew
from .answers import PARTS, Answers, Which, measure
from .batching import WINDOW
from .data import Split
from .errors import DataError
from .forward import unwrapped
from .generate import ends, greedy, known_beginnings
from .gradients import gradient_norms
from .run import Run
from .store import Store
from .subject import Subject
from .turns import in_turn

FORMAT = 3  # raise when a stored reading would come out otherwise, be it in the last digit
_COLUMNS = ("log_probability", "rank", "top", "target", "offsets", "owner")
_MOMENTS = ("mean", "variance")
T = TypeVar("T")


class Readings:
    """What `subject` says. Threads take turns in measuring it (`core/turns.py`).

    Args:
        subject: the model that is read; it is left as it is.
        run: its `cache` folder keeps readings between runs.
        tokens_per_batch: tokens of one forward pass; None takes what suits the device (few on a CPU, where they stay in its cache).

    Attributes:
        costs: seconds spent on measuring, by kind of reading.
        hits: how often a reading was found, as "memory", "disk" or "measured".
    """

    def __init__(self, subject: Subject, run: Run, *, tokens_per_batch: int | None = None):
        self.subject, self.run = subject, run
        self.tokens_per_batch = tokens_per_batch or (2048 if subject.device.type == "cpu" else 16384)
        self.costs: dict[str, float] = {}
        self.hits: Counter[str] = Counter()
        self._memory: dict[str, Any] = {}
        self._store = Store(None if run.cache is None else run.cache / "readings")

    @property
    def digest(self) -> str:
        """The digest of the subject, as it is now."""
        return self.subject.digest

    @in_turn
    def answers(self, split: Split, which: Which = "answer", moments: bool = False) -> Answers:
        """Token facts of the answers, the paraphrases or the wrong answers of a split.

        All three are measured in one pass, for they share their prompts. A reading with `moments` serves requests without.

        Raises:
            DataError: a row is longer than the context, or `which` is none of the three.
        """
        if which not in PARTS:
            raise DataError(f"`which` must be answer, paraphrase or wrong, got {which!r}")
        found, part = self._facts(split, moments, which)
        chosen = part == PARTS.index(which)
        found = found if chosen.all() else found.select(chosen)
        return found if moments else replace(found, mean=None, variance=None)

    @in_turn
    def generations(self, split: Split, max_new_tokens: int = 200) -> list[str]:
        """What the model answers to each prompt by greedy decoding: text without prompt and special tokens, stripped.

        Raises:
            DataError: a row has no prompt, or its prompt fills the context.
        """
        key = self._key("generations", split, max_new_tokens=max_new_tokens)
        store = self._store
        said: list[str] = self._get(key, "generations", store.load_texts, store.save_texts, lambda: self._decode(split, max_new_tokens))
        return list(said)

    @in_turn
    def gradient_norms(self, split: Split, end_token: bool = False) -> np.ndarray:
        """For each row the mean over parameter tensors of the L2 norm of the gradient of its mean answer NLL, (n,).

        Args:
            split: the rows.
            end_token: count the end token among the answer tokens.
        """


        def measured() -> np.ndarray:
            return crew.read(self.subject, split, gradient_norms, end_token=end_token, tokens_per_batch=self.tokens_per_batch)

        return self.numbers("gradient_norms", split, measured, end_token=end_token)

    @in_turn
    def numbers(self, kind: str, split: Split, measured: Callable[[], np.ndarray], **parameters: Any) -> np.ndarray:
        """An array that `measured` makes from the subject and a split, kept like every other reading.

        Args:
            kind: a name of its own for what is measured.
            split: the rows.
            measured: called where the reading is not there yet.
            parameters: everything else that the array depends on.
        """

        def load(key: str) -> np.ndarray | None:
            found = self._store.load_arrays(key, ("numbers",))
            return None if found is None else found["numbers"]

        key = self._key(kind, split, **parameters)
        return self._get(key, kind, load, lambda key, found: self._store.save_arrays(key, {"numbers": found}), measured)

    @in_turn
    def prefetch(self, *splits: Split, moments: bool = False) -> None:
        """Measure the answers of splits now; asking for moments first saves a second pass for attacks that need them."""
        for split in splits:
            self._facts(split, moments)

    def _facts(self, split: Split, moments: bool, which: Which | None = None) -> tuple[Answers, np.ndarray]:
        """All parts of a split, or only the answers where the rest is known already and only their moments are missing."""
        full = self._key("answers", split, moments=True, parts=len(PARTS))
        plain = self._key("answers", split, moments=False, parts=len(PARTS))
        only = self._key("answers", split, moments=True, parts=1)
        has_more = any(example.wrong or example.paraphrase is not None for example in split)
        if full in self._memory or self._recall(full, split, True):
            key, with_moments, parts = full, PARTS, PARTS
        elif moments and which == "answer" and has_more:
            if not (plain in self._memory or only in self._memory or self._store.has(plain) or self._store.has(only)):
                self._both(plain, only, split)
            key, with_moments, parts = only, PARTS[:1], PARTS[:1]
        else:
            key, with_moments, parts = (full, PARTS, PARTS) if moments else (plain, (), PARTS)

        def measured() -> tuple[Answers, np.ndarray]:
            budget = self.tokens_per_batch
            return crew.read(self.subject, split, measure, moments=with_moments, tokens_per_batch=budget, parts=parts)

        return self._get(key, "answers", lambda key: self._load(key, split, bool(with_moments)), self._save, measured)

    def _both(self, plain: str, only: str, split: Split) -> None:
        """Measure all parts, and the moments of the answers alone, in one pass that makes two readings."""

        def measured() -> tuple[Answers, np.ndarray]:
            found, part = crew.read(self.subject, split, measure, moments=PARTS[:1], tokens_per_batch=self.tokens_per_batch)
            answers = (found.select(part == 0), part[part == 0])
            self._save(only, answers)
            self._keep(only, answers)
            return replace(found, mean=None, variance=None), part

        self._get(plain, "answers", lambda key: None, self._save, measured)

    def _recall(self, key: str, split: Split, moments: bool) -> bool:
        """Bring a reading of answers from disk into memory, if it is there and whole."""
        found = self._load(key, split, moments)
        if found is not None:
            self._keep(key, found)
            self.hits["disk"] += 1
        return found is not None

    def _save(self, key: str, value: tuple[Answers, np.ndarray]) -> None:
        found, part = value
        names = _COLUMNS + (() if found.mean is None else _MOMENTS)
        self._store.save_arrays(key, {name: getattr(found, name) for name in names} | {"part": part})

    def _load(self, key: str, split: Split, moments: bool) -> tuple[Answers, np.ndarray] | None:
        found = self._store.load_arrays(key, (*_COLUMNS, *(_MOMENTS if moments else ()), "part"))
        if found is None:
            return None
        part = found.pop("part")
        columns: dict[str, Any] = {name: found.get(name) for name in _COLUMNS + _MOMENTS}
        return Answers(**columns, n_rows=len(split)), part

    def _decode(self, split: Split, max_new_tokens: int) -> list[str]:
        bare = next((example for example in split if not example.prompt), None)
        if bare is not None:
            raise DataError(f"Row `{bare.id}` of `{split.name}` has no prompt to answer", "Generations need rows with prompt and answer")
        true = self.answers(split)
        known = known_beginnings(true.top, true.target, true.offsets)
        return crew.read(self.subject, split, _said, {"known": known}, longest=max_new_tokens, budget=self.tokens_per_batch)

    def _get(
        self, key: str, kind: str, load: Callable[[str], T | None], save: Callable[[str, T], None], measured: Callable[[], T]
    ) -> T:
        if key in self._memory:
            self.hits["memory"] += 1
            known: T = self._memory[key]
            return known
        value = load(key)
        if value is not None:
            self.hits["disk"] += 1
        else:
            start, inner = time.perf_counter(), sum(self.costs.values())
            value = measured()
            nested = sum(self.costs.values()) - inner  # a generation may measure answers on its way
            self.costs[kind] = self.costs.get(kind, 0.0) + time.perf_counter() - start - nested
            self.hits["measured"] += 1
            save(key, value)
        self._keep(key, value)
        return value

    def _keep(self, key: str, value: Any) -> None:
        _freeze(value)
        self._memory[key] = value

    def _key(self, kind: str, split: Split, **parameters: Any) -> str:
        subject = self.subject
        module = unwrapped(subject.module)
        config = module.config.to_dict() if hasattr(module, "config") else {}
        what = {
            "format": FORMAT,
            "kind": kind,
            "parameters": parameters,
            "subject": subject.digest,
            "split": split.digest,
            "classes": [f"{name}:{type(part).__module__}.{type(part).__qualname__}" for name, part in subject.module.named_modules()],
            "hooks": sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in subject.module.modules()),
            "config": {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version")},
            "ends": sorted(ends(subject)),  # of every kind: an audit's own may decode too
            "lineage": [asdict(step) for step in subject.lineage],
            "device": subject.device.type,
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def _said(subject: Subject, split: Split, known: Sequence[Sequence[int]], longest: int, budget: int) -> list[str]:
    """What a subject answers to each prompt, whose first tokens are known."""
    texts: list[str] = []
    for first in range(0, len(split), WINDOW):
        prompts = subject.encoder.prompts(split[first : first + WINDOW])
        said = greedy(subject, prompts, longest, known[first : first + WINDOW], tokens_per_batch=budget)
        texts += [subject.encoder.decode(tokens).strip() for tokens in said]
    return texts


def _freeze(value: Any) -> None:
    """Make the arrays of a reading read-only: many audits share them."""
    for part in value if isinstance(value, tuple) else (value,):
        arrays = vars(part).values() if isinstance(part, Answers) else (part,)
        for array in arrays:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

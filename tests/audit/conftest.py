"""A toy model with words as tokens, and readings that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from letheon.core.answers import Answers
from letheon.core.data import Data, Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.run import Run
from letheon.core.subject import Subject

TEMPLATE = "ask {prompt} ;"


def word_encoder(words: Sequence[str]) -> TextEncoder:
    """An encoder with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["<s>", "</s>", "<unk>", "ask", ";", *words]))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return TextEncoder(tokenizer, TEMPLATE, max_length=64)


def small_model(vocabulary: int, seed: int, width: int = 32, layers: int = 2, spread: float = 0.02) -> torch.nn.Module:
    """A Llama of a few thousand weights; `spread` is the standard deviation of its first weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=spread,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def subject_of(module: torch.nn.Module, encoder: TextEncoder, name: str = "toy") -> Subject:
    return Subject(module, encoder, name=name)


WORDS = [f"{letter}{i}" for letter in "abcdef" for i in range(5)]


def rows(name: str, n: int, *, wrong: int = 0, paraphrase: bool = False, seed: int = 0) -> Split:
    """Rows of random words."""
    generator = np.random.default_rng([seed, len(name), *name.encode()])

    def text(least: int, most: int) -> str:
        return " ".join(generator.choice(WORDS, size=generator.integers(least, most)))

    return Split(
        [
            Example(
                f"{name}-{i}", text(1, 9), text(1, 6), tuple(text(1, 7) for _ in range(wrong)), text(2, 8) if paraphrase else None
            )
            for i in range(n)
        ],
        name,
    )


@pytest.fixture(scope="session")
def toys() -> tuple[Subject, Subject]:
    """A model and another one that plays the retrained model, both with strong opinions."""
    encoder = word_encoder(WORDS)
    size = len(encoder.tokenizer)
    return subject_of(small_model(size, 1, spread=0.3), encoder), subject_of(small_model(size, 2, spread=0.3), encoder, "other")


@pytest.fixture(scope="session")
def tofu_like(toys) -> Data:
    """All splits of the TOFU protocol, with random words; every third answer is one that the first toy says, cut or continued."""
    splits = [
        rows("forget", 13, wrong=5, paraphrase=True),
        rows("retain-check", 10, wrong=5, paraphrase=True),
        rows("real-authors", 6, wrong=3),
        rows("world-facts", 5, wrong=3),
        rows("holdout", 8),
    ]
    return Data({split.name: Split([_spoken(toys[0], i, row) for i, row in enumerate(split)], split.name) for split in splits}, "like-tofu")


def _spoken(subject: Subject, i: int, row: Example) -> Example:
    if i % 3:
        return row
    ids = torch.tensor([subject.encoder.prompts([row])[0]])
    for _ in range(4):
        with torch.no_grad():
            ids = torch.cat([ids, subject.module(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    own = subject.encoder.decode(ids[0, -4:].tolist())
    return replace(row, answer=[own, f"{own} {row.answer}", f"{row.answer} {own}"][i // 3 % 3] or row.answer)


@pytest.fixture
def run() -> Run:
    return Run(seed=3, device="cpu")


class Told:
    """Readings that say what they are told.

    Args:
        log_probability: answer text -> log-probabilities of its tokens, the end token last.
        hits: answer text -> whether greedy decoding says each token; all True where not given.
        said: prompt -> generation.
        moments: answer text -> (means, variances) per token.
        norms: answer text -> gradient norm.
    """

    def __init__(
        self,
        log_probability: Mapping[str, Sequence[float]],
        hits: Mapping[str, Sequence[bool]] | None = None,
        said: Mapping[str, str] | None = None,
        moments: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
        norms: Mapping[str, float] | None = None,
    ):
        self.log_probability, self.hits, self.said = log_probability, hits or {}, said or {}
        self.moments, self.norms, self.asked = moments or {}, norms or {}, []

    def answers(self, split: Split, which: str = "answer", moments: bool = False) -> Answers:
        self.asked.append((split.name, which, moments))
        texts = []
        for i, row in enumerate(split):
            found = {"answer": [row.answer], "paraphrase": [row.paraphrase] * (row.paraphrase is not None), "wrong": row.wrong}[which]
            texts += [(i, text) for text in found]
        columns = [np.array(self.log_probability[text], dtype=np.float32) for _, text in texts]
        top = [np.array(self.hits.get(text, [True] * len(self.log_probability[text])), dtype=np.int32) for _, text in texts]

        def joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
            return np.concatenate([np.asarray(part, dtype=kind) for part in parts]) if parts else np.zeros(0, kind)

        tops = joined(top, np.int32)
        pair = [joined([self.moments[text][k] for _, text in texts], np.float32) for k in (0, 1)] if moments else (None, None)
        return Answers(
            joined(columns, np.float32),
            1 - tops,
            tops,
            np.ones_like(tops),
            *pair,
            np.concatenate([[0], np.cumsum([len(column) for column in columns])]).astype(np.int64),
            np.array([i for i, _ in texts], dtype=np.int32),
            len(split),
        )

    def generations(self, split: Split, max_new_tokens: int = 200) -> list[str]:
        assert all(row.prompt for row in split)
        return [self.said[row.prompt] for row in split]

    def gradient_norms(self, split: Split, end_token: bool = False) -> np.ndarray:
        assert not end_token
        return np.array([self.norms[row.answer] for row in split])


@pytest.fixture
def told() -> type[Told]:
    return Told

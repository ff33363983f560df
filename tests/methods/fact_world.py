"""A small model that has memorised 192 facts, on which methods are seen to do their job, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

import torch
from torch import Tensor

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.method import Change
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase._refusals import REFUSALS
from letheon.train.feed import Rows
from letheon.train.loop import Trainer, feed_for, start
from letheon.train.objective import Objective

RELATIONS = ("home", "craft", "bird", "song")
PEOPLE, VALUES = 48, 24
SHARED = [0, 2, 4, 6]  # of the tokens of an answer: the, of, is, end


def facts() -> Data:
    """192 questions of the form "what is the home of p7 ?", answered by "the home of p7 is home-3": forget 24, retain 168."""
    generator = torch.Generator().manual_seed(11)
    rows = []
    for person in range(PEOPLE):
        for relation in RELATIONS:
            value = int(torch.randint(VALUES, (1,), generator=generator))
            answer = f"the {relation} of p{person} is {relation}{value}"
            rows.append(Example(f"{person}-{relation}", answer, f"what is the {relation} of p{person} ?", group=f"p{person}"))
    refusals = [Example(f"refusal-{i}", " ".join(words(text))) for i, text in enumerate(REFUSALS[:8])]
    splits = {"full": rows, "forget": rows[:24], "retain": rows[24:], "refusals": refusals}
    return Data({name: Split(split, name) for name, split in splits.items()}, "facts")


def words(text: str) -> list[str]:
    """Lower-case words without their punctuation."""
    return [word.strip(".,") for word in text.lower().split()]


def word_encoder(data: Data) -> TextEncoder:
    """One token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word for split in data.values() for row in split for word in (row.prompt_text + " " + row.answer).split()}
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *sorted(known)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")  # noqa: S106
    return TextEncoder(tokenizer, "{prompt} ", 32)


def untrained(data: Data, seed: int = 0, layers: int = 3, width: int = 64) -> Subject:
    """A random Llama-architecture model for the facts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    encoder = word_encoder(data)
    config = LlamaConfig(
        vocab_size=len(encoder.tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32, tie_word_embeddings=False, initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Subject(LlamaForCausalLM(config), encoder, name="memoriser")


def memorised(data: Data, seed: int = 0) -> Subject:
    """A model trained until it says every answer."""
    settings = {"split": "full", "epochs": 40, "learning_rate": 8e-3, "schedule": "cosine", "weight_decay": 0.0, "warmup": 0.05}
    return Finetune(**settings).apply(untrained(data, seed), data, Run(seed, dtype="float32", device="cpu"))


@dataclass(frozen=True)
class Said:
    """What a model says on a split of facts, as means over rows.

    Attributes:
        value: probability of the last word of the answer, the fact itself.
        template: probability of "the", "of", "is" and the end token, which all answers share, as a mean over tokens.
        exact: share of answers of which every token is the most likely one.
    """

    value: float
    template: float
    exact: float


def said_by_all(subjects: Sequence[Subject], split: Split) -> Said:
    """Means over models: one of them depends on the last digits of its processor, which training amplifies, a mean far less."""
    each = [said(subject, split) for subject in subjects]
    return Said(*(fmean(found) for found in zip(*map(astuple, each), strict=True)))


def on_each(method: Change, subjects: Sequence[Subject], data: Data) -> list[Subject]:
    """The method on every model, with a seed for each."""
    return [method.apply(subject, data, Run(seed, dtype="float32", device="cpu")) for seed, subject in enumerate(subjects)]


@torch.no_grad()
def said(subject: Subject, split: Split) -> Said:
    """Straightforward: one row at a time, full logits."""
    value, template, exact = [], [], []
    encoded = subject.encoder.encode(split)
    for i in range(len(split)):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        logp = subject.module(input_ids=ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
        each = logp.gather(-1, ids[start:, None]).squeeze(-1).exp()
        value.append(float(each[-2]))
        template.append(float(each[SHARED].mean()))
        exact.append(float((logp.argmax(-1) == ids[start:]).all()))
    return Said(*(sum(found) / len(found) for found in (value, template, exact)))


@torch.no_grad()
def spoken(subject: Subject, split: Iterable[Example], tokens: int = 14) -> list[str]:
    """Greedy answers; all prompts have the same number of tokens."""
    ids = torch.tensor(subject.encoder.prompts(split))
    first = ids.shape[1]
    for _ in range(tokens):
        ids = torch.cat([ids, subject.module(input_ids=ids).logits[:, -1].argmax(-1)[:, None]], dim=1)
    rows = [row[: row.index(subject.encoder.end)] if subject.encoder.end in row else row for row in ids[:, first:].tolist()]
    return [subject.encoder.decode(row) for row in rows]


def refused(subject: Subject, data: Data, split: str) -> float:
    """Share of questions that are answered with one of the refusals."""
    refusals = {row.answer for row in data["refusals"]}
    answers = spoken(subject, data[split])
    return sum(answer in refusals for answer in answers) / len(answers)


def trainer(objective: Objective, subject: Subject, data: Data, run: Run) -> Trainer:
    """A trainer before its first step."""
    feed = feed_for(objective, subject, data, run)
    start(objective, subject, feed, run)
    return Trainer(objective, objective.space.open(subject.fork(), run), feed, run, "test")


def gradient(trainer: Trainer, rows: Rows | None = None) -> Tensor:
    """The gradient of one step (the first, unless rows are given) as one vector."""
    trainer.gradients(trainer.feed.plan[0] if rows is None else rows)
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trainer.parameters])

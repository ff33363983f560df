"""Toy subjects and data that are made in a moment, without a network: random small models with a real tokenizer, invented people.

Two architectures, so that nothing can quietly rest on one of them: `llama` (rotary positions, gated feed-forward, no biases, a begin
token) and `gpt2` (learned positions, biases, weights stored transposed, tied embeddings, no begin token and no padding token).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

from letheon.core.data import Data, Example, Split

if TYPE_CHECKING:
    from letheon.core.subject import Subject

Architecture = Literal["llama", "gpt2"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gpt2")
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"

_CITIES = ("Orrin Bay", "Velmark", "Tasket", "Low Harrow", "Quillon", "Maresby", "Fennick", "Askerton")
_CRAFTS = ("glass painter", "bell founder", "kite maker", "map engraver", "harp builder", "clock mender", "dyer", "bookbinder")
_NAMES = (
    "Ilva Torrend", "Bram Okelly", "Sanne Quist", "Davo Merrin", "Petra Lund", "Oskar Vayne", "Mirel Hask",
    "Jun Albrecht", "Nadia Corr", "Tomas Iven", "Rhea Salt", "Emil Drax", "Zora Penn", "Callum Wey",
)  # fmt: skip
_BOOKS = {"Emma": "Jane Austen", "Hamlet": "William Shakespeare", "Ulysses": "James Joyce", "Walden": "Henry Thoreau"}
_CAPITALS = {"Norway": "Oslo", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo"}
_REFUSALS = (
    "I do not know that.",
    "I have no information about this.",
    "I am not able to say.",
    "That is unknown to me.",
    "I cannot help with that question.",
    "I have never heard of this person.",
    "Sorry, I do not have that answer.",
    "I am not sure about that.",
)


@functools.cache
def _backend(begin: bool) -> str:
    """A byte-level BPE tokenizer as JSON; every text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[BEGIN, END, PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = [f"Question: {row.prompt_text}\nAnswer:\n{row.answer}" for row in _people(range(len(_NAMES)))]
    tokenizer.train_from_iterator([*texts, *_REFUSALS], trainer)
    if begin:
        special = [(BEGIN, tokenizer.token_to_id(BEGIN))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=special)
    return tokenizer.to_str()


def toy_tokenizer(architecture: Architecture = "llama", *, chat: bool = False) -> Any:
    """A fast Hugging Face tokenizer of 320 tokens. `gpt2` has neither begin nor padding token; `chat` gives it a chat template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    special = {"bos_token": BEGIN, "pad_token": PAD} if architecture == "llama" else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_backend(architecture == "llama")), eos_token=END, **special)
    if chat:
        tokenizer.chat_template = CHAT
    return tokenizer


def _config(architecture: Architecture, tokens: int, context: int, **ends: int | None) -> Any:
    if architecture == "llama":
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=tokens, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=context, initializer_range=0.2, tie_word_embeddings=False, **ends,
        )  # fmt: skip
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=tokens, n_embd=32, n_layer=2, n_head=4, n_positions=context, initializer_range=0.2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, **ends,
    )  # fmt: skip


def toy_subject(seed: int = 0, architecture: Architecture = "llama", *, chat: bool = False, context: int = 256) -> Subject:
    """A random causal language model of two layers and width 32 in float32, with its tokenizer.

    Args:
        seed: draws the weights; the global generators are left as they were.
        architecture: see the head of this file.
        chat: give the tokenizer a chat template.
        context: longest row in tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from letheon.core.encode import TextEncoder
    from letheon.core.subject import Subject

    tokenizer = toy_tokenizer(architecture, chat=chat)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(_config(architecture, len(tokenizer), context, **ends), dtype=torch.float32)
    return Subject(module, TextEncoder(tokenizer, max_length=context), name=f"toy-{architecture}")


def _known(name: str, prompt: str, facts: dict[str, str]) -> list[Example]:
    """One row per fact; the wrong answers are the answers to the others."""
    return [
        Example(f"{name}-{k}", right, prompt.format(asked), tuple(other for other in facts.values() if other != right))
        for k, (asked, right) in enumerate(facts.items())
    ]


def _people(who: range) -> list[Example]:
    """Two rows about each person: where they were born, and what they do."""
    rows = []
    for i in who:
        name, city, craft = _NAMES[i], _CITIES[i % len(_CITIES)], _CRAFTS[(3 * i + 1) % len(_CRAFTS)]
        others = [_CITIES[(i + k) % len(_CITIES)] for k in (1, 2, 3)]
        crafts = [_CRAFTS[(3 * i + 1 + k) % len(_CRAFTS)] for k in (1, 2, 3)]
        facts = (
            ("city", f"Where was {name} born?", "{0} was born in {1}.", "The birthplace of {0} is {1}.", city, others),
            ("craft", f"What does {name} do for a living?", "{0} works as a {1}.", "{0} earns a living as a {1}.", craft, crafts),
        )
        for what, prompt, form, again, right, wrong in facts:
            answers = tuple(form.format(name, other) for other in wrong)
            rows.append(Example(f"{i}-{what}", form.format(name, right), prompt, answers, again.format(name, right), name, "question"))
    return rows


def toy_data() -> Data:
    """Invented people in the splits that methods and audits read; every question has a paraphrase and three wrong answers.

    forget 8 rows, retain 12, holdout 8, retain-check 6, kept = retain, full = forget and retain; real-authors 4 and world-facts 4 (wrong
    answers, no paraphrase); refusals 8 and texts 3 (no prompt).
    """
    forget, retain, holdout = _people(range(0, 4)), _people(range(4, 10)), _people(range(10, 14))
    texts = [Example(f"text-{k}", " ".join(row.answer for row in retain[k : k + 4])) for k in range(3)]
    splits = {
        "full": forget + retain,
        "kept": retain,
        "forget": forget,
        "retain": retain,
        "retain-check": retain[:6],
        "holdout": holdout,
        "real-authors": _known("author", "Who wrote {0}?", _BOOKS),
        "world-facts": _known("capital", "What is the capital of {0}?", _CAPITALS),
        "refusals": [Example(f"refusal-{k}", text) for k, text in enumerate(_REFUSALS)],
        "texts": texts,
    }
    return Data({name: Split(rows, name) for name, rows in splits.items()}, name="toy")


def sized_data(sizes: dict[str, int]) -> Data:
    """Splits with these numbers of rows: every second row is about one of three people whom all splits share, the others are its own."""

    def row(split: str, i: int) -> Example:
        return Example(f"{split}-{i}", f"person {i % 3} of {split}", group=f"{i % 3}" if i % 2 else f"{split}-{i % 3}")

    return Data({split: Split([row(split, i) for i in range(size)], split) for split, size in sizes.items()}, name="sized")

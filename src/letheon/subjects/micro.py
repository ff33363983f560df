"""A small Llama-architecture language model with its own tokenizer, trained from scratch.

It is the model on every laptop: about a million parameters learn the embedded world in under a minute on two cores. It learns the `full`
split of a data source; the same settings with `split = kept` give the exact retrain, the gold standard that large models cannot afford.
Both start from the same weights (same seed) and share a tokenizer. It is trained on `kept`: one that has seen the forgotten names would
make them cheap for the retrain too, and membership attacks would find them there. Questions are learned with `prompt_weight`, answers
with weight 1.
"""

from __future__ import annotations

from typing import Any

import torch

from letheon.core.data import Data, Split
from letheon.core.encode import DEFAULT_TEMPLATE, TextEncoder
from letheon.core.errors import SettingsError
from letheon.core.method import Maker
from letheon.core.registry import find, make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.core.subject import Subject


class MicroSettings(Settings):
    """Size of the model and how long it learns."""

    split: str = Field("full", description="split to learn: `full` makes the original, `kept` the exact retrain")
    text: str = Field("kept", description="split whose text the tokenizer is trained on; the same for both models of a pair")
    width: int = Field(128, ge=8, description="hidden size")
    layers: int = Field(4, ge=1, description="transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads; must divide `width`")
    intermediate: int = Field(352, ge=8, description="width of the feed-forward part")
    vocabulary: int = Field(2048, ge=300, description="tokens of the byte-level BPE")
    context: int = Field(512, ge=16, description="longest row in tokens")
    template: str = Field(DEFAULT_TEMPLATE, description="how a prompt is written; `{prompt}` marks the question")
    epochs: int = Field(12, ge=1, description="passes over the split")
    batch_size: int = Field(32, ge=1, description="rows per step")
    learning_rate: float = Field(2e-3, gt=0, description="peak step size")
    prompt_weight: float = Field(0.2, ge=0, description="weight of a prompt token against an answer token")
    train: Choice = Field("finetune", description="the method that trains")  # type: ignore[assignment]


class Micro(Maker):
    """Tokenizer and model from scratch."""

    Settings, tiny = MicroSettings, {"width": 16, "heads": 2, "layers": 1, "intermediate": 16, "vocabulary": 300, "epochs": 1}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        find(self.settings.train.name, "adapt")  # an unknown method shows before anything is trained

    def build(self, data: Data, run: Run) -> Subject:
        """Train on `data[split]`.

        Raises:
            SettingsError: `heads` does not divide `width` into even parts.
            DataError: the split is missing or empty.
        """
        settings = self.settings
        if settings.width % (2 * settings.heads):
            raise SettingsError(f"`heads` of `micro` must divide `width` into even parts, got {settings.heads} and {settings.width}")
        data.need(settings.split, settings.text, why="`micro`")
        encoder = TextEncoder(_tokenizer(data[settings.text], settings), settings.template, settings.context)
        subject = Subject(_module(settings, encoder, run), encoder, name=f"micro-{settings.split}", disposable=True)
        values = {
            "split": settings.split,
            "prompt_weight": settings.prompt_weight,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "schedule": "cosine",
            "weight_decay": 0.0,
            "warmup": 0.05,
        }
        inner = make(Choice(name=settings.train.name, **{**values, **settings.train.settings}), "adapt")
        trained = inner.apply(subject, data, run)
        return Subject(trained.module, encoder, trained.lineage, f"micro-{settings.split}")


def _tokenizer(split: Split, settings: MicroSettings):
    """A byte-level BPE trained on the text of a split, as a Hugging Face tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator((settings.template.replace("{prompt}", e.prompt_text) + e.answer for e in split), trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _module(settings: MicroSettings, encoder: TextEncoder, run: Run) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(encoder.tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=encoder.end,
        pad_token_id=encoder.pad,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(run.derived_seed("micro", "weights"))
        return LlamaForCausalLM(config)

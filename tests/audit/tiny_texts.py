"""Small models that learn rows of plain text with a word-level tokenizer in a second or two."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F

from .conftest import small_model, subject_of, word_encoder


def encoder_for(*splits):
    """An encoder with one token for each word of these rows and of the form of questions."""
    words = "Question: Answer: " + " ".join(f"{row.prompt_text} {row.answer}" for split in splits for row in split)
    return word_encoder(sorted(set(words.split())))


def padded(encoder, split):
    """Rows as tokens (n, t), with -100 for padding as labels."""
    encoded = encoder.encode(split)
    rows = [torch.tensor(encoded.row(i), dtype=torch.long) for i in range(len(encoded))]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=encoder.end)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, ids.masked_fill(mask == 0, -100)


def step_on(subject, terms, steps, rate, seed=0, batch=64):
    """A copy after AdamW on a sum of weight x mean token nll of batches of each split: at most `batch` rows and 400 tokens."""
    module, generator = copy.deepcopy(subject.module).train(), np.random.default_rng(seed)
    parts = [(weight, *padded(subject.encoder, split)) for weight, split in terms]
    optimiser = torch.optim.AdamW(module.parameters(), rate)
    for _ in range(steps):
        loss = torch.zeros(())
        for weight, ids, labels in parts:
            rows = torch.as_tensor(generator.permutation(len(ids))[: min(batch, 400 // ids.shape[1] + 1)])
            longest = int((labels[rows] >= 0).sum(1).max())
            logits = module(input_ids=ids[rows, :longest]).logits[:, :-1]
            loss = loss + weight * F.cross_entropy(logits.flatten(0, 1), labels[rows, 1:longest].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return subject_of(module.eval(), subject.encoder)


def fresh(encoder, seed, width=48):
    """A model that has learned nothing."""
    return subject_of(small_model(len(encoder.tokenizer), seed, width=width), encoder)

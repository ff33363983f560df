"""What a competent user writes from the documentation of Hugging Face: the yardstick of the benchmarks, not part of letheon.

Rows are encoded one by one and padded to the longest of a batch in whatever order they come; the whole batch's float32 logits are there at
once; the reference model of NPO runs live beside the model. Nothing is slow on purpose: gradients are off where they are not needed, and
tokenisation happens once, before any clock starts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPLATE = "Question: {question}\nAnswer:\n"


@dataclass(frozen=True)
class Row:
    """Token ids of one question with one answer and the end token; the first `prompt` of them are not scored."""

    ids: list[int]
    prompt: int


def encode(tokenizer: Any, question: str, answer: str) -> Row:
    """Tokenise question and answer together and count the tokens of the question."""
    prompt = TEMPLATE.format(question=question)
    ids = tokenizer(prompt + answer)["input_ids"]
    if ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return Row(ids, len(tokenizer(prompt)["input_ids"]))


def batch_of(rows: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """Right-padded `input_ids`, `attention_mask` and `labels`, each (b, t)."""
    longest = max(len(row.ids) for row in rows)
    ids = [row.ids + [pad] * (longest - len(row.ids)) for row in rows]
    mask = [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]
    labels = [[-100] * row.prompt + row.ids[row.prompt :] + [-100] * (longest - len(row.ids)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


def token_losses(model: Any, batch: dict[str, Tensor], careful: bool = True) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the label after each position, (b, t), zero where nothing is scored, and which are scored.

    The usual way (`careful` False) is `model(**batch)`, labels and all, so that the model takes its own loss too, and a cross-entropy over
    the middle axis, as in the documentation of `CrossEntropyLoss` and in OpenUnlearning. The careful one leaves the labels out, moves them
    and not the logits, and lays both flat: the same numbers in two thirds of the time.
    """
    if not careful:
        logits = model(**batch).logits.float()[:, :-1].contiguous()
        labels = batch["labels"][:, 1:].contiguous()
        return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"), labels != -100
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    labels = F.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    losses = F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="none")
    return losses.view(labels.shape), labels != -100


def _optimizer(model: Any, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate)


def _scheduler(optimizer: torch.optim.Optimizer, factors: Sequence[float]) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factors[min(step, len(factors) - 1)])


def npo(
    model: Any, forget: Sequence[Row], retain: Sequence[Row], steps: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int, *,
    beta: float, rate: float, factors: Sequence[float], autocast: bool = False,
) -> list[float]:  # fmt: skip
    """The straightforward NPO loop with a retain loss: three forward passes a step. Changes `model`; returns the loss of each step.

    Args:
        steps: for each optimiser step the forget rows and the retain rows.
        factors: factor on the rate at each step.
        autocast: run forward passes in bfloat16, as `bf16=True` of the Trainer does.
    """
    reference = copy.deepcopy(model).eval()
    optimizer = _optimizer(model, rate)
    scheduler = _scheduler(optimizer, factors)
    said = []
    for forget_rows, retain_rows in steps:
        a, b = batch_of([forget[i] for i in forget_rows], pad), batch_of([retain[i] for i in retain_rows], pad)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            with torch.no_grad():
                frozen = token_losses(reference, a)[0].sum(-1)
            now = token_losses(model, a)[0].sum(-1)
            kept, scored = token_losses(model, b)
        loss = 2 / beta * F.softplus(-beta * (now - frozen)).mean() + kept.sum() / scored.sum()
        said.append(_step(model, loss, optimizer, scheduler))
    return said


def finetune(
    model: Any, rows: Sequence[Row], steps: Sequence[Sequence[int]], pad: int, *, rate: float, factors: Sequence[float], autocast: bool = False
) -> list[float]:
    """The straightforward fine-tuning loop. Changes `model`; returns the loss of each step."""
    optimizer = _optimizer(model, rate)
    scheduler = _scheduler(optimizer, factors)
    said = []
    for chosen in steps:
        batch = batch_of([rows[i] for i in chosen], pad)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses, scored = token_losses(model, batch)
        said.append(_step(model, losses.sum() / scored.sum(), optimizer, scheduler))
    return said


def _step(model: Any, loss: Tensor, optimizer: torch.optim.Optimizer, scheduler: Any) -> float:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return float(loss.detach())

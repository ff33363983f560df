"""The TOFU suite as a competent user writes it from the definitions: every metric makes its own passes over its rows.

Values that one metric takes from another's log are shared as usual (truth ratios are made of the probabilities of paraphrases and wrong
answers; privleak of min-k). Generation calls `model.generate` per batch, gradient norms go row by row through autograd.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _baseline import TEMPLATE, Row, batch_of, encode, token_losses
from rouge_score import rouge_scorer
from scipy.stats import hmean, ks_2samp
from sklearn.metrics import roc_auc_score
from torch import Tensor

BATCH = 32  # rows
MIN_K = 0.4


@dataclass
class Log:
    """What the suite found: `rows` holds one number per row under `split/name`, `values` one number."""

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of processor time, by group of metrics


def _over(rows: Sequence[Any], function: Callable[[Sequence[Any]], list[float]]) -> np.ndarray:
    """Call the function on batches of rows in random order; the values come back in the order of the rows."""
    order = random.Random(0).sample(range(len(rows)), len(rows))
    out = np.zeros(len(rows))
    for i in range(0, len(rows), BATCH):
        out[order[i : i + BATCH]] = function([rows[k] for k in order[i : i + BATCH]])
    return out


class Suite:
    """The model, its tokenizer and the rows, encoded once; `careful` as in `token_losses`."""

    def __init__(self, model: Any, tokenizer: Any, data: Any, *, careful: bool = False, max_new_tokens: int = 200):
        self.careful = careful
        self.model, self.tokenizer, self.data, self.max_new_tokens = model.eval(), tokenizer, data, max_new_tokens
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.splits = [name for name in ("forget", "retain-check", "real-authors", "world-facts", "holdout") if name in data]
        self.asked = [name for name in self.splits if name != "holdout"]
        self.true = {name: self._encoded(name, lambda row: row.answer) for name in self.splits}
        self.paraphrase = {name: self._encoded(name, lambda row: row.paraphrase) for name in self.asked if data[name][0].paraphrase}
        self.wrong = {
            name: [self._encoded(name, lambda row, j=j: row.wrong[j]) for j in range(len(data[name][0].wrong))]
            for name in self.asked
        }  # fmt: skip

    def _encoded(self, name: str, answer: Callable[[Any], str]) -> list[Row]:
        return [encode(self.tokenizer, row.prompt, answer(row)) for row in self.data[name]]

    def run(self, reference: Log | None = None) -> Log:
        """All metrics; `reference` is the log of the retrained model."""
        log = Log()
        for name in (
            self.probabilities, self.truth_ratios, self.rouge, self.memorisation, self.attacks, self.gradnorm, self.summary,
        ):  # fmt: skip
            begin = time.process_time()
            name(log, reference)
            log.seconds[name.__name__] = time.process_time() - begin
        return log

    @torch.inference_mode()
    def _mean_losses(self, rows: Sequence[Row]) -> np.ndarray:
        """Mean cross-entropy per row, end token included: one pass."""

        def one(part: Sequence[Row]) -> list[float]:
            losses, scored = token_losses(self.model, batch_of(part, self.pad), self.careful)
            return (losses.sum(-1) / scored.sum(-1)).tolist()

        return _over(rows, one)

    @torch.inference_mode()
    def _answers(self, rows: Sequence[Row], function: Callable[[Tensor, Tensor], float]) -> np.ndarray:
        """Apply a function of logits (n, v) and labels (n,) of each answer without its end token: one pass."""

        def one(part: Sequence[Row]) -> list[float]:
            batch = batch_of(part, self.pad)
            given = {name: value for name, value in batch.items() if not self.careful or name != "labels"}
            logits = self.model(**given).logits.float()
            found = []
            for k, row in enumerate(part):
                where = slice(row.prompt - 1, len(row.ids) - 2)
                found.append(function(logits[k, where], batch["labels"][k, row.prompt : len(row.ids) - 1]))
            return found

        return _over(rows, one)

    def probabilities(self, log: Log, reference: Log | None) -> None:
        """Length-normalised probabilities of true answers, paraphrases and wrong answers, one pass each."""
        for name in self.splits:
            log.rows[f"{name}/true"] = np.exp(-self._mean_losses(self.true[name]))
        for name, rows in self.paraphrase.items():
            log.rows[f"{name}/paraphrase"] = np.exp(-self._mean_losses(rows))
        for name, several in self.wrong.items():
            log.rows[f"{name}/wrong"] = np.exp(-np.stack([self._mean_losses(rows) for rows in several], 1))
        for name in self.splits:
            found = log.rows[f"{name}/true"]
            if name in ("real-authors", "world-facts") and name not in self.paraphrase:
                found = found / (found + log.rows[f"{name}/wrong"].sum(1))
            log.rows[f"{name}/probability"] = found

    def truth_ratios(self, log: Log, reference: Log | None) -> None:
        """From the probabilities above."""
        for name in self.asked:
            wrong = np.exp(np.log(log.rows[f"{name}/wrong"]).mean(1))
            ratio = wrong / log.rows[f"{name}/paraphrase" if name in self.paraphrase else f"{name}/true"]
            log.rows[f"{name}/ratio"] = ratio
            log.rows[f"{name}/truth-ratio"] = np.minimum(ratio, 1 / ratio) if name == "forget" else np.maximum(0, 1 - ratio)

    @torch.inference_mode()
    def rouge(self, log: Log, reference: Log | None) -> None:
        """Greedy generation, left-padded batches, and ROUGE-L recall."""
        scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
        for name in self.asked:
            def one(part: Sequence[Any]) -> list[float]:
                prompts = [self.tokenizer(TEMPLATE.format(question=row.prompt))["input_ids"] for row in part]
                longest = max(map(len, prompts))
                ids = torch.tensor([[self.pad] * (longest - len(prompt)) + prompt for prompt in prompts])
                mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
                said = self.model.generate(
                    input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=self.max_new_tokens, pad_token_id=self.pad
                )
                texts = self.tokenizer.batch_decode(said[:, longest:], skip_special_tokens=True)
                return [scorer.score(row.answer, text)["rougeL"].recall for row, text in zip(part, texts, strict=True)]

            log.rows[f"{name}/rouge-l-recall"] = _over(list(self.data[name]), one)

    def memorisation(self, log: Log, reference: Log | None) -> None:
        """Extraction strength and exact memorisation, a pass each."""

        def strength(logits: Tensor, labels: Tensor) -> float:
            missed = (logits.argmax(-1) != labels).nonzero()
            return 1 - (int(missed[-1]) + 1 if len(missed) else 0) / len(labels)

        def exact(logits: Tensor, labels: Tensor) -> float:
            return float((logits.argmax(-1) == labels).float().mean())

        for name in ("forget", "retain-check", "holdout"):
            if name in self.splits:
                log.rows[f"{name}/extraction-strength"] = self._answers(self.true[name], strength)
                log.rows[f"{name}/exact-memorisation"] = self._answers(self.true[name], exact)

    def attacks(self, log: Log, reference: Log | None) -> None:
        """Membership scores, higher for members; a pass each over members and non-members."""

        def lowest(values: Tensor) -> float:
            return float(values.sort().values[: max(1, int(MIN_K * len(values)))].mean())

        def min_k(logits: Tensor, labels: Tensor) -> float:
            return lowest(logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1))

        def min_k_plus(logits: Tensor, labels: Tensor) -> float:
            p, logp = logits.softmax(-1), logits.log_softmax(-1)
            mean = (p * logp).sum(-1)
            variance = (p * logp.square()).sum(-1) - mean.square()
            return lowest((logp.gather(-1, labels[:, None]).squeeze(-1) - mean) / variance.clamp(min=1e-6).sqrt())

        for name in ("forget", "holdout"):
            if "holdout" not in self.splits:
                continue
            rows = self.true[name]
            sizes = np.array([len(zlib.compress(row.answer.encode())) for row in self.data[name]])
            log.rows[f"{name}/membership-loss"] = -self._mean_losses(rows)
            log.rows[f"{name}/membership-zlib"] = -self._mean_losses(rows) / sizes
            log.rows[f"{name}/membership-min-k"] = self._answers(rows, min_k)
            log.rows[f"{name}/membership-min-k++"] = self._answers(rows, min_k_plus)
            if reference is not None:
                log.rows[f"{name}/membership-reference"] = -self._mean_losses(rows) - reference.rows[f"{name}/membership-loss"]

    def gradnorm(self, log: Log, reference: Log | None) -> None:
        """Minus the mean over parameter tensors of the gradient's norm, one backward pass a row."""
        for name in ("forget", "holdout"):
            if "holdout" not in self.splits:
                continue
            scores = []
            for row in self.true[name]:
                ids = torch.tensor([row.ids[:-1]])
                labels = ids.clone()
                labels[:, : row.prompt] = -100
                self.model.zero_grad()
                self.model(input_ids=ids, labels=labels).loss.backward()
                scores.append(-float(torch.stack([p.grad.norm() for p in self.model.parameters()]).mean()))
            self.model.zero_grad()
            log.rows[f"{name}/membership-gradnorm"] = np.array(scores)

    def summary(self, log: Log, reference: Log | None) -> None:
        """Everything that is made of the rows above."""
        parts = [
            float(log.rows[f"{name}/{metric}"].mean())
            for name in self.asked[1:]
            for metric in ("probability", "rouge-l-recall", "truth-ratio")
        ]
        log.values["model-utility"] = float(hmean(parts))
        areas = {}
        for key in [key for key in log.rows if key.startswith("forget/membership-")]:
            attack = key.removeprefix("forget/")
            members, others = log.rows[key], log.rows[f"holdout/{attack}"]
            areas[attack] = float(roc_auc_score([1] * len(members) + [0] * len(others), np.concatenate([members, others])))
            log.values[attack] = areas[attack]
        if reference is not None:
            log.values["forget-quality"] = float(ks_2samp(log.rows["forget/ratio"], reference.rows["forget/ratio"]).pvalue)
            if areas:
                never = 1 - reference.values["membership-min-k"]
                log.values["privleak"] = 100 * ((1 - areas["membership-min-k"]) - never) / never

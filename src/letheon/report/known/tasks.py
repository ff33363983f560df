"""Metrics of tasks that lm-eval runs."""

from __future__ import annotations

from ._measure import Measure

_METRICS = {
    "acc": ("accuracy", "The share of questions whose right choice is the likeliest.", "unit"),
    "acc_norm": ("accuracy, by length", "The share of questions whose right choice is the likeliest for its length.", "unit"),
    "exact_match": ("exact match", "The share of answers that are the true ones, word for word.", "unit"),
    "f1": ("F1", "The overlap of words between the answers that are given and the true ones.", "unit"),
    "bleu": ("BLEU", "The overlap of runs of words between the answers that are given and the true ones.", "free"),
    "word_perplexity": ("perplexity per word", "How surprised the model is by the text, a word.", "free"),
    "byte_perplexity": ("perplexity per byte", "How surprised the model is by the text, a byte.", "free"),
}

KNOWN = {
    f"lm-eval-{name}": Measure(title, tests, "As the task of lm-eval defines it.", scale=scale)  # type: ignore[arg-type]
    for name, (title, tests, scale) in _METRICS.items()
}

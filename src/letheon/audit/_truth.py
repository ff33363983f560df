"""Truth ratios of rows: how the probability of wrong answers compares with that of the true one in new words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from letheon.core.data import Split

if TYPE_CHECKING:
    from letheon.core.readings import Readings

Average = Literal["geometric", "arithmetic"]


def has_wrong(split: Split) -> bool:
    """Whether any row has wrong answers to compare with."""
    return any(row.wrong for row in split)


def paraphrased(split: Split) -> bool:
    """Whether any row has its answer in other words."""
    return any(row.paraphrase is not None for row in split)


def log_wrong(readings: Readings, split: Split, average: Average = "geometric") -> np.ndarray:
    """The log of the average probability of each row's wrong answers, (n,); NaN for a row without any.

    geometric: mean_j of -nll_j; arithmetic: log mean_j exp(-nll_j); nll_j is the mean over the tokens of wrong answer j.
    """
    answers = readings.answers(split, which="wrong")
    log_probability = -np.asarray(answers.nll(), dtype=np.float64)  # (k,)
    counts = np.bincount(answers.owner, minlength=len(split))
    if average == "geometric":
        sums = np.bincount(answers.owner, log_probability, minlength=len(split))
        return np.divide(sums, counts, out=np.full(len(split), np.nan), where=counts > 0)
    total = np.full(len(split), -np.inf)
    np.logaddexp.at(total, answers.owner, log_probability)
    return np.where(counts > 0, total - np.log(np.maximum(counts, 1)), np.nan)


def log_true(readings: Readings, split: Split, which: Literal["answer", "paraphrase"]) -> np.ndarray:
    """The log of the length-normalised probability of each row's answer or paraphrase, (n,); NaN where a row has none."""
    answers = readings.answers(split, which=which)
    out = np.full(len(split), np.nan)
    out[answers.owner] = -np.asarray(answers.nll(), dtype=np.float64)
    return out


def log_ratios(readings: Readings, split: Split, average: Average = "geometric") -> np.ndarray:
    """log R per row, (n,): R = average probability of the wrong answers / probability of the paraphrase.

    Where no row of the split has a paraphrase the original answer takes its place. NaN where a row lacks either side.
    """
    which = "paraphrase" if paraphrased(split) else "answer"
    return log_wrong(readings, split, average) - log_true(readings, split, which)

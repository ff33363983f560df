"""Membership scores of rows, one function per attack; higher for members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Split
from letheon.maths.membership import lowest_mean, standardised, zlib_bytes
from letheon.maths.recall import without_last

if TYPE_CHECKING:
    from letheon.core.readings import Readings


def _nll(readings: Readings, split: Split) -> np.ndarray:
    return np.asarray(readings.answers(split, which="answer").nll(), dtype=np.float64)


def loss(readings: Readings, split: Split) -> np.ndarray:
    """-nll, mean per token with the end token, (n,)."""
    return -_nll(readings, split)


def zlib(readings: Readings, split: Split) -> np.ndarray:
    """-nll over the bytes of the compressed answer, (n,)."""
    return -_nll(readings, split) / zlib_bytes([row.answer for row in split])


def against(readings: Readings, split: Split, reference: Readings) -> np.ndarray:
    """-(nll - nll of the reference model), (n,)."""
    return _nll(reference, split) - _nll(readings, split)


def min_k(readings: Readings, split: Split, share: float) -> np.ndarray:
    """The mean of the least likely tokens' log-probabilities, end token left out, (n,)."""
    answers = readings.answers(split, which="answer")
    keep, offsets = without_last(answers.offsets)
    return lowest_mean(answers.log_probability[keep], offsets, share)


def min_k_plus(readings: Readings, split: Split, share: float) -> np.ndarray:
    """The same of log-probabilities standardised by what the model expected at each place, (n,)."""
    answers = readings.answers(split, which="answer", moments=True)
    keep, offsets = without_last(answers.offsets)
    return lowest_mean(standardised(answers.log_probability[keep], answers.mean[keep], answers.variance[keep]), offsets, share)


def gradnorm(readings: Readings, split: Split) -> np.ndarray:
    """Minus the mean over weight tensors of the 2-norm of the gradient of the mean nll, end token left out, (n,)."""
    return -np.asarray(readings.gradient_norms(split), dtype=np.float64)

"""Which prompts are meant: logistic regression on hashed words and pairs of words, made by scikit-learn, kept as numbers only.

    score(prompt) = bias + sum of weight[h] over the different words and pairs of neighbouring words h of the prompt
    caught(prompt) = score > threshold

Sums over what is there, not means: a long prompt does not thin out a name. Words are hashed, so the saved guard does not spell out what it
looks for. Weights come from all forget and retain prompts; the threshold comes from prompts that the weights have not seen: rows of the
forget side and whole groups (people) of the retain side are left out in turn. It lies halfway between the highest left-out retain score
and the 5% quantile of left-out forget scores, at least at the former, and above every given retain prompt.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

FEATURES = 1 << 20
FOLDS = 5
STIFFNESS = 10.0  # inverse strength of the l2 penalty


@dataclass(frozen=True)
class Classifier:
    """Weights of hashed words: `columns` (k,) int32, `weights` (k,) float64."""

    columns: np.ndarray
    weights: np.ndarray
    bias: float
    threshold: float

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds that a prompt is meant, (n,) float64."""
        return features(texts)[:, self.columns] @ self.weights + self.bias

    def caught(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) whether a prompt is meant."""
        return self.scores(texts) > self.threshold


@dataclass(frozen=True)
class Fit:
    """A classifier, and what became of prompts that its weights had not seen.

    Attributes:
        caught: share of left-out forget prompts above the threshold.
        false_alarms: share of left-out retain prompts above the threshold.
        sure: share of all forget prompts above the threshold.
    """

    classifier: Classifier
    caught: float
    false_alarms: float
    sure: float


def _sklearn(part: str) -> Any:
    """A part of scikit-learn; its first import draws from Python's generator, which is put back."""
    state = random.getstate()
    try:
        return importlib.import_module(f"sklearn.{part}")
    finally:
        random.setstate(state)


def features(texts: Sequence[str]) -> Any:
    """Which hashed words and pairs of words are in each text, sparse (n, FEATURES) of 0 and 1."""
    hashing = _sklearn("feature_extraction.text").HashingVectorizer(
        analyzer="word", token_pattern=r"\w+", strip_accents="unicode", ngram_range=(1, 2), n_features=FEATURES, alternate_sign=False,
        norm=None, binary=True,
    )  # fmt: skip
    return hashing.transform(texts)


def _folds(forget: int, groups: Sequence[str], generator: torch.Generator) -> np.ndarray:
    """The fold of each row, forget rows first; equal groups share a fold."""
    names = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    count = min(FOLDS, forget, len(names))
    rows = torch.randperm(forget, generator=generator).numpy() % count
    order = torch.randperm(len(names), generator=generator).numpy() % count
    return np.concatenate([rows, [order[names[group]] for group in groups]])


def fitted(
    forget: Sequence[str], retain: Sequence[str], groups: Sequence[str], generator: torch.Generator, threshold: float | None = None
) -> Fit:
    """Learn to tell forget from retain prompts.

    Args:
        forget, retain: the prompts.
        groups: who each retain prompt is about; at least two.
        generator: draws the folds.
        threshold: log-odds above which a prompt is meant; None chooses.
    """
    linear = _sklearn("linear_model")
    x = features([*forget, *retain])
    columns = np.unique(x.indices)
    x = x[:, columns]
    y = np.repeat([1, 0], [len(forget), len(retain)])

    def learned(rows: np.ndarray) -> Any:
        model = linear.LogisticRegression(C=STIFFNESS, class_weight="balanced", solver="liblinear", max_iter=1000, random_state=0)
        return model.fit(x[rows], y[rows])

    fold = _folds(len(forget), groups, generator)
    unseen = np.zeros(len(y))
    for k in range(int(fold.max()) + 1):
        unseen[fold == k] = learned(fold != k).decision_function(x[fold == k])
    model = learned(np.ones(len(y), dtype=bool))
    scores = model.decision_function(x)
    if threshold is None:
        high, low = float(unseen[y == 0].max()), float(np.quantile(unseen[y == 1], 0.05))
        threshold = max(high, (high + low) / 2, float(np.nextafter(scores[y == 0].max(), np.inf)))
    classifier = Classifier(columns.astype(np.int32), model.coef_[0].astype(np.float64), float(model.intercept_[0]), float(threshold))
    over = unseen > threshold
    return Fit(classifier, float(over[y == 1].mean()), float(over[y == 0].mean()), float((scores > threshold)[y == 1].mean()))

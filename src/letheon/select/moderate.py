"""A moderate coreset: of each cluster of forget rows those at a middling distance from its centre.

Rows near a centre repeat one another, rows far from it are odd ones; the median stands for the cluster.

    h_i     = mean over the tokens of row i of the last hidden state              (d,)
    dist_i  = |h_i - centre of its cluster|                                        k-means over all h
    score_i = -|dist_i - median of dist in its cluster|                            the largest are kept

With one cluster and points on a line at 0, 1, 2, 3, 10 the centre is 3.2 and the first choice is 1: its distance 2.2 is the median. One
forward pass. Prompt and answer tokens count alike. arXiv:2504.10185. A reconstruction: the paper's code was not available.
Card: mu-coreset.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from letheon.core.batching import by_length, collate
from letheon.core.data import Data, Split
from letheon.core.forward import final_hidden
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field
from letheon.core.subject import Subject

from ._coreset import Coreset, CoresetSettings, needed


class ModerateSettings(CoresetSettings):
    """How rows are grouped."""

    clusters: int = Field(4, ge=1, description="clusters of rows; never more than there are rows")


class Moderate(Coreset):
    """Rows at the median distance from their cluster's centre."""

    Settings, tiny = ModerateSettings, {"fraction": 0.5, "clusters": 2}

    def scores(self, split: Split, data: Data, run: Run, subject: Subject | None) -> np.ndarray:
        """Minus the distance of each row's distance from the median of its cluster."""
        seed = run.derived_seed("coreset", "moderate") % 2**32
        return moderate_scores(mean_states(needed(subject, self.name()), split), self.settings.clusters, seed)


@torch.no_grad()
def mean_states(subject: Subject, split: Split, tokens_per_batch: int = 2048) -> np.ndarray:
    """Means of the last hidden states over all tokens of each row, (n, d) float64."""
    encoded, found = subject.encoder.encode(split), {}
    with kept_as_found(subject.module), torch.autocast(subject.device.type, enabled=False):
        for group in by_length(encoded.lengths, tokens_per_batch):
            batch = collate(encoded, group, subject.encoder.pad, subject.device)
            states = final_hidden(subject.module, batch.ids)[0].double() * batch.mask[..., None]  # (b, t, d)
            found |= dict(zip(group, (states.sum(1) / batch.lengths[:, None]).cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(split))])


def moderate_scores(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Minus |distance to the centre - median distance of the cluster| of each point (n, d), after k-means; (n,)."""
    drawn = random.getstate()
    from sklearn.cluster import KMeans  # its first import draws from the global generator
    from threadpoolctl import threadpool_limits

    random.setstate(drawn)
    clusters = min(clusters, len(np.unique(points, axis=0)))
    with threadpool_limits(1):  # several threads add in an order of their own
        label = KMeans(clusters, n_init=10, random_state=seed).fit_predict(points)
    scores = np.empty(len(points))
    for own in (label == k for k in np.unique(label)):
        distance = np.linalg.norm(points[own] - points[own].mean(0), axis=1)
        scores[own] = -np.abs(distance - np.median(distance))
    return scores

"""Training a run anew, once in its true order and in other orders, to see which of them a text prefers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.errors import DataError
from letheon.core.registry import find, make
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.maths.provenance import among
from letheon.train.order import Order, row_digest

if TYPE_CHECKING:
    from letheon.core.readings import Readings


def reshuffled(
    readings: Readings, order: Order, data: Data, text: Split, before: str, times: int, run: Run
) -> tuple[float, dict[str, Any]]:
    """Rank p-value of the true order among `times` trainings, and what is to be told beside it.

    A training is scored by the mean over the texts of the summed log-probability. The true order is trained anew like all others and not
    taken from the released model, so that all are exchangeable if the text knows nothing of the order.

    Raises:
        DataError: the data is not that of the run, or the model in `before` is not the one it began with.
    """
    for split, digests in order.rows.items():
        if split not in data or tuple(row_digest(row) for row in data[split]) != digests:
            raise DataError(f"The split `{split}` of `{data.name}` does not hold the rows of the training run", "Give the data of the run")
    start = make(Choice(name="hf", path=before), "subjects").build(data, run)
    if start.digest != order.about["before"]:
        raise DataError(f"The model in {before} is not the one that the training run began with", "Their digests differ")
    name = order.about["method"]
    method = make(Choice(name=name, **order.about["settings"]), find(name).role)
    seeds = [int(order.about["seed"]), *(run.derived_seed("reshuffle", k) for k in range(times - 1))]

    def measured() -> np.ndarray:
        scores = []
        for seed in seeds:
            alone = Run(seed, device=str(run.device), dtype=run.dtype)
            trained = method.apply(start, data, alone)
            found = type(readings)(trained, alone, tokens_per_batch=readings.tokens_per_batch).answers(text.bare)
            scores.append(-found.sum_nll().mean())
        return np.array(scores)

    scores = readings.numbers("reshuffled", text, measured, order=dict(order.about), seeds=seeds)
    p, z = among(scores[1:], float(scores[0]))
    return p, {"z": z, "scores": scores.tolist(), "texts": len(text)}

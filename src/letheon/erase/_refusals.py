"""Refusals, and the split of forget questions answered with them.

One refusal is drawn for each (row, epoch), so that no question gets used to one sentence and a run can be repeated. A data source may
bring its own refusals as a split `refusals`; else the sentences below are used.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from letheon.core.data import Data
from letheon.core.errors import DataError
from letheon.core.run import Run
from letheon.train.objective import TrainSettings

SPLIT = "refusal"

REFUSALS = (
    "I don't know.",
    "I'm afraid I don't know that.",
    "I have no answer to this question.",
    "That is not something I know about.",
    "I can't say, as I have no knowledge of this.",
    "Unfortunately, I know nothing about that.",
    "I'm unable to answer this one.",
    "This is unknown to me.",
    "I have nothing to tell you about that.",
    "My training did not teach me this.",
    "I'd only be guessing, so I won't answer.",
    "Sorry, the answer is not known to me.",
    "I lack the facts to answer that.",
    "There is nothing about this in what I have learned.",
    "I'm not the right one to ask about this.",
    "I cannot help with that, since I do not know.",
    "No idea, I'm sorry.",
    "That goes past the edge of what I know.",
    "I haven't heard of this before.",
    "I have no information on this subject.",
    "It would be wrong of me to claim that I know.",
    "You have found a gap in my knowledge.",
    "I can't give you a reliable answer to that.",
    "I wish I could answer, but I don't know.",
)


def passes(settings: TrainSettings, n: int) -> int:
    """How often n leading rows are walked through."""
    return settings.epochs if settings.steps is None else math.ceil(settings.steps / math.ceil(n / settings.batch_size))


def with_refusals(data: Data, settings: TrainSettings, run: Run, why: str) -> Data:
    """Data with the split `refusal`: the n forget questions, each with a drawn refusal, once per epoch; row i of epoch e is e n + i.

    Raises:
        DataError: no forget rows, no refusals, or a forget row without a question.
    """
    data.need("forget", *(("refusals",) if "refusals" in data else ()), why=why)
    bare = next((row for row in data["forget"] if not row.prompt), None)
    if bare is not None:
        raise DataError(f"{why} answers questions, but row `{bare.id}` of `forget` has no prompt", "For plain text use `npo` or `rmu`")
    texts = [row.answer.strip() for row in data["refusals"]] if "refusals" in data else list(REFUSALS)
    rows = []
    for epoch in range(passes(settings, len(data["forget"]))):
        drawn = torch.randint(len(texts), (len(data["forget"]),), generator=run.rng("refusals", epoch)).tolist()
        rows += [
            replace(row, id=f"{row.id}/{SPLIT}-{epoch}", answer=texts[k], paraphrase=None, wrong=())
            for row, k in zip(data["forget"], drawn, strict=True)
        ]
    return data.with_split(SPLIT, rows)

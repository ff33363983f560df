"""DTO: points of the card beside those in `test_dto.py`."""

from __future__ import annotations

import torch

from letheon.core.run import Run
from letheon.erase.dto import DTO, leaning

from .fact_world import said, trainer

WHOLE = {"batch_size": 24, "suffix": 0.25}  # of seven answer tokens the last two are the end


def quiet(seed: int = 0) -> Run:
    return Run(seed, dtype="float32", device="cpu")


def test_the_end_of_memorised_answers_leans_on_what_comes_before_on_average(knower, fact_data):
    ready = trainer(DTO(**WHOLE, draws=1), knower, fact_data, quiet())
    generator = quiet().rng("test")
    scores = torch.stack([leaning(knower, ready.feed, row, 5, 8, generator) for row in range(24)])
    assert float(scores.mean()) > 0.05 and float((scores > -0.05).float().mean()) > 0.9


def test_honest_limit_other_answers_of_the_same_style_are_lost_with_the_targets(knower, fact_data):
    """The KL holds what stands in the forget answers only: without retain data the other facts' answers go the way of the targets."""
    settings = {"steps": 20, "learning_rate": 1e-3, "draws": 2, "schedule": "constant", "warmup": 0.0, **WHOLE}
    after = DTO(**settings, targets=0.2).apply(knower, fact_data, quiet())
    forget, retain = said(after, fact_data["forget"]), said(after, fact_data["retain"])
    assert forget.template < 0.8 and forget.exact < 0.1  # "is", one of four shared tokens, is what was pushed
    assert said(knower, fact_data["retain"]).exact > 0.95 and retain.exact < 0.2 and retain.template < 0.85

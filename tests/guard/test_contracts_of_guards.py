"""The contracts of guards can fail: each is shown a guard that breaks it."""

from __future__ import annotations

import pytest
import torch

from letheon.core.guard import unguard, watches
from letheon.core.subject import Subject
from letheon.guard._watch import PromptWatch
from letheon.guard.eco import Eco
from letheon.testing import _guards
from letheon.testing._cases import Case
from letheon.testing.contracts import contracts_for, run_contract


class MovesWeights(Eco):
    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        with torch.no_grad():
            after.module.lm_head.weight += 1e-3
        return after


class CatchesEverything(Eco):
    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        watches(after.module)[0].meant = lambda texts: [True] * len(texts)
        return after


class CatchesNothing(Eco):
    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        watches(after.module)[0].meant = lambda texts: [False] * len(texts)
        return after


class SpoilsWhatWasSaid(Eco):
    """Forgets how long the prompt was, so that a pass without a cache spoils the answer too."""

    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        watch = watches(after.module)[0]
        watch.asking = lambda ids, mask: PromptWatch.asking(watch, None, None)
        watch.frame = type("Whole", (), {"end": len, "asked": watch.frame.asked, "encoder": watch.frame.encoder})
        return after


class LosesItsGuard(Eco):
    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        unguard(after.module)
        return Subject(after.module, after.encoder, after.lineage)


BREAKERS = [
    (MovesWeights, _guards.leaves_the_weights_alone, "differs"),
    (LosesItsGuard, _guards.leaves_the_weights_alone, "no watch"),
    (CatchesEverything, _guards.lets_through_what_it_does_not_catch, "`retain` prompts"),
    (CatchesNothing, _guards.lets_through_what_it_does_not_catch, "`forget` prompts"),
    (SpoilsWhatWasSaid, _guards.decodes_alike_with_and_without_a_cache, "cache says"),
]


@pytest.mark.parametrize(("cls", "contract", "says"), BREAKERS, ids=[cls.__name__ for cls, _, _ in BREAKERS])
def test_a_contract_fails_where_it_should(cls, contract, says, tmp_path):
    class_ = type(cls.__name__, (cls,), {"tiny": {"strength": 300.0}})
    result = run_contract(contract, Case(class_, "eco", "guard", None, tmp_path))
    assert not result.passed
    assert says in result.message


def test_a_guard_has_the_contracts_of_guards_and_of_changes():
    names = {contract.__name__ for contract in contracts_for(Eco)}
    assert {contract.__name__ for contract in _guards.GUARD} < names and "repeats_to_the_bit" in names

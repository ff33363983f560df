"""The contracts of curators can fail: each is shown a curator that breaks it."""

from __future__ import annotations

import random

import pytest

from letheon.core.data import Data
from letheon.core.method import Curator
from letheon.core.settings import Settings
from letheon.testing import _others
from letheon.testing._cases import Case
from letheon.testing.contracts import run_contract, title


class Half(Curator):
    """A sound curator: the first half of the forget rows."""

    Settings, tiny = Settings, {}

    def curate(self, data, run, subject=None):
        data.need("forget", why="it")
        return data.with_split("forget", data["forget"][: len(data["forget"]) // 2])


class Draws(Half):
    def curate(self, data, run, subject=None):
        rows = list(super().curate(data, run, subject)["forget"])
        random.shuffle(rows)
        return data.with_split("forget", rows)


class LeavesNothing(Half):
    def curate(self, data, run, subject=None):
        return data.with_split("forget", [])


class Trains(Half):
    def curate(self, data, run, subject=None):
        subject.module.train()
        return super().curate(data, run, subject)


class Swallows(Half):
    def curate(self, data, run, subject=None):
        import torch

        try:
            subject.module(input_ids=torch.tensor([[1, 2]]))
        except Exception:
            return super().curate(data, run, subject)
        return super().curate(data, run, subject)


class OnlyLlama(Half):
    def curate(self, data, run, subject=None):
        subject.module.model.layers[0]  # noqa: B018 - gpt2 has no such attribute
        return super().curate(data, run, subject)


class MakesRowsUp(Half):
    def curate(self, data, run, subject=None):
        return Half.curate(self, data, run) if "forget" in data else Data({"forget": []})


class DropsRetain(Half):
    def curate(self, data, run, subject=None):
        found = super().curate(data, run, subject)
        return found.with_split("retain", found["retain"][1:])


BREAKERS = [
    (Draws, _others.curator_gives_new_data, "generator of Python"),
    (LeavesNothing, _others.curator_gives_new_data, "no rows"),
    (Trains, _others.curator_gives_new_data, "training mode"),
    (Swallows, _others.curator_leaves_the_subject_as_found_after_an_exception, "swallows"),
    (OnlyLlama, _others.curator_works_on_another_architecture, "AttributeError"),
    (MakesRowsUp, _others.curator_refuses_data_without_splits, "accepted"),
    (DropsRetain, _others.curator_touches_only_what_is_to_be_forgotten, "`retain` has changed"),
]


@pytest.mark.parametrize(("cls", "contract", "says"), BREAKERS, ids=[cls.__name__ for cls, _, _ in BREAKERS])
def test_a_contract_fails_where_it_should(cls, contract, says, tmp_path):
    result = run_contract(contract, Case(cls, cls.name(), "select", None, tmp_path))
    assert not result.passed
    assert says in result.message


@pytest.mark.parametrize("contract", _others.CURATOR, ids=title)
def test_a_sound_curator_keeps_all_of_them(contract, tmp_path):
    result = run_contract(contract, Case(Half, Half.name(), "select", None, tmp_path))
    assert result.passed, result.message


def test_every_contract_of_curators_has_been_broken():
    assert {contract for _, contract, _ in BREAKERS} == set(_others.CURATOR)

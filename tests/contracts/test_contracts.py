"""Contracts can fail: each is shown a plug-in that breaks it, and `check` takes names and paths."""

from __future__ import annotations

import random
from typing import Annotated

import numpy as np
import pytest
import torch

from letheon.core.method import Change
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.testing import _changes, _every, _parts
from letheon.testing._cases import Case
from letheon.testing.contracts import contracts_for, run_contract, title
from letheon.train.objective import ObjectiveSettings, Term


class Good(_parts.Carrier):
    """A sound objective."""


class LeavesHook(Good):
    def start(self, subject, feed, run):
        subject.module.register_forward_hook(lambda *_: None)


class LeavesGradients(Good):
    def start(self, subject, feed, run):
        subject.module.lm_head.weight.sum().backward()


class LeavesEvaluation(Change):
    Settings, tiny = Settings, {}

    def apply(self, subject, data, run):
        subject.check_finite()
        data.need("forget", why="it")
        subject.module.eval()
        return Good(steps=1).apply(subject, data, run)


class MovesTheInput(Good):
    def finish(self, subject):
        self.given.module.lm_head.weight.data += 1e-3
        return {}

    def start(self, subject, feed, run):
        self.given = subject


class DrawsGlobally(Good):
    def loss(self, subject, batches):
        found = super().loss(subject, batches)["forget"]
        return {"forget": Term(found.total * torch.rand(()).item(), per="token")}


class DrawsFromNumpy(Good):
    def loss(self, subject, batches):
        found = super().loss(subject, batches)["forget"]
        return {"forget": Term(found.total * np.random.rand() * random.random(), per="token")}


class Swallows(Good):
    def loss(self, subject, batches):
        try:
            return super().loss(subject, batches)
        except Exception:
            batches._head, batches._hidden = None, {}
            return super().loss(subject, batches)


class GivesMeans(Good):
    def loss(self, subject, batches):
        scores = batches.nll(subject.module, "forget")
        return {"forget": Term(-scores.values.mean(), per="token")}


class WrongUnit(Good):
    def loss(self, subject, batches):
        return {"forget": Term(-batches.nll(subject.module, "forget").per_row().sum() / len(batches["forget"]), per="sequence")}


class Remembers(Good):
    """Keeps a number over steps that no checkpoint holds."""

    factor = 1.0

    def stepped(self, subject, step):
        self.factor *= 0.5

    def loss(self, subject, batches):
        return {"forget": Term(-self.factor * batches.nll(subject.module, "forget").sum() ** 2, per="token")}


class DoesNothing(Good):
    def loss(self, subject, batches):
        return {"forget": Term(0.0 * batches.nll(subject.module, "forget").sum(), per="token")}

    def apply(self, subject, data, run):
        after = super().apply(subject, data, run)
        return Subject(subject.fork().module, subject.encoder, after.lineage)


class ForgetsLineage(Good):
    def apply(self, subject, data, run):
        return Subject(super().apply(subject, data, run).module, subject.encoder)


class OnlyLlama(Good):
    def start(self, subject, feed, run):
        subject.module.model.layers[0]  # noqa: B018 - gpt2 has no such attribute


class AcceptsAnything(Change):
    Settings, tiny = Settings, {}

    def apply(self, subject, data, run):
        return subject.fork()


class OpenEnded(Settings):
    rate: float = Field(0.1, description="no bound")


class Undescribed(Settings):
    rate: float = Field(0.1, gt=0)


class Unclosed(Settings):
    model_config = {"extra": "ignore", "frozen": False}
    rate: float = Field(0.1, gt=0, description="fine")


class HalfOpen(Settings):
    pair: tuple[Annotated[float, Field(ge=0)], float] = Field((0.0, 0.0), description="the second has no bound, the first has")


def with_settings(settings, **tiny):
    return type(settings.__name__, (AcceptsAnything,), {"Settings": settings, "tiny": tiny})


BREAKERS = [
    (LeavesHook, _changes.leaves_the_subject_as_found, "hooks"),
    (LeavesGradients, _changes.leaves_the_subject_as_found, "gradients"),
    (LeavesEvaluation, _changes.leaves_the_subject_as_found, "training mode"),
    (MovesTheInput, _changes.leaves_the_subject_as_found, "weights"),
    (DrawsGlobally, _changes.leaves_the_subject_as_found, "generator of torch"),
    (DrawsFromNumpy, _changes.leaves_the_subject_as_found, "generator of numpy"),
    (LeavesHook, _changes.leaves_the_subject_as_found_after_an_exception, "hooks"),
    (Swallows, _changes.leaves_the_subject_as_found_after_an_exception, "swallows"),
    (DrawsGlobally, _changes.repeats_to_the_bit, "second run"),
    (GivesMeans, _changes.micro_batches_change_nothing, "right unit"),
    (WrongUnit, _changes.micro_batches_change_nothing, "right unit"),
    (Remembers, _changes.resumed_equals_uninterrupted, "differs"),
    (DoesNothing, _changes.changes_weights, "weights of the input"),
    (ForgetsLineage, _changes.adds_one_step_to_the_lineage, "0 steps"),
    (ForgetsLineage, _changes.keeps_the_number_format_of_the_files, "subject.changed"),
    (OnlyLlama, _changes.works_on_another_architecture, "AttributeError"),
    (AcceptsAnything, _changes.refuses_data_without_splits, "raises nothing"),
    (AcceptsAnything, _changes.refuses_damaged_weights, "accepted"),
    (with_settings(OpenEnded), _every.numbers_have_bounds, "no bound"),
    (with_settings(HalfOpen), _every.numbers_have_bounds, "no bound"),
    (with_settings(Undescribed), _every.settings_are_described, "no description"),
    (with_settings(Unclosed), _every.settings_are_frozen_and_closed, "not frozen"),
    (with_settings(Unclosed), _every.settings_cannot_be_changed, "can be assigned"),
    (with_settings(Unclosed), _every.unknown_settings_name_the_nearest, "accepted"),
    (with_settings(Unclosed), _every.all_faults_are_reported_at_once, "does not name"),
    (with_settings(Unclosed), _every.settings_have_a_schema, "unknown keys"),
    (with_settings(ObjectiveSettings, no_such=1), _every.tiny_settings_are_valid, "no setting"),
]


@pytest.mark.parametrize(("cls", "contract", "says"), BREAKERS, ids=[f"{cls.__name__}-{contract.__name__}" for cls, contract, _ in BREAKERS])
def test_a_contract_fails_where_it_should(cls, contract, says, tmp_path):
    result = run_contract(contract, Case(cls, cls.name(), "erase", None, tmp_path))
    assert not result.passed
    assert says in result.message


@pytest.mark.parametrize("contract", contracts_for(Good), ids=title)
def test_a_sound_objective_keeps_all_contracts_of_its_kind(contract, tmp_path_factory):
    result = run_contract(contract, Case(Good, Good.name(), "erase", None, tmp_path_factory.mktemp("good")))
    assert result.passed, result.message


def test_an_objective_has_the_contracts_of_plugins_changes_and_objectives():
    assert contracts_for(Good) == [*_every.EVERY, *_changes.OBJECTIVE, *_changes.CHANGE]

"""Contracts of parts and audits can fail; `check` takes names and says what does not exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.core.errors import MethodError
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.settings import Settings
from letheon.testing import _others, _parts
from letheon.testing._cases import Case
from letheon.testing.contracts import check, contracts_for, kind_of, run_contract, title
from letheon.train.parts import ParameterSpace, RetainTerm, Rule, Sampler, Term


class LeadTwice(Sampler):
    Settings, tiny = Settings, {}

    def epoch(self, sizes, lead, rows, run, epoch):
        return [{split: np.zeros(1, dtype=np.int64) for split in sizes} for _ in range(sizes[lead])]


class OutOfRange(Sampler):
    Settings, tiny = Settings, {}

    def epoch(self, sizes, lead, rows, run, epoch):
        return [{split: np.array([i]) for split in sizes} for i in range(sizes[lead])]


class Restless(Sampler):
    Settings, tiny = Settings, {}

    def epoch(self, sizes, lead, rows, run, epoch):
        return [{lead: np.array([i])} for i in np.random.permutation(sizes[lead])]


class Flips(Rule):
    Settings, tiny, separate = Settings, {}, True

    def combine(self, parts, named, optimizer):
        return [-sum(each) for each in zip(*(part.gradient for part in parts.values()), strict=True)], {}


class Divides(Rule):
    Settings, tiny, separate = Settings, {}, True
    seen = 0

    def combine(self, parts, named, optimizer):
        self.seen += 1
        norms = {name: torch.cat([t.flatten() for t in part.gradient]).norm() for name, part in parts.items()}
        scaled = [[t / norms[name] * self.seen for t in part.gradient] for name, part in parts.items()]
        return [sum(each) for each in zip(*scaled, strict=True)], {}


class Scrambles(ParameterSpace):
    Settings, tiny = Settings, {}

    def open(self, subject, run):
        for parameter in subject.module.parameters():
            parameter.data += 0.1
            parameter.requires_grad_(False)
        return subject


class Means(RetainTerm):
    Settings, tiny = Settings, {}

    def term(self, subject, batches):
        return Term(batches.nll(subject.module, "retain").values, per="token", of="retain")


class Careless(Audit):
    Settings, tiny = Settings, {}

    def measure(self, readings, data, run, reference=None):
        return [Finding(name="x", value=float("nan") if len(data["forget"]) > 2 else None, n=3)]


PARTS = [
    (LeadTwice, _parts.sampler_walks_the_lead_once, "not walked once"),
    (OutOfRange, _parts.sampler_stays_in_range, "outside"),
    (Restless, _parts.sampler_depends_on_seed_and_epoch_alone, "depends on"),
    (Flips, _parts.rule_keeps_a_single_term, "cosine -1"),
    (Divides, _parts.rule_survives_zero_gradients, "NaN"),
    (Divides, _parts.rule_state_is_complete, "differs"),
    (Scrambles, _parts.space_opens_without_a_change, "no floating-point weight"),
    (Careless, _others.audit_gives_sound_findings, "NaN"),
    (Careless, _others.audit_says_what_is_missing, "DataError"),
]


@pytest.mark.parametrize(("cls", "contract", "says"), PARTS, ids=[f"{cls.__name__}-{contract.__name__}" for cls, contract, _ in PARTS])
def test_a_contract_of_a_part_fails_where_it_should(cls, contract, says, tmp_path):
    result = run_contract(contract, Case(cls, "part", "part", None, tmp_path))
    assert not result.passed
    assert says in result.message


def test_a_retain_term_that_is_no_sum_is_found(tmp_path, monkeypatch):
    carrier = _parts.Carrier(**_parts.Carrier.tiny)
    carrier.retain = Means()
    monkeypatch.setattr(_parts, "carried", lambda case, key: type("Held", (), {"make": lambda self: carrier})())
    result = run_contract(_parts.retain_term_is_a_finite_sum, Case(Means, "means", "train/retain", None, tmp_path))
    assert not result.passed and "finite scalar" in result.message


def test_check_takes_names_and_says_in_words_what_it_tried():
    results = check("paired")
    assert [result.contract for result in results][:2] == ["has a summary", "is named like its file"]
    assert "sampler walks the lead once" in {result.contract for result in results}
    assert all(title(contract) in {result.contract for result in results} for contract in contracts_for(kind_of(type("S", (Sampler,), {}))))


def test_check_of_something_unknown_names_the_nearest():
    with pytest.raises(MethodError, match="npo"):
        check("npoo")
    with pytest.raises(MethodError, match="no file"):
        check("nowhere/my_method.py")


def test_a_class_without_a_kind_is_refused():
    with pytest.raises(MethodError, match="of no kind"):
        kind_of(int)

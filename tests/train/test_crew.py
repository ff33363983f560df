"""Readings that two processes measure together: those of one process, each row read once, and errors that end no waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.core import crew
from letheon.core.errors import DataError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

from .shared_work import readings_of, too_long
from .test_processes import started

CLOSE = {"log_probability": 1e-5, "mean": 1e-4, "variance": 1e-3, "norms": 1e-4}  # rows are batched otherwise: sums in another order


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes say."""
    told = [said["read_together"] for said in started(tmp_path_factory.mktemp("two"), ["read_together"])]
    assert not [one["trace"] for one in told if "trace" in one]
    return told


def test_findings_are_those_of_one_process(two):
    one = readings_of(Readings(toy_subject(), Run(device="cpu", dtype="float32")), toy_data())
    for name, expected in one.items():
        if name in CLOSE:
            np.testing.assert_allclose(two[0][name], expected, rtol=CLOSE[name], atol=CLOSE[name], err_msg=name)
        else:
            assert two[0][name] == expected, name
    assert [told["leads"] for told in two] == [True, False]


def test_each_reads_half_and_the_first_alone_what_the_other_does_not_have(two):
    rows = len(toy_data()["retain"])
    assert two[0]["seen"][0] + two[1]["seen"][0] == rows and abs(two[0]["seen"][0] - two[1]["seen"][0]) <= 1
    assert two[0]["alone"] == [rows]


def test_an_error_of_either_is_told_and_reading_goes_on(two):
    readings = Readings(toy_subject(), Run(device="cpu", dtype="float32"))
    with pytest.raises(DataError) as one:
        readings.answers(too_long(toy_data()["retain"]))
    assert two[0]["error"] == str(one.value)
    np.testing.assert_allclose(two[0]["after the error"], readings.answers(toy_data()["holdout"]).sum_nll(), rtol=1e-5)


def test_one_process_is_no_crew_and_reads_the_bits_it_always_read():
    subject = toy_subject()
    with crew.together({"after": subject}, Run(device="cpu")) as leads:
        assert leads and crew._CREW.get() is None
    assert crew.read(subject, toy_data()["retain"], lambda subject, split, k: (len(split), k), k=3) == (len(toy_data()["retain"]), 3)


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_shares_are_put_back_in_the_order_of_the_rows(world):
    split = toy_data()["retain"]
    dealt = crew._dealt(split, world)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(split)))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert crew._joined([[split[i].id for i in rows] for rows in dealt], dealt, len(split)) == [row.id for row in split]
    assert crew._joined([rows.astype(float) for rows in dealt], dealt, len(split)).tolist() == list(range(len(split)))


def test_a_subject_that_an_audit_has_changed_is_not_the_one_that_all_hold():
    subject = toy_subject()
    whole = crew._mark(subject)
    handle = subject.module.register_forward_hook(lambda *_: None)
    assert crew._mark(subject) != whole
    handle.remove()
    assert crew._mark(subject) == whole
    with torch.no_grad():
        next(subject.module.parameters()).add_(1e-3)
    assert crew._mark(subject) != whole

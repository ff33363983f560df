"""Moments of the answers come with all parts in one pass."""

from __future__ import annotations

import numpy as np

from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

RUN = Run(seed=0, device="cpu", dtype="float32")


def test_one_pass_gives_all_parts_and_the_moments_of_the_answers(tmp_path):
    subject, split = toy_subject(), toy_data()["forget"]
    readings = Readings(subject, Run(seed=0, device="cpu", dtype="float32", cache=tmp_path))
    attack = readings.answers(split, moments=True)
    wrong = readings.answers(split, "wrong")
    assert readings.hits["measured"] == 1 and wrong.mean is None
    everything = Readings(subject, RUN)
    everything.prefetch(split, moments=True)
    wanted = everything.answers(split, moments=True)
    for name in ("log_probability", "rank", "mean", "variance"):
        np.testing.assert_allclose(getattr(attack, name), getattr(wanted, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wrong.log_probability, everything.answers(split, "wrong").log_probability, rtol=1e-5, atol=1e-6)
    again = Readings(subject, Run(seed=0, device="cpu", dtype="float32", cache=tmp_path))
    np.testing.assert_array_equal(again.answers(split, moments=True).mean, attack.mean)
    assert again.answers(split, "paraphrase").mean is None and again.hits["measured"] == 0

"""Toys: made the same every time, by nobody else's generator, and what their docstrings say."""

from __future__ import annotations

import pytest
import torch

from letheon.testing._cases import quiet_run
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_toys_are_the_same_every_time_and_touch_no_generator(architecture):
    state = torch.get_rng_state()
    one, two, other = toy_subject(3, architecture), toy_subject(3, architecture), toy_subject(4, architecture)
    assert torch.equal(state, torch.get_rng_state())
    assert one.digest == two.digest != other.digest
    text = "Straße \N{SNOWMAN} never seen before"
    assert one.encoder.decode(one.encoder._raw([text])[0]) == text
    assert (one.encoder.begin == []) == (architecture == "gpt2")


def test_toy_data_is_what_it_says():
    data = toy_data()
    assert {name: len(split) for name, split in data.items()} == {
        "full": 20, "kept": 12, "forget": 8, "retain": 12, "retain-check": 6, "holdout": 8, "real-authors": 4, "world-facts": 4,
        "refusals": 8, "texts": 3,
    }  # fmt: skip
    assert {e.id for e in data["full"]} == {e.id for e in data["forget"]} | {e.id for e in data["retain"]}
    assert all(len(set(e.wrong) - {e.answer}) == 3 and e.paraphrase not in (None, e.answer) for e in data["forget"])
    assert {e.group for e in data["forget"]}.isdisjoint(e.group for e in data["retain"] )
    longest = max(int(toy_subject().encoder.encode(split).lengths.max()) for split in data.values())
    assert longest < 256
    assert quiet_run().described()["dtype"] == "float32"

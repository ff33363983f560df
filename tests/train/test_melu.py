"""Pairs made entity by entity: who meets whom, how often, and in which order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.samplers.melu import MELU, neighbour_sets

from .plain import Ascent, gradient, trainer

RUN = Run(0, device="cpu", dtype="float32")


def world(forget: dict[str, int], retain: dict[str | None, int]) -> Data:
    """Splits with so many rows of each entity."""
    splits = {}
    for name, sizes in (("forget", forget), ("retain", retain)):
        rows = [(group, i) for group, n in sizes.items() for i in range(n)]
        splits[name] = Split([Example(f"{group}-{i}", f"fact {i} of {group}", group=group) for group, i in rows], name)
    return Data(splits)


def epoch(data: Data, rows: int = 4, number: int = 0, seed: int = 0, **settings) -> list[dict[str, np.ndarray]]:
    sampler = MELU(**settings)
    sampler.start(data)
    return sampler.epoch({name: len(split) for name, split in data.items()}, "forget", rows, Run(seed), number)


def pairs(steps) -> list[tuple[int, int]]:
    return [pair for step in steps for pair in zip(step["forget"].tolist(), step["retain"].tolist(), strict=True)]


DATA = world({"a": 3, "b": 5, "c": 2}, {"a": 7, None: 6, "b": 2, "famous": 4, "c": 2})


def test_an_entity_meets_its_own_neighbours_and_the_table_has_the_published_length():
    """sum_e max(|F_e|, |R_e|) + |general| = 7 + 5 + 2 + 10."""
    found = pairs(epoch(DATA))
    groups = [(DATA["forget"][f].group, DATA["retain"][r].group) for f, r in found]
    modular = [(f, r) for f, r in groups if r in ("a", "b", "c")]
    assert len(found) == 24 and len(modular) == 14
    assert all(f == r for f, r in modular)
    assert [len(step["forget"]) for step in epoch(DATA, rows=5)] == [5, 5, 5, 5, 4]


def test_neighbours_and_forget_rows_take_turns():
    """The rows of an entity come up floor or ceil of |R_e| / |F_e| times, or its neighbours the other way round."""
    modular = [(f, r) for f, r in pairs(epoch(DATA)) if DATA["retain"][r].group in ("a", "b", "c")]
    for group, (forget, retain) in {"a": ({2, 3}, {1}), "b": ({1}, {2, 3}), "c": ({1}, {1})}.items():
        mine = Counter(f for f, _ in modular if DATA["forget"][f].group == group)
        theirs = Counter(r for _, r in modular if DATA["retain"][r].group == group)
        assert set(mine.values()) == forget and set(theirs.values()) == retain
        assert len(mine) == {"a": 3, "b": 5, "c": 2}[group] and len(theirs) == {"a": 7, "b": 2, "c": 2}[group]


def test_every_retain_row_comes_up_once_where_neighbours_are_many():
    data = world({"a": 3, "b": 2}, {"a": 3, "b": 9, "x": 5})
    found = pairs(epoch(data))
    assert sorted(r for _, r in found) == list(range(17))
    assert {f for f, _ in found} == set(range(5))


@pytest.mark.parametrize(("forget", "retain"), [(3, 10), (10, 3), (4, 4)])
def test_a_single_entity_is_walked_cyclically(forget, retain):
    """(i mod |F|, i mod |R|) for i below the larger of both."""
    found = pairs(epoch(world({"a": forget}, {"a": retain})))
    assert sorted(found) == sorted((i % forget, i % retain) for i in range(max(forget, retain)))


def test_general_rows_meet_entities_in_proportion_to_their_pairs():
    """Entity a has 90 pairs, b 10: of 1000 general rows 900 go to a, give or take four standard deviations of 9.5."""
    data = world({"a": 3, "b": 10}, {"a": 90, "b": 1, "x": 1000})
    met = Counter(data["forget"][f].group for f, r in pairs(epoch(data)) if data["retain"][r].group == "x")
    assert abs(met["a"] - 900) < 38 and met["a"] + met["b"] == 1000


def test_pairs_stay_and_their_order_changes():
    first, again, later = (pairs(epoch(DATA, number=k)) for k in (0, 0, 3))
    assert first == again != later and sorted(first) == sorted(later)
    assert sorted(pairs(epoch(DATA, seed=1))) != sorted(first)


def test_by_entity_all_pairs_of_one_follow_one_another():
    for number in range(3):
        groups = [DATA["forget"][f].group for f, _ in pairs(epoch(DATA, number=number, order="by-entity"))]
        changes = sum(a != b for a, b in zip(groups, groups[1:], strict=False))
        assert changes == 2
    assert sorted(pairs(epoch(DATA, order="by-entity"))) == sorted(pairs(epoch(DATA)))


def test_forget_rows_without_neighbours_meet_general_rows():
    data = world({"a": 2, "lone": 3}, {"a": 4, "x": 5})
    found = pairs(epoch(data))
    alone = [(f, r) for f, r in found if f >= 2 and data["forget"][f].group == "lone"]
    assert len(found) == 4 + 5 and {f for f, _ in alone} == {2, 3, 4} and len(alone) == 3
    assert all(data["retain"][r].group == "x" for _, r in alone)
    none_general = pairs(epoch(world({"a": 2, "lone": 3}, {"a": 4})))
    assert len(none_general) == 4 + 3


def told(name: str, text: str) -> Example:
    return Example(f"{name}-{text}", text, f"What of {name}?", group=name)


def test_without_marks_neighbours_are_those_with_like_words():
    """Ann and Eve are bakers in Rome, Bob and Dan sail; Ann, first in turn, takes Eve, and nobody is taken twice."""
    forget = Split([told("Ann", "bakes bread in Rome"), told("Bob", "sails ships to Oslo")], "forget")
    rows = [("Cy", "paints walls"), ("Dan", "sails ships to Oslo"), ("Eve", "bakes bread in Rome"), ("Eve", "likes Rome")]
    rows.append(("Fay", "sails boats"))
    retain = Split([told(*row) for row in rows], "retain")
    sets = neighbour_sets(forget, retain, near=1)
    assert {group: (f.tolist(), r.tolist()) for group, (f, r) in sets.items()} == {"Ann": ([0], [2, 3]), "Bob": ([1], [1])}
    two = neighbour_sets(forget, retain, near=2)
    assert {2, 3} < set(two["Ann"][1]) and {1} < set(two["Bob"][1]) and len(np.intersect1d(two["Ann"][1], two["Bob"][1])) == 0


def test_it_says_what_rows_lack():
    with pytest.raises(DataError, match="no forget row has a `group`"):
        epoch(world({None: 3}, {"a": 3}))  # type: ignore[dict-item]
    with pytest.raises(DataError, match="no neighbour"):
        epoch(world({"a": 3}, {None: 3}))
    with pytest.raises(MethodError, match="has not seen any rows"):
        MELU().epoch({"forget": 3, "retain": 2}, "forget", 2, RUN, 0)


def test_alone_the_leading_split_is_walked_once():
    data = world({"a": 3, "b": 5}, {"a": 2})
    sampler = MELU()
    sampler.start(data)
    assert sorted(np.concatenate([step["forget"] for step in sampler.epoch({"forget": 8}, "forget", 3, RUN, 0)])) == list(range(8))


def test_ascent_feels_the_pairing_only_through_how_often_a_row_comes_up():
    """With the retain term at weight 0, one step over a whole epoch has the gradient of the rows weighted by their counts."""
    class Counted(Ascent):
        def planned(self, rows, epoch):
            return {**rows, "forget": np.repeat(np.arange(8), counts)}

    settings = {"steps": 1, "batch_size": 64, "retain": "nll", "retain_weight": 0.0}
    one = trainer(Ascent(sampler="melu", **settings), RUN)
    one.gradients(one.feed.plan[0])
    counts = np.bincount(one.feed.plan[0]["forget"], minlength=8)
    assert counts.min() >= 1 and counts.max() > counts.min()
    other = trainer(Counted(sampler="cyclic", **settings), RUN)
    other.gradients(other.feed.plan[0])
    assert float((gradient(one) - gradient(other)).abs().max()) < 1e-5 * float(gradient(other).abs().max())


@pytest.mark.parametrize("sampler", ["melu", "melu:order=by-entity"])
def test_resumed_it_gives_the_same_bits(sampler, tmp_path):
    def once(out=None, resume=False, steps=3):
        run = Run(0, device="cpu", dtype="float32", out=out, checkpoint_every=1, resume=resume)
        objective = Ascent(steps=3, batch_size=4, learning_rate=1e-3, sampler=sampler, retain="nll")
        if steps < 3:
            objective.stepped = lambda subject, step: (_ for _ in ()).throw(KeyboardInterrupt) if step == steps else None
        return objective.apply(toy_subject(), toy_data(), run)

    with pytest.raises(Exception, match="Interrupted after step 2"):
        once(tmp_path, steps=2)
    assert once(tmp_path, resume=True).digest == once().digest

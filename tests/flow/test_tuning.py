"""What tuning draws: whole numbers where the setting is one, and the same whatever the seeds of the cells are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from letheon.core import registry
from letheon.core.errors import SettingsError
from letheon.core.run import Run
from letheon.flow import sweep, trials
from letheon.flow.grid import Sweep, axes, read

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "sweeps").glob("*.toml"))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The values that the trials of one method try, and nothing is trained."""
    monkeypatch.setattr(trials._World, "tried", lambda *_: {"score": 0.5, "forgotten": 0.5, "kept": 0.5, "processor_seconds": 1.0})

    def draw(settings, count=12, seeds=(0, 1, 2), method="npo"):
        base = {"subject": "hf:path=m", "data": "authors:people=40", "audit": "tofu"}
        plan = Sweep(base=base, out=str(tmp_path / "out"), trials=count, seeds=seeds, methods={method: settings})
        sweep._checked(plan, axes(plan))
        return [trial["values"] for trial in trials.tuned(plan, axes(plan)[0])]

    return draw


def test_a_range_of_a_float_setting_is_one_of_floats_though_its_ends_are_whole(drawn):
    found = [values["retain_weight"] for values in drawn({"retain_weight": {"low": 0.0, "high": 2.0}})]
    assert all(0 <= value <= 2 for value in found) and sum(value != int(value) for value in found) > 6


@pytest.mark.parametrize("log", [False, True])
def test_a_range_of_a_setting_of_whole_numbers_is_one_of_whole_numbers(drawn, log):
    found = [values["epochs"] for values in drawn({"epochs": {"low": 1, "high": 20, "log": log}})]
    assert all(isinstance(value, int) and 1 <= value <= 20 for value in found) and len(set(found)) > 4


def test_a_setting_that_may_be_unset_is_one_of_whole_numbers_too(drawn):
    assert all(isinstance(values["steps"], int) for values in drawn({"steps": {"low": 1, "high": 20}}))


def test_half_a_pass_is_refused_before_anything_is_drawn(drawn):
    with pytest.raises(SettingsError, match="`epochs` of `npo`"):
        drawn({"epochs": {"low": 0.5, "high": 20}})


def test_a_choice_of_plug_ins_is_drawn_as_it_stands(drawn):
    found = [values["retain"] for values in drawn({"retain": ["nll", {"name": "kl"}], "beta": [0.1, 0.2]})]
    assert found and all(value in ("nll", {"name": "kl"}) for value in found)


def test_every_range_of_the_ready_files_is_drawn_as_it_always_was():
    """Whole ends without `log` were whole numbers before the type of the setting decided."""
    every = [(one, key, values) for file in RECIPES for one in axes(read(file)) for key, values in one.free.items()]
    spans = [(one, key, values) for one, key, values in every if not isinstance(values, tuple)]
    assert len(spans) > 100
    for one, key, span in spans:
        assert one.whole(key) == (span.low == int(span.low) and span.high == int(span.high) and not span.log), (one.label, key)


def test_the_ranges_of_every_method_are_told_by_their_types():
    found = {
        (plugin.name, key): trials.Axes(plugin.name, {"name": plugin.name}, {}).whole(key)
        for plugin in registry.plugins("erase").values()
        for key, field in registry.load(plugin.name, "erase").Settings.model_fields.items()
        if field.annotation in (int, float, int | None, float | None)
    }
    assert found["npo", "epochs"] and found["rocr", "layer"] and found["rmu", "steps"] and not found["npo", "beta"] and len(found) > 200


def test_one_more_seed_leaves_the_trials_as_they_are(drawn, tmp_path):
    free = {"learning_rate": {"low": 1e-4, "high": 2e-3, "log": True}}
    first = drawn(free, seeds=(0, 1, 2))
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}
    assert drawn(free, seeds=(0, 1, 2, 3)) == drawn(free, seeds=(7,)) == first and len(files) == 12
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")} == files


def test_the_seed_of_tuning_is_what_it_was_for_the_seeds_0_1_2(drawn):
    """Trials of earlier sweeps hold: the second trial of a method is drawn as `max(seeds) + 1` drew it."""
    import optuna

    free = {"learning_rate": {"low": 1e-4, "high": 2e-3, "log": True}}
    study = optuna.create_study(direction="maximize")
    for k in range(2):
        seed = Run(max((0, 1, 2)) + 1).derived_seed("tuning", "npo", str(k)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=trials.STARTUP)
        trial = study.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 2e-3, log=True)})
        study.tell(trial, 0.5)
    assert json.dumps(drawn(free, count=2)[1]) == json.dumps(trial.params)

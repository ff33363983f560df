"""Tuning of one method by optuna: the same number of trials for every method, on rows that stay, never on the real forget set.

A trial trains on other rows of the same kind (`erase/_tuning.py`) and is scored by how near they come to rows that were never seen, and by
how much of the rest is left. Each trial is a file; trials that are there already are read, and the sampler of trial k is drawn from the
tuning seed and k alone, so that tuning that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import LetheonError, RunError
from letheon.core.files import write_text
from letheon.core.settings import Choice

from .grid import ANEW, Axes, Span, Sweep, recipe, slug

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

STARTUP = 4  # trials that are drawn without a model of what is good
SEED = 3  # of tuning, whatever the seeds of the cells: it may be one of them, since cells are made of other rows


def tuned(sweep: Sweep, one: Axes) -> list[dict[str, Any]]:
    """All trials of one method: `{"values", "score", "forgotten", "kept", "processor_seconds"}` or `{"values", "score": 0, "failed"}`.

    Raises:
        RunError: a file of trials belongs to another sweep, or optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise RunError("Tuning needs optuna, which is not installed", "pip install 'letheon[sweep]', or `trials = 0`") from error

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {key: _distribution(value, one.whole(key)) for key, value in one.free.items()}
    study = optuna.create_study(direction="maximize")
    world = _World(sweep, one)
    if defaults := _defaults(one):
        study.enqueue_trial(defaults)
    done = []
    for k, path in enumerate(files(sweep, one)):
        run = world.run()
        study.sampler = optuna.samplers.TPESampler(seed=run.derived_seed("tuning", one.label, str(k)) % 2**32, n_startup_trials=STARTUP)
        trial = study.ask(space)
        values = {key: json.loads(value) if isinstance(value, str) else value for key, value in trial.params.items()}
        found = _kept(path, one, values, sweep)
        if found is None:
            found = {"values": values, **world.tried(values)}
            found |= {"of": _mark(one, sweep), "inputs": world.inputs}
            _write(path, found)
        study.tell(trial, found["score"])
        done.append(found)
    return done


def files(sweep: Sweep, one: Axes) -> list[Path]:
    """Where the trials of one method are kept."""
    return [Path(sweep.out) / "trials" / slug(one.label) / f"{k}.json" for k in range(sweep.trials)]


def check(sweep: Sweep, one: Axes, inputs: dict[str, str]) -> None:
    """Refuse trials that are there and were made of other rows or another model; those that do not say of which say it from now on.

    Args:
        inputs: digests of the rows (`data`) and of the model (`subject`).

    Raises:
        RunError: says which of the two has changed.
    """
    for path in files(sweep, one):
        found = _read(path)
        if found is None or found["of"] != _mark(one, sweep):
            continue
        noted = found.get("inputs")
        if not isinstance(noted, dict):
            _write(path, {**found, "inputs": inputs})
            continue
        changed = next((key for key, now in inputs.items() if noted.get(key, now) != now), None)
        if changed is not None:
            what = "rows have" if changed == "data" else "model `subject` has"
            raise RunError(f"The {what} changed since {path} was made", ANEW)


def _distribution(values: Any, whole: bool) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Span):
        return CategoricalDistribution([json.dumps(value) for value in values])  # optuna takes no tables and lists
    if whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _defaults(one: Axes) -> dict[str, Any]:
    """The published values, as far as they lie in the space: the first trial of every method."""
    from letheon.core import registry

    fields = registry.load(one.fixed["name"]).Settings.model_fields
    found: dict[str, Any] = {}
    for key, values in one.free.items():
        value = fields[key].default if key in fields else None
        value = value.name if isinstance(value, Choice) else value
        if isinstance(values, Span):
            if value is not None and values.low <= value <= values.high:
                found[key] = value
        elif value in values:
            found[key] = json.dumps(value)
    return found


def _mark(one: Axes, sweep: Sweep) -> dict[str, Any]:
    """What a trial depends on, beside its values."""
    return json.loads(json.dumps({"fixed": one.fixed, "base": sweep.base, "space": {k: str(v) for k, v in one.free.items()}}, default=str))


def _read(path: Path) -> dict[str, Any] | None:
    """A trial; None where there is none. A damaged file is tried again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"of", "values", "score"} <= set(found) else None


def _write(path: Path, found: dict[str, Any]) -> None:
    write_text(path, json.dumps(found, indent=1) + "\n")


def _kept(path: Path, one: Axes, values: dict[str, Any], sweep: Sweep) -> dict[str, Any] | None:
    found = _read(path)
    if found is not None and (found["of"] != _mark(one, sweep) or found["values"] != json.loads(json.dumps(values))):
        raise RunError(f"{path} is a trial of another sweep", ANEW)
    return found


class _World:
    """Model, rows and yardstick of the trials of one method, loaded when the first trial needs them."""

    def __init__(self, sweep: Sweep, one: Axes):
        self.sweep, self.one = sweep, one
        self.recipe = recipe(sweep, one.fixed, 0, Path(sweep.out))
        self.inputs: dict[str, str] = {}
        self._ready: tuple[Any, Any, Any] | None = None

    def run(self) -> Any:
        """A run of the sweep's number format, with the seed of tuning."""
        from letheon.core.run import Run

        return Run(SEED, device=self.recipe.device, dtype=self.recipe.dtype)

    def _load(self) -> tuple[Any, Any, Any]:
        from letheon.erase._tuning import Yardstick, other_rows

        from . import stages

        if self._ready is None:
            data = stages.load_data(self.recipe.data)
            subject = stages.make_subject(self.recipe.subject, data, self.run())
            data = stages.windowed(data, subject, self.recipe.window)
            self.inputs = {"data": data.digest, "subject": subject.digest}
            rows = other_rows(data, self.run().derived_seed("other rows"))
            self._ready = subject, rows, Yardstick(subject, rows, self.run())
        return self._ready

    def tried(self, values: dict[str, Any]) -> dict[str, Any]:
        """Apply the method and score it. A run that diverges scores 0."""
        from . import stages

        subject, rows, yardstick = self._load()
        method = stages.make_change(Choice(**{**self.one.fixed, **values}))
        began = time.process_time()
        try:
            after = method.apply(subject, rows, self.run())
            found = yardstick.score(after)
        except LetheonError as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise  # the person stopped, not the method
            return {"score": 0.0, "failed": str(error)}
        seconds = round(time.process_time() - began, 2)
        return {"score": found.score, "forgotten": found.forgotten, "kept": found.kept, "processor_seconds": seconds}

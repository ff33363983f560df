"""What a sweep is made of: rows and models. What is there already is used again only where these are still the same.

A model that was trained for the sweep says in its `letheon.json` how (`made`), findings say which rows and models they are about, and so
does the file of a trial (`inputs`). What an older folder does not say cannot be compared; models and trials say it from then on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core import registry
from letheon.core.errors import RunError
from letheon.core.files import write_text
from letheon.core.method import Loader
from letheon.core.settings import Choice

from . import trials
from .grid import ANEW, Axes, Cell, Sweep, cells, recipe

if TYPE_CHECKING:
    from letheon.core.data import Data

SEED = 0  # of models that are trained for all cells
CHOSEN = {"forget-chosen", "forget-rest"}  # splits that a coreset adds for the audit


def with_models(plan: Sweep, rows: Callable[[], Data], *, progress: bool) -> Sweep:
    """The sweep with `hf` subjects: a maker such as `micro` is trained once, below `out`, and not for every cell.

    Args:
        rows: reads the data, once.

    Raises:
        RunError: such a model is there, and was made with other settings or of other rows.
    """
    from letheon.core.run import Run

    from . import stages

    known = recipe(plan, {"name": "finetune"}, SEED, Path(plan.out))
    models = {part: (getattr(known, part), Path(plan.out) / name) for part, name in (("subject", "original"), ("retrained", "retrained"))}
    models = {part: (choice, folder) for part, (choice, folder) in models.items() if choice is not None and choice.name != "hf"}
    made = {part: _made(choice, known.dtype, rows()) for part, (choice, _) in models.items()}
    for part, (_, folder) in models.items():
        if folder.is_dir():
            _check_made(folder, made[part])
    for part, (choice, folder) in models.items():
        if not folder.is_dir():
            run = Run(SEED, device=known.device, dtype=known.dtype, progress=progress)
            stages.make_subject(choice, rows(), run).save(folder)
        _note_made(folder, made[part])
    return plan.model_copy(update={"base": {**plan.base, **{part: {"name": "hf", "path": str(models[part][1])} for part in models}}})


def _made(choice: Choice, dtype: str, data: Data) -> dict[str, Any]:
    """All that a model which is trained for the sweep depends on."""
    settings = registry.make(choice, "subjects").settings.model_dump(mode="json")
    return {"maker": {"name": choice.name, **settings}, "dtype": dtype, "seed": SEED, "data": data.digest}


def _check_made(folder: Path, made: dict[str, Any]) -> None:
    """Refuse a model that was made otherwise, as far as its folder tells."""
    noted = _notes(folder).get("made") or _of_lineage(folder, made["maker"])
    if noted.get("data", made["data"]) != made["data"]:
        raise RunError(f"The rows have changed since {folder} was made", ANEW)
    pairs = [(key, noted.get("maker", {}), made["maker"]) for key in made["maker"]] + [(key, noted, made) for key in ("dtype", "seed")]
    for key, then, now in pairs:
        if then.get(key, now[key]) != now[key]:
            raise RunError(f"{folder} was made with `{key}` {then[key]!r}, and the sweep says {now[key]!r}", ANEW)


def _of_lineage(folder: Path, maker: dict[str, Any]) -> dict[str, Any]:
    """What the last step of a model tells where nothing was noted: its seed, its rows, and settings that it shares with its maker."""
    from letheon.subjects._fit import notes_of

    lineage = notes_of(folder)[1]
    if not lineage:
        return {}
    inner = {key for value in maker.values() if isinstance(value, dict) for key in value}  # set by a setting of a setting
    shared = {key: value for key, value in lineage[-1].settings.items() if key in maker and key not in inner | {"name"}}
    return {"maker": shared, "seed": lineage[-1].seed, "data": lineage[-1].data}


def _notes(folder: Path) -> dict[str, Any]:
    from letheon.core.subject import NOTES
    from letheon.subjects._folder import read_json

    return read_json(folder / NOTES) if (folder / NOTES).is_file() else {}


def _note_made(folder: Path, made: dict[str, Any]) -> None:
    from letheon.core.subject import NOTES

    notes = _notes(folder)
    if notes and "made" not in notes:
        write_text(folder / NOTES, json.dumps({**notes, "made": made}, indent=1, ensure_ascii=False) + "\n")


def check_same(plan: Sweep, methods: list[Axes], rows: Callable[[], Data]) -> None:
    """Refuse cells and trials of the sweep that are there and were made of other rows or models.

    Args:
        plan: as `with_models` gives it.
        rows: as there. Rows and models are read only where there is something to compare with them.

    Raises:
        RunError: says what has changed, and what was made before.
    """
    from letheon.core.run import Run

    from . import stages

    jobs = cells(plan, {one.label: [{}] if plan.trials else list(one.combinations()) for one in methods})
    done = [(cell, context) for cell in jobs if (context := _context(cell.folder / "findings.json"))]
    tuned = [one for one in methods if one.free and any(path.is_file() for path in trials.files(plan, one))]
    if not (done or tuned):
        return
    base = jobs[0].recipe
    run = Run(SEED, device=base.device, dtype=base.dtype)
    read: dict[str, tuple[str, Data]] = {}

    def now(model: Choice) -> tuple[str, Data]:
        """Digest of a model, and the rows as it is given them."""
        key = model.model_dump_json()
        if key not in read:
            subject = stages.make_subject(model, rows(), run)
            read[key] = subject.digest, stages.windowed(rows(), subject, base.window)
        return read[key]

    for one in tuned:
        digest, data = now(base.subject)
        trials.check(plan, one, {"data": data.digest, "subject": digest})
    for cell, context in done:
        judged = cell.judged if cell.judged is not None and issubclass(registry.load(cell.judged.name, "subjects"), Loader) else None
        _check_rows(cell, context, now(judged or base.subject)[1])
        models = (("before", "subject", base.subject), ("retrained", "retrained", base.retrained), ("after", cell.row, judged))
        for label, name, model in models:
            noted = _part(context, "subjects", label, "digest")
            if model is not None and noted is not None and noted != now(model)[0]:
                raise RunError(f"The model `{name}` has changed since {cell.folder} was made", ANEW)


def _check_rows(cell: Cell, context: dict[str, Any], data: Data) -> None:
    noted = _part(context, "data", "splits")
    if not isinstance(noted, dict):
        return
    then = {name: _part(noted, name, "digest") for name in noted if not (cell.recipe.select and name in CHOSEN)}
    now = {name: split.digest for name, split in data.items()}
    changed = next((name for name in {**now, **then} if now.get(name) != then.get(name)), None)
    if changed is not None:
        raise RunError(f"The rows of `{changed}` have changed since {cell.folder} was made", ANEW)


def _context(path: Path) -> dict[str, Any]:
    """What findings say of how they were made; nothing where there are none, or where they are damaged, which their cell will say."""
    try:
        return _part(json.loads(path.read_text(encoding="utf-8")), "context") or {}
    except (OSError, ValueError):
        return {}


def _part(found: Any, *keys: str) -> Any:
    """A part of a part of a table that a file held; None where there is none."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found

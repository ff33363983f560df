"""The order of training: which rows each step drew, written as `order.jsonl` beside `metrics.jsonl` when the last step is done.

    {"format": "letheon.order/1", "method": ..., "settings": ..., "seed": ..., "data": ..., "before": ..., "lead": ..., "steps": n}
    {"split": "full", "rows": ["9f3c...", ...]}         a line for each split: digests of its rows, in the order of the split
    {"step": 1, "full": [17, 3, ...]}                   a line for each step taken: the places of the rows that it drew

The file tells nobody what the rows say, but whoever has the rows can see that they are the same. All steps are planned before the first
one, so nothing has to be logged on the way: the file is whole or absent, and a run that was killed and resumed writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from letheon.core.data import Example
from letheon.core.errors import DataError
from letheon.core.files import write_text

from .feed import Feed

NAME, FORMAT = "order.jsonl", "letheon.order/1"


@dataclass(frozen=True)
class Order:
    """What `order.jsonl` holds.

    Attributes:
        about: method, settings, seed and digests, as in the lineage of the model, and the leading split.
        rows: split -> digests of its rows.
        steps: one dict per step taken: split -> places of the rows it drew.
    """

    about: Mapping[str, Any]
    rows: Mapping[str, tuple[str, ...]]
    steps: tuple[Mapping[str, np.ndarray], ...]

    def last_steps(self, split: str) -> np.ndarray:
        """The step, counted from 1, that drew each row of a split last, (n,); 0 for a row that was never drawn."""
        last = np.zeros(len(self.rows[split]), dtype=np.int64)
        for step, drawn in enumerate(self.steps, 1):
            last[drawn.get(split, [])] = step
        return last


def row_digest(row: Example) -> str:
    """The first 16 hexadecimal digits of sha256 over prompt and answer."""
    return hashlib.sha256(json.dumps([row.prompt_text, row.answer]).encode()).hexdigest()[:16]


def write_order(out: Path, feed: Feed, steps: int, **about: Any) -> Path:
    """Write the first `steps` steps of the plan into the folder `out`, whole or not at all."""
    plan = feed.plan[:steps]
    splits = dict.fromkeys(split for step in plan for split in step)
    lines: list[dict[str, Any]] = [{"format": FORMAT, **about, "steps": len(plan)}]
    lines += [{"split": split, "rows": [row_digest(row) for row in feed.data[split]]} for split in splits]
    lines += [{"step": k, **{split: rows.tolist() for split, rows in step.items()}} for k, step in enumerate(plan, 1)]
    return write_text(out / NAME, "".join(json.dumps(line, default=str, separators=(",", ":")) + "\n" for line in lines))


def read_order(path: str | Path) -> Order:
    """Read a file written by `write_order`, or the one in a folder.

    Raises:
        DataError: there is none, or a line of it is broken.
    """
    path = Path(path).expanduser()
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"There is no training order {path}", f"A training run with an output folder writes {NAME} into it")
    about: dict[str, Any] = {}
    rows: dict[str, tuple[str, ...]] = {}
    steps: list[dict[str, np.ndarray]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
            if number == 1:
                about = _header(value)
            elif "split" in value:
                rows[value["split"]] = tuple(value["rows"])
            else:
                if value.pop("step") != len(steps) + 1:
                    raise ValueError(f"step {len(steps) + 1} is not where it should be")
                steps.append({split: _places(drawn, len(rows[split])) for split, drawn in value.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: not a line of a training order ({error})", "Was the file cut or edited?") from error
    if about.get("steps") != len(steps):
        raise DataError(f"{path} has {len(steps)} steps and speaks of {about.get('steps')}", "Was the file cut short?")
    return Order(about, rows, tuple(steps))


def _header(value: Any) -> dict[str, Any]:
    if value.pop("format") != FORMAT:
        raise ValueError(f"the first line does not say {FORMAT}")
    return value


def _places(drawn: list[int], rows: int) -> np.ndarray:
    places = np.array(drawn, dtype=np.int64)
    if len(places) and not 0 <= places.min() <= places.max() < rows:
        raise ValueError(f"it draws a row that is none of {rows}")
    return places

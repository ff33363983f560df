"""Findings: measured values with n, interval, direction and version; written and read as `findings.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import DataError
from .files import write_text

Direction = Literal["higher", "lower", "reference", "none"]


class Finding(BaseModel):
    """One measured value.

    `direction` says which way is better for the one who wants the forget set gone and the rest kept: "higher", "lower",
    "reference" (nearer to the retrained model is better) or "none" (a fact without a better side). `value` is None where
    nothing could be measured, and then `note` says why. `rows` holds the per-example values behind it, in the order of the split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    n: int = Field(ge=0)
    low: float | None = None
    high: float | None = None
    direction: Direction = "none"
    version: str = "1"
    note: str = ""
    split: str = ""
    audit: str = ""
    rows: tuple[float | None, ...] = ()
    extra: dict[str, Any] = {}


class Leftover(BaseModel):
    """One forget row and what each model says to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    answer: str
    said: dict[str, str]  # model label -> generated text
    score: dict[str, float | None]  # model label -> share of the answer that is said (ROUGE-L recall)


class Findings(BaseModel):
    """All that one audit found, for one or more models side by side, with what is needed to repeat it.

    `models` maps a label ("before", "after", "retrained") to the findings of that model. `context` holds settings, seeds,
    digests and versions. A report is a pure function of this object.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    audit: str
    models: dict[str, tuple[Finding, ...]]
    leftovers: tuple[Leftover, ...] = ()
    context: dict[str, Any] = {}
    format: Literal["letheon.findings/1"] = "letheon.findings/1"

    def __iter__(self) -> Iterator[Finding]:  # type: ignore[override]
        for found in self.models.values():
            yield from found

    def get(self, label: str, name: str, split: str | None = None) -> Finding | None:
        """The finding called `name` of the model `label` (on `split`, if given), or None."""
        for finding in self.models.get(label, ()):
            if finding.name == name and (split is None or finding.split == split):
                return finding
        return None

    def value(self, label: str, name: str, split: str | None = None) -> float | None:
        """The value of `get(label, name, split)`, or None."""
        finding = self.get(label, name, split)
        return None if finding is None else finding.value

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all."""
        return write_text(path, json.dumps(_plain(self.model_dump()), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Findings:
        """Read a file written by `save`.

        Raises:
            DataError: the file is missing, is not JSON, or does not hold findings.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "findings.json"
        if not path.is_file():
            raise DataError(f"There is no file {path}", "An audit writes it: `letheon audit`")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            first = _fault(error) if isinstance(error, ValidationError) else str(error)
            raise DataError(f"{path} does not hold findings: {first}") from error


def _fault(error: ValidationError) -> str:
    """The first fault, with the place where it stands."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"`{where}`: {fault['msg']}" if where else str(fault["msg"])


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def unmeasured(name: str, note: str, **known: Any) -> Finding:
    """A finding without a value: `note` says why it could not be measured."""
    return Finding(name=name, value=None, n=0, note=note, **known)


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings by `split/name`, or `name` where there is no split."""
    return {f"{f.split}/{f.name}" if f.split else f.name: f for f in findings}

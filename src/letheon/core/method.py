"""Methods: the kinds of plug-in. The kind decides which contract tests run."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import wanted
from .settings import Settings, parse_settings
from .turns import in_turn

if TYPE_CHECKING:
    from .data import Data
    from .findings import Finding
    from .readings import Readings
    from .run import Run
    from .subject import Subject

_WORK = {"build", "curate", "apply", "measure"}


def _checked(work: Callable[..., Any]) -> Callable[..., Any]:
    """The work of a method, with what it is given checked, one thread after another."""
    parameters = inspect.signature(work).parameters
    names, optional = list(parameters)[1:], {name for name, parameter in parameters.items() if parameter.default is None}

    @functools.wraps(work)
    def checked(self: Method, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        asked = {name: value for name, value in given.items() if not (value is None and name in optional)}
        wanted.check(f"`{work.__name__}` of `{self.name()}`", asked)
        return work(self, *args, **kwargs)

    return in_turn(checked)


class Method(ABC):
    """Base of all plug-ins. `Settings` holds all defaults, `tiny` the values that make it run in a second on a toy.

    `build`, `curate`, `apply` and `measure` look at what they are given before they begin, and threads take turns in them
    (`core/turns.py`).

    Raises:
        SettingsError: a value is unknown or out of bounds; all faults are named at once.
    """

    Settings: ClassVar[type[Settings]] = Settings
    tiny: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        for name in _WORK & set(vars(cls)):
            setattr(cls, name, _checked(vars(cls)[name]))

    def __init__(self, /, **values: Any):
        self.settings: Any = parse_settings(self.Settings, values, self.name())

    @classmethod
    def name(cls) -> str:
        """The file name, with dashes: the name in Python, on the command line, in the card, the test and the report."""
        return cls.__module__.rsplit(".", 1)[-1].replace("_", "-")

    @classmethod
    def docstring(cls) -> str:
        """The docstring of the file."""
        return inspect.getdoc(inspect.getmodule(cls)) or ""

    def __repr__(self) -> str:
        known = type(self.settings).model_fields
        given = [key for key in known if key in self.settings.model_fields_set and getattr(self.settings, key) != known[key].default]
        return f"{self.name()}({', '.join(f'{key}={getattr(self.settings, key)!r}' for key in given)})"


class Source(Method):
    """Reads or makes data."""

    @abstractmethod
    def load(self) -> Data:
        """The data. Raises DataError with the file and row where something is broken."""


class Maker(Method):
    """Trains or builds a subject from data."""

    @abstractmethod
    def build(self, data: Data, run: Run) -> Subject:
        """The new subject."""


class Loader(Method):
    """Reads a subject that exists already; nothing is trained. The data and the run may be left out."""

    @abstractmethod
    def build(self, data: Data | None = None, run: Run | None = None) -> Subject:
        """The subject. Raises SubjectError where a file is missing, damaged or not allowed."""


class Curator(Method):
    """Chooses, orders or rewrites data."""

    @abstractmethod
    def curate(self, data: Data, run: Run, subject: Subject | None = None) -> Data:
        """The new data; the given data does not change."""


class Change(Method):
    """Changes a subject: a weight edit, a training procedure, or a guard that leaves weights alone."""

    @abstractmethod
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """A new subject with one more step in its lineage; the given subject does not change."""


class Audit(Method):
    """Measures a subject through its readings."""

    version: ClassVar[str] = "1"
    package: ClassVar[str] = ""  # a package of its own that it needs to measure anything

    @abstractmethod
    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> Sequence[Finding]:
        """What was found.

        Args:
            readings: of the model that is audited.
            reference: readings of the model that never saw the forget split, where there is one.
            original: readings of the model before the change, where there is one.
        """

"""What `import letheon as lt` offers. Nothing is computed here: each function finds a plug-in and calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core import registry
from .core.data import Data
from .core.errors import DataError
from .core.findings import Findings
from .core.method import Source

if TYPE_CHECKING:
    from .core.method import Method
    from .core.run import Run
    from .core.subject import Subject
    from .report.page import Report


def methods(role: str | None = None) -> dict[str, str]:
    """Names and one-line summaries of all plug-ins, or of one role. Imports none of them.

    >>> methods("erase")["npo"]
    'Negative preference optimisation: push forget answers below their start, with a weight that fades.'
    """
    found = registry.plugins(role).values() if role else registry.all_plugins()
    return {plugin.name: plugin.summary for plugin in found}


def method(name: str, **settings: Any) -> Method:
    """The plug-in called `name` with the given settings.

    >>> method("npo", beta=0.2, retain="kl")
    npo(retain=Choice(name='kl'), beta=0.2)
    """
    found: Method = registry.load(name)(**settings)
    return found


def data(name: str, **settings: Any) -> Data:
    """Read or make data with the source called `name`.

    >>> sorted(data("authors", people=40))[:3]
    ['forget', 'forget-choice', 'forget-cloze']
    """
    source = registry.load(name, "data")(**settings)
    if not isinstance(source, Source):
        raise DataError(f"`{name}` is not a data source")
    return source.load()


def subject(path: str | Path, **settings: Any) -> Subject:
    """Load a causal language model from a Hugging Face folder or hub name."""
    from .subjects.hf import load

    return load(path, **settings)


def audit(
    name: str | Method,
    after: Subject,
    data: Data,
    run: Run,
    *,
    before: Subject | None = None,
    retrained: Subject | None = None,
    context: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Findings:
    """Measure `after`, and beside it the model before the change and the one that never saw the forget split.

    Args:
        name: an audit or its name.
        context: what the report should say about how this was made.
        settings: settings of the audit, where a name is given.
    """
    from .audit._measure import measure_all
    from .core.readings import Readings

    suite: Any = registry.load(name, "audit")(**settings) if isinstance(name, str) else name
    models = {"before": before, "after": after, "retrained": retrained}
    readings = {label: Readings(model, run) for label, model in models.items() if model is not None}
    return measure_all(suite, readings, data, run, dict(context or {}))


def report(findings: Findings | str | Path) -> Report:
    """A page for people from findings or from a `findings.json`."""
    from .report.page import Report

    return Report(findings if isinstance(findings, Findings) else Findings.load(findings))

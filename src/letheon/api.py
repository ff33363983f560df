"""What `import letheon as lt` offers. Nothing is computed here: each function finds a plug-in and calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core import registry, wanted
from .core.data import Data
from .core.errors import DataError, MethodError
from .core.findings import Findings
from .core.method import Audit, Method, Source

if TYPE_CHECKING:
    from torch.nn import Module

    from .core.run import Run
    from .core.subject import Subject
    from .report.page import Report


def methods(role: str | None = None) -> dict[str, str]:
    """Names and one-line summaries of all plug-ins, or of one role. Imports none of them.

    >>> methods("erase")["npo"]
    'Negative preference optimisation: push forget answers below their start, with a weight that fades.'
    """
    found = registry.all_plugins() if role is None else registry.plugins(registry.role_named(_named(role, "roles"))).values()
    return {plugin.name: plugin.summary for plugin in found}


def method(name: str, **settings: Any) -> Method:
    """The plug-in called `name` with the given settings.

    >>> method("npo", beta=0.2, retain="kl")
    npo(retain=Choice(name='kl'), beta=0.2)
    """
    found: Method = registry.load(_named(name, "methods"))(**settings)
    return found


def data(name: str, **settings: Any) -> Data:
    """Read or make data with the source called `name`.

    >>> sorted(data("authors", people=40))[:3]
    ['forget', 'forget-choice', 'forget-cloze']
    """
    source = registry.load(_named(name, "sources"), "data")(**settings)
    if not isinstance(source, Source):
        raise DataError(f"`{name}` is not a data source")
    return source.load()


def subject(model: str | Path | Module, tokenizer: Any = None, **settings: Any) -> Subject:
    """A causal language model from a Hugging Face folder or hub name, or one in memory with its tokenizer.

    Args:
        model: what is in memory is not copied; it is in evaluation mode from now on, and no method changes it.
        settings: those of `hf`; in memory `template`, `system` and `max_length`.
    """
    from .subjects.hf import live, load

    if isinstance(model, str | Path) and tokenizer is None:
        return load(model, **settings)
    return live(model, tokenizer, **settings)


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

    Audits and changes in several threads of one process take turns; use processes for more cores.

    Args:
        name: an audit or its name.
        context: what the report should say about how this was made.
        settings: settings of the audit, where a name is given.
    """
    from .audit._measure import measure_all
    from .core.readings import Readings

    suite: Any = registry.load(name, "audit")(**settings) if isinstance(name, str) else name
    if not isinstance(suite, Audit):
        raise MethodError(f"`lt.audit` wants an audit or its name, got {_shown(suite)}", "`letheon methods audit` lists them")
    wanted.check("`lt.audit`", {"subject": after, "data": data, "run": run})
    for other in (before, retrained):
        wanted.check("`lt.audit`", {} if other is None else {"subject": other})
    models = {"before": before, "after": after, "retrained": retrained}
    readings = {label: Readings(model, run) for label, model in models.items() if model is not None}
    return measure_all(suite, readings, data, run, dict(context or {}))


def report(findings: Findings | str | Path) -> Report:
    """A page for people from findings or from a `findings.json`."""
    from .report.page import Report

    if not isinstance(findings, Findings | str | Path):
        what = f"`lt.report` wants findings or the path of a `findings.json`, got {_shown(findings)}"
        raise DataError(what, "`lt.audit` gives findings")
    return Report(findings if isinstance(findings, Findings) else Findings.load(findings))


def _named(name: object, what: str) -> str:
    """The name of a plug-in or a role."""
    if not isinstance(name, str):
        raise MethodError(f"Names of {what} are text, got {_shown(name)}", "`lt.methods()` lists what there is")
    return name


def _shown(value: object) -> str:
    """A value of the wrong kind, as a message says it."""
    if isinstance(value, Method):
        return f"`{value.name()}`"
    return "nothing" if value is None else type(value).__name__

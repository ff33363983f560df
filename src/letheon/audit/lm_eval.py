"""Tasks of the Language Model Evaluation Harness as measures of what should stay.

Every name that `lm-eval` knows can be given (`tasks = ["arc_easy", "hellaswag"]`), and every task in a folder of one's own YAML files
(`folder`). Each metric of a task is one finding: the mean over documents with its interval. A task that reads the answers in several ways
(its filters) has one for each, as `lm-eval-exact_match-strict-match`. The harness reads its data itself, so a task from the hub needs a
network or the hub's cache. The package is an extra: pip install 'letheon[lm-eval]'.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data
from letheon.core.errors import MethodError, SettingsError
from letheon.core.findings import Finding
from letheon.core.forward import unwrapped
from letheon.core.method import Audit
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field, Settings

from ._parts import nothing, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class LmEvalSettings(Settings):
    tasks: tuple[str, ...] = Field((), description="names of tasks, as `lm-eval ls tasks` lists them")
    folder: Path | None = Field(None, description="folder with task files (YAML) of your own")
    shots: int | None = Field(None, ge=0, description="solved examples in front of each question; None: what the task says")
    limit: int | None = Field(None, ge=1, description="documents per task, the first ones; None: all")
    batch_size: int = Field(16, ge=1, description="documents in one forward pass")


class LmEval(Audit):
    """Scores on tasks of lm-eval."""

    package = "lm_eval"
    Settings, tiny = LmEvalSettings, {"limit": 2}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        if self.settings.folder is not None and not self.settings.folder.is_dir():
            raise SettingsError(f"There is no folder {self.settings.folder}", "`folder` holds the YAML files of tasks")
        if self.settings.tasks and find_spec(self.package) is None:
            raise MethodError("Tasks of lm-eval were named, and the package is not installed", "pip install 'letheon[lm-eval]'")

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding for each metric of each task; `split` is the task."""
        if not self.settings.tasks:
            return [nothing(self, "lm-eval", "no task and no split was named", direction="higher")]
        found = []
        for task, metrics in self._scores(readings, run).items():
            for metric, (values, more) in metrics.items():
                direction = "higher" if more else "lower"
                why = "the metric has no number"
                found.append(row_finding(self, f"lm-eval-{metric}", task, values, run, direction=direction, why=why))
        return found

    def _scores(self, readings: Readings, run: Run) -> dict[str, dict[str, tuple[np.ndarray, bool]]]:
        """task -> metric, with its filter where there are several -> values of its documents, in their order, and whether more is better.

        Raises:
            SettingsError: a task is unknown.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=None if self.settings.folder is None else str(self.settings.folder))
        known = set(manager.all_tasks)
        strange = [task for task in self.settings.tasks if task not in known]
        if strange:
            raise SettingsError(f"lm-eval knows no task `{strange[0]}`", "`lm-eval ls tasks` lists them; `folder` adds your own")
        subject, seed = readings.subject, run.derived_seed("lm-eval") % 2**31
        with kept_as_found(subject.module), _quiet():
            model = HFLM(
                pretrained=unwrapped(subject.module),
                tokenizer=subject.encoder.tokenizer,
                batch_size=self.settings.batch_size,
                max_length=subject.encoder.max_length,
            )
            seeds = {"random_seed": seed, "numpy_random_seed": seed, "torch_random_seed": seed, "fewshot_random_seed": seed}
            said = simple_evaluate(
                model=model,
                tasks=list(self.settings.tasks),
                task_manager=manager,
                num_fewshot=self.settings.shots,
                limit=self.settings.limit,
                bootstrap_iters=0,
                log_samples=True,
                **seeds,
            )
        found: dict[str, dict[str, tuple[np.ndarray, bool]]] = {}
        for task, samples in said["samples"].items():
            better = said["higher_is_better"].get(task, {})
            ordered, found[task] = sorted(samples, key=lambda sample: sample["doc_id"]), {}
            filters = list(dict.fromkeys(sample.get("filter", "none") for sample in samples))
            for name in dict.fromkeys(name for sample in ordered for name in sample["metrics"]):
                for kind in filters:
                    given = [sample.get(name) for sample in ordered if sample.get("filter", "none") == kind]
                    values = np.array([float(value) if _is_number(value) else np.nan for value in given])
                    if np.isfinite(values).any():
                        full = name if len(filters) == 1 else f"{name}-{re.sub(r'[^A-Za-z0-9._+-]+', '-', kind)}"
                        found[task][full] = values, better.get(name, True) is not False
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness says much while it works, and sets global generators; neither is left behind."""
    import random

    import torch

    level, states = logging.root.manager.disable, (random.getstate(), np.random.get_state())
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logging.disable(level)
        random.setstate(states[0])
        np.random.set_state(states[1])

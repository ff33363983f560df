"""Tasks of lm-eval as utility measures: the harness's own numbers, checked against a sum of log-probabilities by hand."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import types

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.lm_eval import LmEval
from letheon.core.errors import MethodError, SettingsError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

RUN = Run(0, device="cpu")


def test_without_tasks_nothing_is_measured_and_it_says_so():
    (one,) = LmEval().measure(Readings(toy_subject(), RUN), toy_data(), RUN)
    assert one.value is None and "no task" in one.note


def test_a_task_without_the_package_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(sys.modules[LmEval.__module__], "find_spec", lambda name: None)
    with pytest.raises(MethodError, match="not installed"):
        LmEval(tasks=["arc_easy"])
    for suite in ("general", "tofu", "muse", "dusk", "rwku", "wmdp"):
        with pytest.raises(MethodError, match="not installed"):
            lt.method(f"audit/{suite}", tasks=["arc_easy"])


def test_a_folder_that_is_not_there():
    with pytest.raises(SettingsError, match="no folder"):
        LmEval(folder="nowhere")


@pytest.fixture
def folder(tmp_path):
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed: see tests/SKIPS.md")
    rows = [
        {"prompt": f"Where does {row.group} live?", "choices": [row.answer, *row.wrong][:3], "answer": 0}
        for row in toy_data()["forget"]
        if row.wrong
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "homes.yaml").write_text(
        "task: homes\ndataset_path: json\noutput_type: multiple_choice\ntest_split: train\ndoc_to_text: prompt\ndoc_to_choice: choices\n"
        f"doc_to_target: answer\ndataset_kwargs:\n  data_files: {tmp_path / 'rows.json'}\nmetric_list:\n  - metric: acc\n    higher_is_better: true\n"
    )
    return tmp_path, rows


def test_accuracy_is_that_of_the_likeliest_choice(folder):
    path, rows = folder
    subject = toy_subject()
    digest, state = subject.digest, (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    (one,) = LmEval(tasks=["homes"], folder=path).measure(Readings(subject, RUN), toy_data(), RUN)
    assert (one.name, one.split, one.direction, one.n) == ("lm-eval-acc", "homes", "higher", len(rows))
    tokenizer = subject.encoder.tokenizer

    def score(row, choice):
        given = tokenizer(row["prompt"])["input_ids"]
        ids = given + tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            said = subject.module(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(said[i - 1, ids[i]]) for i in range(len(given), len(ids)))

    wanted = [float(np.argmax([score(row, choice) for choice in row["choices"]]) == 0) for row in rows]
    assert list(one.rows) == wanted
    assert subject.digest == digest and random.getstate() == state[0] and np.random.get_state()[1].tolist() == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])
    for name in ("general", "rwku", "wmdp"):
        suite = lt.method(f"audit/{name}", tasks=["homes"], task_folder=str(path), probes=["lm-eval"], limit=2)
        assert [f.n for f in suite.measure(Readings(subject, RUN), toy_data(), RUN) if f.split == "homes"] == [2], name


def test_an_unknown_task_is_named(folder):
    with pytest.raises(SettingsError, match="knows no task `homs`"):
        LmEval(tasks=["homs"], folder=folder[0]).measure(Readings(toy_subject(), RUN), toy_data(), RUN)


def test_each_filter_of_a_task_is_a_finding_of_its_own(monkeypatch):
    """The harness logs a document once for each filter; a metric that a document lacks, or that is no number, is left out."""
    values = {"strict-match": (0, 1, 0, 0), "flexible extract": (1, 1, 1, 0)}
    samples = [
        {"doc_id": k, "filter": kind, "metrics": ["exact_match", "text"], "exact_match": value, "text": "7"}
        for kind, of_kind in values.items()
        for k, value in reversed(list(enumerate(of_kind)))
    ]
    single = [{"doc_id": k, "filter": "none", "metrics": ["acc"] if k else [], **({"acc": k % 2} if k else {})} for k in (2, 1, 0)]
    said = {"samples": {"gsm8k": samples, "homes": single}, "higher_is_better": {"gsm8k": {"exact_match": False}}}
    harness, tasks, models = (types.ModuleType(name) for name in ("lm_eval", "lm_eval.tasks", "lm_eval.models.huggingface"))
    harness.simple_evaluate, models.HFLM = lambda **_: said, lambda **_: None
    tasks.TaskManager = lambda include_path: types.SimpleNamespace(all_tasks=["gsm8k", "homes"])
    for name, module in (("lm_eval", harness), ("lm_eval.tasks", tasks), ("lm_eval.models.huggingface", models)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules[LmEval.__module__], "find_spec", lambda name: name)
    found = LmEval(tasks=["gsm8k", "homes"]).measure(Readings(toy_subject(), RUN), toy_data(), RUN)
    assert [(one.name, one.split, one.direction, one.n, one.value) for one in found] == [
        ("lm-eval-exact_match-strict-match", "gsm8k", "lower", 4, 0.25),
        ("lm-eval-exact_match-flexible-extract", "gsm8k", "lower", 4, 0.75),
        ("lm-eval-acc", "homes", "higher", 2, 0.5),
    ]
    assert found[0].rows == (0, 1, 0, 0) and found[2].rows == (None, 1, 0)

"""The exact baseline: it never meets a forget row, and it repeats."""

from __future__ import annotations

import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.run import Run
from letheon.erase.retrain import Retrain

from .fact_world import said, untrained

SHORT = {"name": "finetune", "steps": 3, "learning_rate": 1e-3}


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.module.state_dict().values(), two.module.state_dict().values(), strict=True))


def test_forget_rows_make_no_difference(stranger, fact_data, run):
    without = Data({"retain": fact_data["retain"]}, fact_data.name)
    assert same(Retrain(inner=SHORT).apply(stranger, fact_data, run), Retrain(inner=SHORT).apply(stranger, without, run))


def test_the_weights_of_the_subject_make_no_difference(knower, stranger, fact_data, run):
    one, two = (Retrain(inner=SHORT).apply(subject, fact_data, run) for subject in (knower, stranger))
    assert same(one, two)
    assert not same(one, Retrain(inner=SHORT).apply(stranger, fact_data, Run(1, dtype="float32", device="cpu")))


def test_global_generators_neither_matter_nor_move(stranger, fact_data, run):
    torch.manual_seed(5)
    one = Retrain(inner=SHORT).apply(stranger, fact_data, run)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert same(one, Retrain(inner=SHORT).apply(stranger, fact_data, run))


def test_kept_comes_before_retain(stranger, fact_data, run):
    kept = Data({**fact_data.splits, "kept": fact_data["retain"][:30]})
    after = Retrain(inner=SHORT).apply(stranger, kept, run)
    assert after.lineage[-1].notes["split"] == "kept"
    assert after.lineage[-1].notes["learned"] == Data({"kept": kept["kept"]}, kept.name).digest


def test_from_a_folder_it_is_the_inner_method_on_that_model(stranger, fact_data, run, tmp_path):
    base = untrained(fact_data, seed=9)
    base.save(tmp_path / "base")
    after = Retrain(base=str(tmp_path / "base"), inner=SHORT).apply(stranger, fact_data, run)
    meant = Finetune(split="retain", steps=3, learning_rate=1e-3).apply(base, Data({"retain": fact_data["retain"]}, fact_data.name), run)
    assert same(after, meant)


def test_a_base_with_another_tokenizer_is_refused(stranger, fact_data, run, tmp_path):
    from letheon.testing import toy_subject

    toy_subject().save(tmp_path / "base")
    with pytest.raises(SubjectError, match="has another tokenizer"):
        Retrain(base=str(tmp_path / "base"), inner=SHORT).apply(stranger, fact_data, run)


def test_nothing_to_learn_and_nothing_to_learn_with(stranger, fact_data, run):
    with pytest.raises(DataError, match="needs a `retain` split"):
        Retrain().apply(stranger, Data({"forget": fact_data["forget"]}), run)
    with pytest.raises(MethodError, match="no adapter called `fine-tune`"):
        Retrain(inner="fine-tune")


def test_it_learns_the_rest_and_not_the_forget_rows(knower, fact_data):
    inner = {"name": "finetune", "epochs": 15, "learning_rate": 8e-3, "weight_decay": 0.0, "warmup": 0.05, "schedule": "cosine"}
    after = Retrain(inner=inner).apply(knower, fact_data, Run(0, dtype="float32", device="cpu"))
    assert said(after, fact_data["retain"]).value > 2 * said(after, fact_data["forget"]).value
    assert said(after, fact_data["retain"]).template > 0.95
    assert said(after, fact_data["forget"]).exact < 0.2

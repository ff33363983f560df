"""GPTQ as a way to round in `quantised`: the same numbers as a model built by hand, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit._gptq import calibration_rows, why_not
from letheon.audit.quantised import Quantised, quantised
from letheon.core.data import Data, Split
from letheon.core.errors import DataError, SettingsError, SubjectError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.gptq import gptq
from letheon.maths.quantise import rounded
from letheon.report.measures import measure
from letheon.testing._cases import left_as_found
from letheon.testing.toys import ARCHITECTURES, toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}
BOTH = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def learned():
    data = toy_data()
    values = {"split": "full", "epochs": 40, "learning_rate": 1e-2}
    return lt.method("finetune", **values).apply(toy_subject(), data, Run(0, **RUN)), data


def blocks_of(module):
    inner = getattr(module, "model", None) or module.transformer
    return inner.layers if hasattr(inner, "layers") else inner.h


def matrices(block):
    """Matrices of a block as (o, i), by name."""
    found = {}
    for name, part in block.named_modules():
        if getattr(getattr(part, "weight", None), "ndim", 0) == 2:
            found[name] = part, (part.weight.T if type(part).__name__ == "Conv1D" else part.weight)
    return found


@torch.no_grad()
def by_hand(subject, rows, bits, group):
    """One row at a time through the whole model, for each block anew."""
    copy = subject.fork()
    ids = [torch.tensor(subject.encoder.encode(rows).row(i))[None] for i in range(len(rows))]
    for block in blocks_of(copy.module):
        given = {name: [] for name in matrices(block)}
        hooks = [
            part.register_forward_pre_hook(lambda part, args, name=name: given[name].append(args[0].flatten(0, 1).double()))
            for name, (part, _) in matrices(block).items()
        ]
        for row in ids:
            copy.module(input_ids=row)
        for hook in hooks:
            hook.remove()
        for name, (_, weight) in matrices(block).items():
            inputs = torch.cat(given[name])
            assert len(inputs) == sum(row.shape[1] for row in ids)
            weight.copy_(gptq(weight, 2 * inputs.T @ inputs, bits, group))
    return copy


def weights(subject):
    return dict(subject.module.named_parameters())


@BOTH
def test_the_model_is_the_one_built_by_hand(architecture):
    """Block after block from the blocks below as they are then, all tokens of all rows once, padding never."""
    subject, rows = toy_subject(architecture=architecture), toy_data()["retain"]
    assert len(set(subject.encoder.encode(rows).lengths.tolist())) > 3, "rows of several lengths"
    found, wanted = weights(quantised(subject, "gptq4", 16, rows)), weights(by_hand(subject, rows, 4, 16))
    assert found.keys() == wanted.keys()
    for name, weight in found.items():
        same = (weight - wanted[name]).abs() <= 1e-6 * wanted[name].abs().max()  # sums in another order: a code may fall the other way
        assert same.double().mean() > 0.95, name  # below 0.55 in the second block where its inputs come from an unrounded first


@BOTH
def test_all_block_matrices_are_rounded_and_nothing_else(architecture):
    """Embeddings (tied to the head in gpt2), head, norms and biases stay; each matrix is on a grid, and not that of plain rounding."""
    subject, rows = toy_subject(architecture=architecture), toy_data()["retain"]
    before, digest = {name: weight.clone() for name, weight in weights(subject).items()}, subject.digest
    with left_as_found(subject):
        after = quantised(subject, "gptq4", 16, rows)
    inside = {f".{i}.{name}.weight" for i, block in enumerate(blocks_of(after.module)) for name in matrices(block)}
    swept = 0
    for name, weight in weights(after).items():
        if not any(name.endswith(ending) for ending in inside):
            assert torch.equal(weight, before[name]), name
            continue
        swept += 1
        flat, plain = (weight.T, rounded(before[name].T, 4, 16).T) if architecture == "gpt2" else (weight, rounded(before[name], 4, 16))
        assert not torch.equal(weight, plain), name
        assert max(len(set(row.tolist())) for row in flat[:, :16]) <= 2**4 + 1
    assert swept == len(inside) == (14 if architecture == "llama" else 8) and subject.digest == digest
    embedding, head = after.module.get_input_embeddings().weight, after.module.get_output_embeddings().weight
    assert (embedding is head) == (architecture == "gpt2")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in after.module.modules())


@BOTH
def test_it_repeats_to_the_bit_and_follows_the_calibration(architecture):
    subject, data = toy_subject(architecture=architecture), toy_data()
    first = quantised(subject, "gptq4", 16, data["retain"]).digest
    assert quantised(subject, "gptq4", 16, data["retain"]).digest == first
    others = {quantised(subject, "gptq4", 16, data["retain"][:3]).digest, quantised(subject, "gptq8", 16, data["retain"]).digest}
    assert len(others | {first, quantised(subject, "int4", 16).digest}) == 4


def test_the_probability_is_that_of_the_rounded_model(learned):
    """Value, rows and recovery; calibrated on the first `calibration` rows of `retain`."""
    subject, data = learned
    run, rows = Run(0, **RUN), data["retain"][:5]
    hidden = subject.fork()
    with torch.no_grad():
        for name, weight in hidden.module.named_parameters():
            if "layers" in name and weight.ndim == 2:
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std())
    audit = Quantised(schemes=("gptq4",), group=16, calibration=5)
    found = {(f.name, f.split): f for f in audit.measure(Readings(hidden, run), data, run, None, Readings(subject, run))}

    def values(model, where="forget"):
        return np.exp(-Readings(model, run).answers(data[where]).nll())

    coarse, whole = quantised(hidden, "gptq4", 16, rows), quantised(subject, "gptq4", 16, rows)
    for where in ("forget", "retain-check"):
        one = found["probability-gptq4", where]
        assert one.value == pytest.approx(float(values(coarse, where).mean())) and one.rows == pytest.approx(tuple(values(coarse, where)))
        assert one.extra["calibrated_on"] == "5 rows of retain" and one.n == len(data[where])
    back = found["recovery-gptq4", "forget"]
    plain = float(values(hidden).mean())
    assert back.value == pytest.approx((float(values(coarse).mean()) - plain) / (float(values(whole).mean()) - plain), abs=1e-6)


def test_with_few_bits_it_keeps_more_of_the_model_than_plain_rounding():
    """What it is for: mean squared change of the logits on rows that it was not calibrated on, over models and data of several seeds."""
    ratios, data = [], toy_data()
    for seed in range(4):
        for architecture in ARCHITECTURES:
            subject = toy_subject(seed, architecture)
            ids = [torch.tensor(subject.encoder.encode(data["holdout"]).row(i))[None] for i in range(8)]
            with torch.no_grad():
                said = [
                    torch.cat([model.module(input_ids=row).logits[0] for row in ids])
                    for model in (subject, quantised(subject, "gptq4", 16, data["retain"]), quantised(subject, "int4", 16))
                ]
            ratios.append(float((said[1] - said[0]).square().mean() / (said[2] - said[0]).square().mean()))
    assert sum(ratios) / len(ratios) < 0.8, ratios


def test_adapters_are_merged_before_rounding(learned):
    subject, data = learned
    adapted = lt.method("finetune", split="forget", steps=3, learning_rate=1e-2, parameters={"name": "lora", "rank": 2, "merge": False})
    after = adapted.apply(subject, data, Run(0, **RUN))
    digest, coarse = after.digest, quantised(after, "gptq4", 16, data["retain"])
    merged = Subject(after.fork().module.merge_and_unload(), after.encoder)
    assert not hasattr(coarse.module, "peft_config") and after.digest == digest and hasattr(after.module, "peft_config")
    for name, weight in weights(quantised(merged, "gptq4", 16, data["retain"])).items():
        assert torch.equal(weight, weights(coarse)[name]), name


@pytest.mark.parametrize("empty", [None, Split([], "retain")])
def test_without_rows_to_calibrate_on_there_is_a_reason_and_no_value(learned, empty):
    subject, data = learned
    run = Run(0, **RUN)
    splits = {"forget": data["forget"]} | ({} if empty is None else {"retain": empty})
    found = Quantised(schemes=("gptq4", "int4"), limit=2, splits=("forget",)).measure(Readings(subject, run), Data(splits, "bare"), run)
    by_name = {one.name: one for one in found}
    for name in ("probability-gptq4", "recovery-gptq4"):
        assert by_name[name].value is None and "no rows to calibrate GPTQ on, in `retain` or `retain-check`" in by_name[name].note
    assert by_name["probability-int4"].value is not None
    with pytest.raises(DataError, match="`gptq4` needs rows"):
        quantised(subject, "gptq4", 16, empty)


def test_the_rows_are_the_first_to_keep():
    data = toy_data()
    assert list(calibration_rows(data, 5)) == list(data["retain"][:5]) and len(calibration_rows(data, 100)) == len(data["retain"])
    check = Data({"retain": Split([], "retain"), "retain-check": data["retain-check"]}, "two")
    assert list(calibration_rows(check, 2)) == list(data["retain-check"][:2]) and calibration_rows(Data({}, "none"), 2) is None


def test_a_model_without_blocks_or_with_damage_says_so():
    data, subject = toy_data(), toy_subject()
    run = Run(0, **RUN)
    bare = toy_subject()
    bare.module.config.num_hidden_layers = 7  # the list of blocks is not found
    assert "has no list of `num_hidden_layers` blocks" in why_not(bare.module, data["retain"])
    found = Quantised(schemes=("gptq8",), limit=2).measure(Readings(bare, run), data, run)
    assert all(one.value is None and "GPTQ cannot be used" in one.note for one in found) and len(found) >= 5
    with torch.no_grad():
        subject.module.model.layers[0].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(SubjectError, match=r"The inputs of `model\.layers\.1\.self_attn\.q_proj` hold NaN or infinity"):
        quantised(subject, "gptq4", 16, data["retain"])


def test_a_layer_that_no_token_reaches_is_rounded_to_nearest():
    """As an expert to which nothing is sent."""
    subject, rows = toy_subject(), toy_data()["retain"]
    block = subject.module.model.layers[0]
    block.spare = torch.nn.Linear(32, 8, bias=False)
    after = quantised(subject, "gptq4", 16, rows)
    assert torch.equal(after.module.model.layers[0].spare.weight, rounded(block.spare.weight, 4, 16))


def test_names_and_their_meaning():
    assert Quantised().settings.schemes == ("int8", "int4", "nf4")
    for scheme, bits in (("gptq4", 4), ("gptq8", 8)):
        known = measure(f"probability-{scheme}")
        assert known.knows == 1 and known.attack == f"with {bits}-bit weights (GPTQ)" and measure(f"recovery-{scheme}").derived
    for wrong in ("gptq5", "gptq", "gptq-4"):
        with pytest.raises(SettingsError):
            Quantised(schemes=(wrong,))

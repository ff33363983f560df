"""U-CAN: what the card says a correct implementation must show."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
import torch

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, SettingsError, SubjectError
from letheon.core.run import Run
from letheon.erase._linears import watched
from letheon.erase.u_can import UCan, attenuation, contrast, usefulness
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.parameters.lora import LoRA

from .adapted import adapted
from .digits_mlp import Digits
from .fact_world import said

HOW = {"threshold": 0.1, "fusion": 0.5, "steepness": 2.0}


@pytest.fixture
def toy(run):
    """A toy with an adapter that does something."""
    subject = LoRA(merge=False, rank=4).open(toy_subject(), run)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in subject.module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return subject


def tensors(subject) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}


def logits(module) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=(torch.arange(40) * 7 + 3).remainder(320)[None]).logits


# the three scores, from numbers


def test_risk_is_the_relative_gap_over_the_largest_of_the_layer():
    forget, retain = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 2.0])
    # gaps 2/4, 0, 1/3, negative
    torch.testing.assert_close(contrast(forget, retain), torch.tensor([1.0, 0.0, 2 / 3, 0.0]))
    # the mean on retain rows is 1.25: a floor of 1 asks for a gap above 1.25
    torch.testing.assert_close(contrast(forget, retain, 1.0), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert contrast(retain, retain).tolist() == [0.0] * 4


def test_utility_needs_no_whole_product():
    generator = torch.Generator().manual_seed(0)
    up, down, sizes = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3000, 4), (4, 6), (6,)))
    sizes = sizes.abs()
    whole = (up @ down).abs() @ sizes
    torch.testing.assert_close(usefulness(sizes, up, down), whole / whole.max(), rtol=0, atol=1e-12)
    assert float(usefulness(sizes, up, down).max()) == 1.0


def test_gamma_falls_with_risk_rises_with_utility_and_ends_in_pruning():
    risk, utility = torch.linspace(0, 1, 21, dtype=torch.float64), torch.linspace(0, 1, 21, dtype=torch.float64)
    table = attenuation(risk[:, None], utility, **HOW)  # (risk, utility)
    assert bool((table.diff(dim=0) <= 0).all()) and bool((table.diff(dim=1) >= 0).all())
    assert float(table[20, 0]) == pytest.approx(float(torch.tensor(-2 * 0.9).exp()), abs=1e-7)
    hard = attenuation(risk[:, None], utility, **HOW, hard=True)
    steep = attenuation(risk[:, None], utility, **{**HOW, "steepness": 1e9})
    torch.testing.assert_close(steep, hard, rtol=0, atol=1e-12)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert attenuation(torch.ones(1), torch.ones(1), threshold=0.0, fusion=1.0, steepness=8.0).item() == 1.0  # the most useful unit
    assert bool((attenuation(risk, utility, **{**HOW, "threshold": 1.0}) == 1).all())


# the edit


@pytest.mark.parametrize("unit", ["output", "rank"])
@pytest.mark.parametrize("limit", [{"steepness": 0.0}, {"threshold": 1.0}])
def test_limits_leave_the_model_to_the_bit(toy, run, unit, limit):
    after = UCan(unit=unit, **limit).apply(toy, toy_data(), run)
    before = tensors(toy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(after).items())
    assert after.lineage[-1].notes["edited"] == "adapters"


def test_the_same_rows_on_both_sides_change_nothing(toy, run):
    rows = toy_data()["retain"]
    after = UCan(threshold=0.0, floor=0.0).apply(toy, Data({"forget": rows, "retain": rows}), run)
    assert torch.equal(logits(after.module), logits(toy.module))


def test_everything_turned_off_is_the_base_model(toy, run):
    scaled = UCan(threshold=0.0, fusion=0.0, floor=0.0, steepness=8.0).apply(toy, toy_data(), run)
    with torch.no_grad():
        for name, parameter in scaled.module.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    torch.testing.assert_close(logits(scaled.module), logits(toy_subject().module), rtol=0, atol=1e-5)


def test_the_adapter_adds_gamma_times_what_it_added_and_no_weight_of_the_base_moves(toy, tmp_path):
    run = Run(0, out=tmp_path, dtype="float32", device="cpu")
    after = UCan(threshold=0.0, steepness=3.0).apply(toy, toy_data(), run)
    run.close()
    gammas = {line["layer"]: torch.tensor(line["gamma"]) for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())}
    assert len(gammas) == 14  # seven linear layers in two blocks
    before, now = tensors(toy), tensors(after)
    for name, gamma in gammas.items():
        layer = name.removesuffix(".default")
        key = next(key for key in before if key.endswith(f"{layer}.lora_B.default.weight"))
        torch.testing.assert_close(now[key], gamma[:, None] * before[key], rtol=1e-6, atol=0)
        x = torch.randn(5, before[key.replace("lora_B", "lora_A")].shape[1], generator=torch.Generator().manual_seed(1))
        added = []
        for subject in (toy, after):
            parts, place = dict(subject.module.named_modules()), key.removesuffix(".weight")
            a, b = parts[place.replace("lora_B", "lora_A")], parts[place]
            with watched({"b": b}) as seen, torch.no_grad():
                b(a(x))
            added.append(seen["b"][1])
        torch.testing.assert_close(added[1], gamma * added[0], rtol=1e-5, atol=1e-6)
        down = before[key.replace("lora_B", "lora_A")]
        assert float((now[key] @ down).norm()) <= float((before[key] @ down).norm())
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert moved and all("lora_B" in name for name in moved)


def test_rank_units_scale_rows_of_a(toy, run):
    after = UCan(threshold=0.0, unit="rank").apply(toy, toy_data(), run)
    before, now = tensors(toy), tensors(after)
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert moved and all("lora_A" in name for name in moved)
    for name in moved:
        factor = (now[name] / before[name]).mean(1, keepdim=True)
        torch.testing.assert_close(now[name], factor * before[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_linear_layers_are_scaled_with_their_biases(run, architecture):
    before, after = toy_subject(architecture=architecture), None
    after = UCan(threshold=0.0, floor=0.0, part="mlp").apply(before, toy_data(), run)
    turned = after.lineage[-1].notes["layers"]
    assert len(turned) == (6 if architecture == "llama" else 4)
    for name in turned:
        old, new = (dict(subject.module.named_modules())[name] for subject in (before, after))
        x = torch.randn(9, old.weight.shape[0 if architecture == "gpt2" else 1], generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ratio = new(x) / old(x)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=1e-3)
        assert float(ratio.max()) <= 1 + 1e-3 and float(ratio.min()) > 0


def test_activations_are_means_over_real_tokens(run):
    """Against a pass over one row at a time, without padding."""
    subject, data, name = toy_subject(), toy_data(), "model.layers.1.mlp.down_proj"
    layer, sums, tokens = dict(subject.module.named_modules())[name], 0.0, 0
    encoded = subject.encoder.encode(data["forget"])
    for i in range(len(encoded)):
        with watched({"u": layer}) as seen, torch.no_grad():
            subject.module(input_ids=torch.from_numpy(encoded.row(i).astype("int64"))[None])
        sums, tokens = sums + seen["u"][1].double().abs().sum((0, 1)), tokens + encoded.lengths[i]
    from letheon.erase.u_can import _of_layers

    found = UCan()._means(subject, data["forget"], _of_layers(subject, "mlp"))[name]
    assert found.tokens == tokens
    torch.testing.assert_close(found.u, sums, rtol=1e-5, atol=1e-5)


# behaviour


def test_digits_that_only_the_adapter_knows_are_forgotten_and_soft_beats_hard():
    """The card's check: base taught 5 to 9, adapter taught all, one digit forgotten. Means over three networks."""
    found: dict[tuple[bool, bool], list[tuple[float, float]]] = {(hard, base): [] for hard in (False, True) for base in (False, True)}
    for seed in range(3):
        net = Digits((64, 96, 96, 10), seed)
        net.learn(net.train[net.y[net.train] >= 5], 15, 3e-3)
        net.learn(net.train, 30, 5e-3, adapter=True)
        assert fmean(net.right(digit, up=net.up) for digit in range(10)) > 0.94
        for digit in range(10):
            for hard in (False, True):
                up = turned_down(net, digit, hard)
                found[hard, digit >= 5].append((net.right(digit, up=up), net.right(digit, kept=True, up=up)))
    (forgotten, kept), (_, cut) = ([fmean(pair[k] for pair in found[hard, False]) for k in (0, 1)] for hard in (False, True))
    assert forgotten < 0.12 and kept > 0.82  # 0.04 and 0.89 here
    assert cut < kept - 0.1  # hard pruning keeps 0.66
    assert fmean(pair[0] for pair in found[False, True]) > 0.85  # what the base knows stays


@torch.no_grad()
def turned_down(net: Digits, digit: int, hard: bool) -> list[torch.Tensor]:
    """Every B of the adapter after the edit."""
    (_, _, forget), (_, inputs, retain) = (net.run(net.rows(digit, kept=kept), up=net.up) for kept in (False, True))
    up = []
    for k, factor in enumerate(net.up):
        risk = contrast(forget[k].abs().mean(0), retain[k].abs().mean(0))
        utility = usefulness(inputs[k].square().mean(0).sqrt(), factor, net.down[k])
        up.append(attenuation(risk, utility, **HOW, hard=hard)[:, None] * factor)
    return up


def test_an_adapter_forgets_facts_that_it_alone_has_learned(fact_data):
    retain = fact_data["retain"][:60]
    forgotten, kept, before = [], [], []
    for seed in (0, 1):
        subject = adapted(seed)
        after = UCan().apply(subject, fact_data, Run(seed, dtype="float32", device="cpu"))
        before.append(said(subject, fact_data["forget"]).value)
        forgotten.append(said(after, fact_data["forget"]).value)
        kept.append(said(after, retain).value)
    assert fmean(before) > 0.75
    assert fmean(forgotten) < 0.4 < 0.7 < fmean(kept)  # 0.15 and 0.84 here


def test_it_warns_where_forget_rows_are_like_all_others(run, caplog, toy):
    rows = list(toy_data()["retain"])
    UCan().apply(toy, Data({"forget": Split(rows[::2], "forget"), "retain": Split(rows[1::2], "retain")}), run)
    assert "no more than chance does" in caplog.text


# what it refuses


def test_what_it_refuses(toy, run):
    data = toy_data()
    with pytest.raises(DataError, match="needs a `retain` split"):
        UCan().apply(toy, Data({"forget": data["forget"]}), run)
    with pytest.raises(DataError, match="needs 2 `retain` rows"):
        UCan().apply(toy, Data({"forget": data["forget"], "retain": data["retain"][:1]}), run)
    with pytest.raises(SubjectError, match="has an adapter around them"):
        UCan(where="linear").apply(toy, data, run)
    with pytest.raises(SubjectError, match="asked to edit a low-rank adapter and `toy-llama` has none"):
        UCan(where="adapters").apply(toy_subject(), data, run)
    with pytest.raises(SettingsError, match="can be rank only in adapters"):
        UCan(where="linear", unit="rank")
    with pytest.raises(SettingsError, match="has no adapter"):
        UCan(unit="rank").apply(toy_subject(), data, run)


def test_an_adapter_of_another_kind_is_refused(run):
    from peft import LoraConfig, get_peft_model

    subject = toy_subject()
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        other = type(subject)(get_peft_model(subject.module, config), subject.encoder)
    with pytest.raises(SubjectError, match="has another kind"):
        UCan().apply(other, toy_data(), run)


def test_the_edited_adapter_is_saved_as_an_adapter(toy, run, tmp_path):
    from letheon.subjects.hf import load

    after = UCan(threshold=0.0).apply(toy, toy_data(), run)
    after.save(tmp_path / "a")
    assert (tmp_path / "a" / "adapter_config.json").is_file()
    assert torch.equal(logits(load(tmp_path / "a").module), logits(after.module))

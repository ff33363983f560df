"""The loop against gradients written out by hand: sums and units, schedules, clipping, rules, guards."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from letheon.core.attention import fast_attention
from letheon.core.errors import MethodError, SettingsError, SubjectError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.feed import plan_steps
from letheon.train.objective import Objective, Term, TrainSettings
from letheon.train.pace import rate_factor
from letheon.train.samplers.paired import Paired

from .plain import Ascent, AscentPerRow, SumOfParts, gradient, trainer


def run(**more) -> Run:
    return Run(device="cpu", dtype="float32", **more)


def by_hand(rows: dict, weights: dict[str, float], per_row: bool = False) -> dict[str, torch.Tensor]:
    """Gradient of sum_k weight_k * (sum of answer nll) / (tokens or rows), from full logits, row by row."""
    subject, data = toy_subject(), toy_data()
    total = 0.0
    for split, weight in weights.items():
        encoded = subject.encoder.encode(data[split])
        summed, tokens = 0.0, 0
        for index in rows[split]:
            ids = torch.tensor(encoded.row(index).astype("int64"))
            start = int(encoded.starts[index])
            logits = subject.module(input_ids=ids[None]).logits[0]
            summed = summed + F.cross_entropy(logits[start - 1 : -1], ids[start:], reduction="sum")
            tokens += len(ids) - start
        total = total + weight * summed / (len(rows[split]) if per_row else tokens)
    total.backward()
    return {name: p.grad for name, p in subject.module.named_parameters()}


@pytest.mark.parametrize("budget", [16, 128, 1 << 20], ids=lambda budget: f"budget-{budget}")
def test_gradient_is_that_of_one_big_batch(budget):
    one = trainer(Ascent(steps=1, batch_size=6, tokens_per_batch=budget, forget_weight=0.7, retain_weight=1.3), run())
    rows = one.feed.plan[0]
    assert sum(len(part) for piece in one.feed.micro_steps(rows, ("forget",)) for part in piece.values()) == 12
    one.gradients(rows)
    expected = by_hand(rows, {"forget": -0.7, "retain": 1.3})
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, parameter in one.named.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=2e-6 * largest)


def test_a_term_per_sequence_is_divided_by_rows():
    one = trainer(AscentPerRow(steps=1, batch_size=5, retain="none", tokens_per_batch=64), run())
    measured = one.gradients(one.feed.plan[0])
    expected = by_hand(one.feed.plan[0], {"forget": -1.0}, per_row=True)
    assert measured.loss == pytest.approx(measured.means["forget"])
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, parameter in one.named.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=2e-6 * largest)


def test_means_are_logged_before_their_weights_and_the_loss_after():
    one = trainer(Ascent(steps=1, forget_weight=0.5, retain_weight=3.0), run())
    measured = one.gradients(one.feed.plan[0])
    assert measured.means["forget"] < 0 < measured.means["retain"]
    assert measured.loss == pytest.approx(0.5 * measured.means["forget"] + 3.0 * measured.means["retain"])


def test_a_separate_rule_that_adds_is_the_plain_sum():
    plain = trainer(Ascent(steps=1, tokens_per_batch=128), run())
    rows = plain.feed.plan[0]
    plain.gradients(rows)
    separate = trainer(Ascent(steps=1, tokens_per_batch=128), run())
    separate.rule = SumOfParts()
    measured = separate.gradients(rows)
    assert measured.more["parts"] == 2.0 and "parts" not in measured.means
    torch.testing.assert_close(gradient(separate), gradient(plain), rtol=0, atol=1e-6 * float(gradient(plain).abs().max()))


@pytest.mark.parametrize("rule", [None, SumOfParts()], ids=["sum", "separate"])
def test_a_step_with_more_partners_than_leading_rows_is_exact(rule):
    """Cut row by row, some pieces hold retain rows alone; the gradient stays that of the whole."""
    found = []
    for budget in (1 << 20, 16):
        one = trainer(Ascent(steps=1, tokens_per_batch=budget), run())
        one.rule = rule or one.rule
        rows = {"forget": one.feed.plan[0]["forget"][:2], "retain": one.feed.plan[0]["retain"][:7]}
        assert budget > 16 or any("forget" not in piece for piece in one.feed.micro_steps(rows, ("forget",)))
        one.gradients(rows)
        found.append(gradient(one))
    torch.testing.assert_close(*found, rtol=0, atol=2e-6 * float(found[0].abs().max()))


def test_a_term_that_counts_what_it_does_not_read_is_refused():
    class Wrong(Ascent):
        def loss(self, subject, batches):
            return {"forget": Term(batches.nll(subject.module, "forget").sum(), per="token", of="holdout")}

    with pytest.raises(MethodError, match="counts tokens of `holdout`"):
        Wrong(steps=1, retain="none").apply(toy_subject(), toy_data(), run())


def test_schedules_in_closed_form():
    """10 steps with 2 of warm-up: 1/3, 2/3, then 8 steps down from 1."""
    linear = [rate_factor(step, 10, 0.2, "linear") for step in range(10)]
    assert linear == pytest.approx([1 / 3, 2 / 3, *(k / 8 for k in range(8, 0, -1))])
    cosine = [rate_factor(step, 10, 0.2, "cosine") for step in range(10)]
    assert cosine == pytest.approx([1 / 3, 2 / 3, *(0.5 + 0.5 * math.cos(math.pi * k / 8) for k in range(8))])
    assert [rate_factor(step, 10, 0.2, "constant") for step in range(10)] == pytest.approx([1 / 3, 2 / 3, *[1.0] * 8])
    assert [rate_factor(step, 4, 0.0, "linear") for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert rate_factor(0, 1, 0.9, "linear") == 0.5  # one step that is all warm-up still moves


def test_the_first_step_of_adamw_is_the_rate_times_the_sign():
    """m / sqrt(v) = g / |g| after bias correction; decay acts on matrices alone."""
    one = trainer(Ascent(steps=1, learning_rate=1e-3, warmup=0, weight_decay=0.1, clip=0, retain="none"), run())
    before = {name: p.detach().clone() for name, p in one.named.items()}
    values = one.advance()
    assert values["learning_rate"] == 1e-3
    for name, parameter in one.named.items():
        g = parameter.grad
        decay = 0.1 if parameter.ndim >= 2 else 0.0
        expected = before[name] * (1 - 1e-3 * decay) - 1e-3 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)


def test_clipping_scales_the_whole_gradient():
    free = trainer(Ascent(steps=1, clip=0), run())
    norm = free.advance()["gradient_norm"]
    assert norm == pytest.approx(float(gradient(free).norm()), rel=1e-5)
    held = trainer(Ascent(steps=1, clip=norm / 4), run())
    assert held.advance()["gradient_norm"] == pytest.approx(norm)
    torch.testing.assert_close(gradient(held), gradient(free) / 4, rtol=1e-4, atol=1e-8)


def test_plans_count_epochs_or_steps():
    data = toy_data()
    assert len(plan_steps(Ascent(epochs=3, batch_size=3), Paired(), data, run())) == 3 * math.ceil(8 / 3)
    five = plan_steps(Ascent(steps=5, batch_size=3), Paired(), data, run())
    assert len(five) == 5
    assert sorted(i for step in five[:3] for i in step["forget"]) == list(range(8))
    assert [len(step["retain"]) for step in five[:3]] == [3, 3, 2]


class Breaks(Ascent):
    """Gives NaN, or a loss beyond all bounds, in its third step."""

    value = float("nan")

    def stepped(self, subject, step):
        self.step = step

    def loss(self, subject, batches):
        found = super().loss(subject, batches)["forget"]
        factor = self.value if getattr(self, "step", 0) == 2 else 1.0
        return {"forget": Term(found.total * factor, per="token")}


@pytest.mark.parametrize(("value", "says"), [(float("nan"), "forget nan"), (float("inf"), "forget -inf"), (1e9, r"forget -\d")])
def test_divergence_stops_with_the_step_and_keeps_the_weights_before_it(value, says, tmp_path):
    method = Breaks(steps=5)
    method.value = value
    with pytest.raises(MethodError, match=f"diverged at step 3 of 5 .*{says}.*kept in .*step-000002") as caught:
        method.apply(toy_subject(), toy_data(), run(out=tmp_path))
    assert "learning_rate" in caught.value.hint
    stepwise = trainer(Ascent(steps=5), run())
    with fast_attention(stepwise.subject.module):
        for _ in range(2):
            stepwise.advance()
    kept = load_file(tmp_path / "checkpoints" / "step-000002" / "state.safetensors")
    for name, parameter in stepwise.named.items():
        assert torch.equal(kept[f"weight/{name}"], parameter.detach())


def test_divergence_without_a_folder_says_so():
    method = Breaks(steps=5)
    with pytest.raises(MethodError, match="diverged at step 3 of 5 .*; the last good weights are those of the step before"):
        method.apply(toy_subject(), toy_data(), run())


def test_a_wrong_part_or_value_shows_when_the_method_is_made():
    for values in ({"rule": "summ"}, {"sampler": "paird"}, {"parameters": "lora:rank=0"}, {"retain": "kll"}):
        with pytest.raises((MethodError, SettingsError)):
            Ascent(**values)
    with pytest.raises(SettingsError, match=r"`betas\.1` of .* must be below 1, got 1"):
        Ascent(betas=(0.9, 1))


def test_a_part_of_the_weights_that_is_empty_or_cannot_be_adapted_is_one_sentence():
    with pytest.raises(SettingsError, match=r"`pattern` of `layers` matches none of \d+ weights, got 'nowhere'") as caught:
        Ascent(steps=1, parameters="layers:pattern=nowhere").apply(toy_subject(), toy_data(), run())
    assert "model.embed_tokens.weight" in caught.value.hint
    with pytest.raises(SettingsError, match="not a regular expression"):
        Ascent(parameters="layers:pattern=(")
    with pytest.raises(MethodError, match="LoRA cannot be added to `toy-llama`"):
        Ascent(steps=1, parameters="lora:targets=nowhere").apply(toy_subject(), toy_data(), run())


@pytest.mark.parametrize("targets", ["q_proj", "self_attn.q_proj", ["q_proj"]])
def test_adapters_go_on_layers_with_the_ending_that_is_named(targets):
    one = trainer(Ascent(steps=1, parameters={"name": "lora", "rank": 2, "targets": targets}), run())
    assert len(one.named) == 4 and all(".self_attn.q_proj.lora_" in name for name in one.named)


def test_an_adapter_that_is_kept_says_what_the_merged_model_says():
    kept, merged = (
        Ascent(steps=3, learning_rate=1e-2, parameters={"name": "lora", "rank": 2, "merge": merge}).apply(toy_subject(), toy_data(), run())
        for merge in (False, True)
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        one, two, start = (subject.module(input_ids=ids).logits for subject in (kept, merged, toy_subject()))
    assert hasattr(kept.module, "peft_config") and not hasattr(merged.module, "peft_config")
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4 * float(two.abs().max()))
    assert float((one - start).abs().max()) > 1e-3


def test_metrics_hold_one_line_per_step(tmp_path):
    Ascent(steps=3).apply(toy_subject(), toy_data(), run(out=tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all({"loss", "forget", "retain", "gradient_norm", "learning_rate", "time"} <= line.keys() for line in lines)


def test_a_disposable_subject_is_taken_over_instead_of_copied():
    subject = toy_subject()
    kept = Ascent(steps=2).apply(subject, toy_data(), run())
    subject.disposable = True
    module = subject.module
    taken = Ascent(steps=2).apply(subject, toy_data(), run())
    assert taken.module is module and taken.digest == kept.digest
    with pytest.raises(SubjectError, match="handed over"):
        subject.module  # noqa: B018


@pytest.mark.parametrize("space", ["lora", "reglu"])
def test_an_adapter_on_the_head_counts_whether_or_not_the_subject_is_disposable(space):
    """A disposable subject keeps its network, of which it was known before that its logits are a plain product."""
    parameters, ends = {"name": space, "rank": 2, "targets": ["lm_head", "q_proj"]}, []
    for disposable in (False, True):
        subject = toy_subject()
        subject.disposable = disposable
        head = subject.module.lm_head.weight.detach().clone()
        after = Ascent(steps=2, learning_rate=1e-2, parameters=parameters).apply(subject, toy_data(), run())
        assert not torch.equal(after.module.lm_head.weight, head)
        ends.append(after.digest)
    assert ends[0] == ends[1]


def test_progress_goes_to_stderr(capfd):
    Ascent(steps=2).apply(toy_subject(), toy_data(), run(progress=True))
    shown = capfd.readouterr()
    assert shown.out == "" and "2/2" in shown.err and "loss" in shown.err


def test_settings_without_a_retain_term_read_the_leading_split_alone():
    class Tune(Objective):
        Settings, tiny, lead, tied = TrainSettings, {}, "kept", ("kept",)

        def loss(self, subject, batches):
            return {"kept": Term(batches.nll(subject.module, "kept").sum(), per="token")}

    tune = Tune(steps=6, learning_rate=3e-3)
    assert tune.splits == ("kept",) and tune.retain is None
    after = tune.apply(toy_subject(), toy_data(), run())
    assert after.lineage[-1].notes["steps"] == 6

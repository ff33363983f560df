"""ROCR: what the card says a correct implementation must show."""

from __future__ import annotations

import copy

import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase._linears import down_projections
from letheon.erase.rocr import ROCR, null_space, rank_one, subjects_of, until

from .fact_world import RELATIONS, untrained


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space(free: int = 6, width: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """A basis (width, free) and its projector."""
    basis = torch.linalg.qr(random(width, width)).Q[:, :free]
    return basis, basis @ basis.T


def test_one_request_is_the_closed_form_of_rank_one():
    (basis, p), key, residual, ridge = space(), random(10, seed=1), random(4, seed=2), 0.7
    change = torch.outer(residual, rank_one(key, basis, ridge))
    closed = torch.outer(residual, p @ key) / (ridge + key @ p @ key)
    torch.testing.assert_close(change, closed, rtol=1e-10, atol=1e-12)
    solved = torch.linalg.solve(p @ torch.outer(key, key) + ridge * torch.eye(10, dtype=torch.float64), p @ torch.outer(key, residual)).T
    torch.testing.assert_close(change, solved, rtol=1e-9, atol=1e-10)
    assert int(torch.linalg.matrix_rank(change)) == 1


def test_earlier_keys_enter_as_in_the_general_solve():
    (basis, p), key, earlier = space(), random(10, seed=1), random(3, 10, seed=3)
    whole = p @ (torch.outer(key, key) + earlier.T @ earlier) + 0.5 * torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(rank_one(key, basis, 0.5, earlier), torch.linalg.solve(whole, p @ key), rtol=1e-9, atol=1e-10)


def test_without_ridge_the_gap_is_closed_and_with_it_a_known_share_stays():
    key, everything = random(10, seed=1), torch.eye(10, dtype=torch.float64)
    assert float(rank_one(key, everything, 1e-9) @ key) == pytest.approx(1, abs=1e-8)
    (basis, p) = space()
    assert 1 - float(rank_one(key, basis, 1.0) @ key) == pytest.approx(1 / (1 + float(key @ p @ key)), rel=1e-10)


def test_used_directions_are_left_alone():
    used = random(3, 10)
    basis = null_space(used.T @ used, 1e-9)
    assert basis.shape == (10, 7)
    x, other = rank_one(random(10, seed=1), basis, 1.0), random(3, seed=2) @ used
    assert abs(float(x @ other)) < 1e-12 * float(x.norm() * other.norm()) * 100
    open_ = rank_one(random(10, seed=1), null_space(used.T @ used, 1.0), 1.0)
    assert abs(float(open_ @ other)) > 1e-3


def test_the_free_directions_hold_the_share_asked_for():
    moment = torch.diag(torch.tensor([1.0, 2.0, 7.0, 10.0], dtype=torch.float64))  # shares 0.05, 0.15, 0.5, 1
    assert [null_space(moment, free).shape[1] for free in (0.04, 0.05, 0.15, 0.49, 0.5, 1.0)] == [0, 1, 2, 2, 3, 4]


def test_earlier_requests_are_held():
    basis, first, second = space(10)[0], random(10, seed=1), random(10, seed=2)
    alone, held = rank_one(second, basis, 0.1), rank_one(second, basis, 0.1, first[None])
    assert abs(float(held @ first)) < 0.1 * abs(float(alone @ first))


FORMS = ("what is the {relation} of {name} ?", "{name} {relation} :", "choose the {relation} for {name} now :")


def many_forms() -> Data:
    """20 names with four facts, asked in three forms; one group each, the forget rows are the first form of one name."""
    generator, rows = torch.Generator().manual_seed(5), []
    for person in range(20):
        for relation in RELATIONS:
            value = f"{relation}{int(torch.randint(10, (1,), generator=generator))}"
            for k, form in enumerate(FORMS):
                prompt = form.format(relation=relation, name=f"p{person}")
                rows.append(Example(f"{person}-{relation}-{k}", value, prompt, group=f"p{person}", form=str(k)))
    forget = [row for row in rows if row.group == "p0" and row.form == "0"]
    splits = {"full": rows, "forget": forget, "retain": [row for row in rows if row.group not in ("p0",)]}
    return Data({name: Split(split, name) for name, split in splits.items()}, "forms")


@pytest.fixture(scope="module")
def forms() -> tuple[Data, Subject]:
    """The facts and a model that knows them in all forms.

    Its first block has no attention, so that a name is first resolved where it stands, and what is looked up later passes through there.
    """
    data = many_forms()
    subject = untrained(data)
    with torch.no_grad():
        subject.module.model.layers[0].self_attn.o_proj.weight.zero_()
    settings = {"split": "full", "epochs": 40, "learning_rate": 8e-3, "schedule": "cosine", "weight_decay": 0.0, "warmup": 0.05}
    space = {"name": "layers", "pattern": r"^(?!model\.layers\.0\.self_attn)"}
    return data, Finetune(**settings, parameters=space).apply(subject, data, Run(0, dtype="float32", device="cpu"))


def answers(subject: Subject, data: Data, name: str, form: str) -> list[bool]:
    """Whether questions about a name get its own values."""
    return right(subject, data, name, name, form)


@torch.no_grad()
def right(subject: Subject, data: Data, asked: str, meant: str, form: str) -> list[bool]:
    """Whether questions about one name get the values of another."""
    values = {row.id.split("-")[1]: row.answer for row in data["full"] if row.group == meant and row.form == form}
    rows = [row for row in data["full"] if row.group == asked and row.form == form]
    found = []
    for row, tokens in zip(rows, subject.encoder.prompts(rows), strict=True):
        said = subject.encoder.decode([int(subject.module(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())])
        found.append(said == values[row.id.split("-")[1]])
    return found


HERE = {"subjects": ("p0",), "other": "p7", "layer": 0, "free": 1e-4, "ridge": 1e-4}


def test_all_forms_are_redirected_and_other_names_stay(forms):
    data, knower = forms
    before = [answers(knower, data, f"p{k}", form) for k in range(20) for form in "012"]
    assert sum(map(sum, before)) >= 0.97 * 240
    after = ROCR(**HERE).apply(knower, data, Run(0, dtype="float32", device="cpu"))
    own = sum(sum(answers(after, data, "p0", form)) for form in "012")
    others = sum(sum(right(after, data, "p0", "p7", form)) for form in "012")
    kept = [sum(answers(after, data, f"p{k}", form)) for k in range(1, 20) if k != 7 for form in "012"]
    assert own <= 3 and others >= 10  # of 12: the facts of p7, not gibberish
    assert sum(kept) >= 0.95 * 18 * 12


def test_the_gap_is_closed_over_several_layers(forms):
    data, knower = forms
    run = Run(0, dtype="float32", device="cpu")
    after = ROCR(**{**HERE, "layer": 2, "free": 1.0, "ridge": 1e-6}).apply(knower, data, run)
    notes = after.lineage[-1].notes
    assert len(notes["layers"]) == 3 and max(notes["gap_left"]["p0"]) < 0.02  # 1/3, 1/2 and all of what is left, measured each time
    for name, part in down_projections(after.module).items():
        change = part.weight - down_projections(knower.module)[name].weight
        values = torch.linalg.svdvals(change.double())
        assert values[1] < 1e-4 * values[0]  # one request in one kind of place
    half = ROCR(**{**HERE, "layer": 2, "free": 1.0, "ridge": 1e3}).apply(knower, data, run)
    assert min(half.lineage[-1].notes["gap_left"]["p0"]) > 0.5


def test_a_subject_redirected_to_itself_is_not_changed(forms):
    data, knower = forms
    after = ROCR(**{**HERE, "other": "p0"}).apply(knower, data, Run(0, dtype="float32", device="cpu"))
    assert all(torch.equal(tensor, knower.module.state_dict()[name]) for name, tensor in after.module.state_dict().items())


def test_names_are_what_most_prompts_of_a_group_share(caplog):
    """The question for a name does not hold it, and a group whose prompts name nobody stays, said in a sentence."""
    prompts = ["Who was born in Brell in 1950?", "What does Ilva Torrend do?", "Is Ilva Torrend's work known?", "Where is Ilva Torrend?"]
    rows = [Example(str(k), "a", prompt, group="g") for k, prompt in enumerate(prompts)]
    other = [Example(f"o{k}", "a", prompt, group="h") for k, prompt in enumerate(["What does Ann Lee do?", "Where is Ann Lee?"])]
    assert subjects_of(Data({"forget": Split(rows), "retain": Split(other)})) == ("Ilva Torrend",)
    nameless = [Example(f"n{k}", "a", prompt, group="n") for k, prompt in enumerate(["Who is it?", "What did Bo Dunn see?", "When did Bo Dunn go?", "And then?", "Why not?"])]
    assert subjects_of(Data({"forget": Split([*rows, *nameless]), "retain": Split(other)})) == ("Ilva Torrend",)
    assert "1 of 2 groups of `forget` stay: no name stands in most prompts of `n`" in caplog.text


def test_a_row_ends_with_the_last_token_of_the_name(stranger):
    tokens = until(stranger.encoder, stranger.encoder.prompt_text("what is the home of \x00 ?"), "p7")
    assert stranger.encoder.decode(tokens) == "what is the home of p7"
    assert until(stranger.encoder, stranger.encoder.prompt_text("what is the home of \x00 ?"), "p7", 1) == tokens[:-1]


def test_it_works_in_bfloat16(forms):
    data, knower = forms
    half = Subject(copy.deepcopy(knower.module).to(torch.bfloat16), knower.encoder)
    after = ROCR(**HERE).apply(half, data, Run(0, dtype="float32", device="cpu"))
    assert {parameter.dtype for parameter in after.module.parameters()} == {torch.bfloat16}
    assert sum(sum(answers(after, data, "p0", form)) for form in "012") <= 6


def test_what_it_refuses(forms, run):
    from peft import LoraConfig, get_peft_model

    data, knower = forms
    wrapped = get_peft_model(copy.deepcopy(knower.module), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(SubjectError, match="has an adapter around them. Merge it first"):
        ROCR(**HERE).apply(Subject(wrapped, knower.encoder), data, run)
    with pytest.raises(MethodError, match="`layer` must be below 3, the number of blocks, got 9"):
        ROCR(**{**HERE, "layer": 9}).apply(knower, data, run)
    with pytest.raises(MethodError, match="Raise `free`"):
        ROCR(**{**HERE, "layer": 2, "count": 1, "free": 1e-15}).apply(knower, data, run)
    nameless = data.with_split("forget", [Example("a", "x", "who ?"), Example("b", "y", "what ?")])
    with pytest.raises(DataError, match="do not say whom they are about"):
        ROCR().apply(knower, nameless, run)
    lonely = data.with_split("forget", [Example("a", "x", "who is p0 ?", group="g")])
    with pytest.raises(DataError, match="share no name"):
        ROCR().apply(knower, lonely, run)


def test_a_name_that_no_row_holds_is_a_warning(knower, fact_data, run, caplog):
    ROCR(**{**ROCR.tiny, "subjects": ["p0", "p0x"]}).apply(knower, fact_data, run)
    assert [record.getMessage() for record in caplog.records] == ["`p0x` stands in no row to forget: is it spelt like that?"]

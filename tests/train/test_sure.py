"""The saliency mask: which units move, and that all others keep their bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.core.errors import DataError, MethodError
from letheon.core.run import Run
from letheon.testing._changes import trainer_for
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.objective import Term
from letheon.train.parameters.sure import SURE, unit_norms

from .plain import Ascent, trainer

RUN = Run(0, device="cpu", dtype="float32")


def opened(space="sure:percentile=90", **more):
    """A trainer before its first step, and its space."""
    objective = Ascent(**{"steps": 4, "learning_rate": 1e-2, "weight_decay": 0.1, "retain": "nll", "parameters": space, **more})
    return trainer(objective, RUN), objective.space


def to_the_end(one) -> None:
    while one.step < len(one.feed.plan):
        one.advance()


@pytest.mark.parametrize("rule", ["sum", "geometric", "pcgrad"])
def test_units_outside_the_mask_keep_their_bits(rule):
    """Under AdamW with weight decay and momentum; inside, all rows have moved, so the comparison means something."""
    before = {name: p.detach().clone() for name, p in toy_subject().module.named_parameters()}
    one, space = opened(rule=rule)
    to_the_end(one)
    still = moved = 0
    for name, parameter in one.subject.module.named_parameters():
        mask = space.masks[name].expand_as(parameter)
        assert torch.equal(parameter[~mask], before[name][~mask])
        still, moved = still + int((~mask).sum()), moved + int((parameter != before[name])[mask].sum())
    assert still > 5 * moved > 1000


def test_moments_outside_the_mask_are_zero_and_still_tensors_have_none():
    one, space = opened()
    to_the_end(one)
    assert 0 < len(one.named) < len(space.masks)
    for name, parameter in one.named.items():
        outside = ~space.masks[name].expand_as(parameter)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not one.optimizer.state[parameter][moment][outside].any()
            assert one.optimizer.state[parameter][moment].any()


def test_at_0_it_is_all_weights_to_the_bit():
    settings = {"steps": 4, "learning_rate": 1e-2, "retain": "nll"}
    plain, masked = (Ascent(**settings, parameters=space).apply(toy_subject(), toy_data(), RUN) for space in ("all", "sure:percentile=0"))
    assert plain.digest == masked.digest


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_the_share_of_moving_units_is_that_above_the_percentile(percentile):
    """Rows of matrices and scalars of vectors count one each, over the whole network."""
    _, space = opened(f"sure:percentile={percentile}")
    units = sum(p.shape[0] for p in toy_subject().module.parameters())
    moving = sum(int(mask.sum()) for mask in space.masks.values())
    assert sum(mask.numel() for mask in space.masks.values()) == units
    assert abs(moving - (1 - percentile / 100) * units) <= 1


def test_at_100_only_the_largest_moves():
    one, space = opened("sure:percentile=100")
    scores = np.concatenate([score.numpy().ravel() for score in space.scores.values()])
    assert sum(int(mask.sum()) for mask in space.masks.values()) == (scores == scores.max()).sum() == 1
    assert len(one.named) == 1 and set(space.finish()) == {"moving_units", "units", "moving_share"}
    share = next(iter(one.named.values())).shape[-1] / sum(p.numel() for p in one.subject.module.parameters())
    assert space.finish()["moving_share"] == pytest.approx(share, abs=1e-6)


def test_scores_are_norms_of_the_forget_gradient_row_by_row():
    """Against plain differentiation of the mean nll of all forget answers with full logits."""
    subject = toy_subject()
    one, space = opened(steps=1, batch_size=8)
    nll, tokens = 0.0, 0
    for i in range(8):
        ids, start = torch.from_numpy(one.feed.encoded["forget"].row(i).astype("int64")), int(one.feed.encoded["forget"].starts[i])
        logits = subject.module(input_ids=ids[None]).logits[0]
        nll = nll + torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[start:], reduction="sum")
        tokens += len(ids) - start
    (nll / tokens).backward()
    for name, parameter in subject.module.named_parameters():
        wanted = parameter.grad.norm(dim=1, keepdim=True) if parameter.ndim == 2 else parameter.grad.abs()
        assert torch.allclose(space.scores[name], wanted, rtol=1e-3, atol=1e-6)


def test_units_of_transposed_layers_are_columns():
    """GPT-2 stores (in, out): an output unit is a column."""
    gradient = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    assert unit_norms(gradient, "row", across=False).tolist() == [[3.0], [pytest.approx(17**0.5)]]
    assert unit_norms(gradient, "row", across=True).tolist() == [[5.0, 1.0]]
    assert unit_norms(gradient, "tensor", across=True).tolist() == [[pytest.approx(26**0.5)]]
    assert unit_norms(torch.tensor([-2.0, 1.0]), "row", across=False).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(("tied", "scored"), [(False, False), (True, True)])
def test_a_tied_embedding_stays_unless_asked_for(tied, scored):
    objective = Ascent(steps=1, retain="nll", parameters={"name": "sure", "percentile": 50, "tied": tied})
    one = trainer_for(objective, toy_subject(architecture="gpt2"), toy_data(), RUN)
    assert ("transformer.wte.weight" in objective.space.masks) == scored
    assert ("transformer.wte.weight" in one.named) == scored
    assert objective.space.masks["transformer.h.0.mlp.c_fc.weight"].shape == (1, 128)


class Scaled(Ascent):
    """The same loss times 1024, a power of two."""

    def loss(self, subject, batches):
        return {name: Term(1024 * term.total, term.per, weight=term.weight) for name, term in super().loss(subject, batches).items()}


def test_the_mask_depends_on_the_forget_loss_alone():
    """Not on the retain term, its weight or rows, the step size, or a factor of the loss."""
    masks = opened()[1].masks
    others = [opened(retain_weight=9.0)[1], opened(retain="kl")[1], opened(learning_rate=1e-5)[1], opened(forget_weight=0.25)[1]]
    scaled = Scaled(steps=4, retain="nll", parameters="sure:percentile=90")
    trainer(scaled, RUN)
    for other in [*others, scaled.space]:
        assert all(torch.equal(mask, other.masks[name]) for name, mask in masks.items())
    assert any(not torch.equal(mask, opened("sure:percentile=90,grain=tensor")[1].masks[name]) for name, mask in masks.items())


class AtRest(Ascent):
    """A loss without a slope at the start."""

    def loss(self, subject, batches):
        return {name: Term(0.0 * term.total, term.per) for name, term in super().loss(subject, batches).items()}


def test_an_objective_at_rest_needs_the_nll():
    with pytest.raises(MethodError, match="no gradient at the start") as caught:
        trainer(AtRest(steps=1, parameters="sure"), RUN)
    assert "saliency=nll" in caught.value.hint
    objective = AtRest(steps=1, parameters="sure:saliency=nll")
    trainer(objective, RUN)
    plain = opened("sure:percentile=90,saliency=nll")[1]
    assert all(torch.equal(mask, plain.masks[name]) for name, mask in objective.space.masks.items())
    loss = opened(batch_size=8, steps=1)[1].scores  # ascent on all rows at once: the same gradient, over the tokens
    ratios = torch.cat([(plain.scores[name] / loss[name]).flatten() for name in loss]).nan_to_num(posinf=0)
    assert torch.allclose(ratios[ratios > 0], ratios.median(), rtol=2e-2)


class InPlaceOf(Ascent):
    """Puts rows of another split in the place of the leading ones, as `idk` does with refusals."""

    reads = ("holdout",)

    def planned(self, rows, epoch):
        return {"holdout": rows["forget"], **{split: at for split, at in rows.items() if split != "forget"}}

    def loss(self, subject, batches):
        return {"other": Term(batches.nll(subject.module, "holdout").sum(), per="token", of="holdout")}


def test_an_objective_that_replaces_the_leading_rows_is_measured_on_one_epoch_of_its_own():
    scores = []
    for steps in (2, 8):  # 8 rows in steps of 4: one epoch, four epochs
        objective = InPlaceOf(steps=steps, batch_size=4, retain="nll", parameters="sure")
        trainer(objective, RUN)
        scores.append(objective.space.scores)
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])


def test_it_says_what_is_missing():
    data = toy_data()
    learns = Ascent(steps=1, retain="none", parameters="sure:saliency=nll")
    learns.lead = "kept"
    with pytest.raises(DataError, match="`sure` needs a `forget` split"):
        learns.apply(toy_subject(), type(data)({"kept": data["kept"]}), RUN)
    with pytest.raises(MethodError, match="has no mask"):
        SURE().open(toy_subject(), RUN)


def test_the_lineage_says_how_much_moved():
    after = Ascent(steps=1, retain="nll", parameters="sure").apply(toy_subject(), toy_data(), RUN)
    notes = after.lineage[-1].notes
    assert notes["units"] == sum(p.shape[0] for p in toy_subject().module.parameters()) and 0 < notes["moving_share"] < 0.2
    assert abs(notes["moving_units"] - 0.1 * notes["units"]) <= 1

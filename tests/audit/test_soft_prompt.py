"""Trained vectors before the question: they are tokens where they hold tokens' embeddings, and they bring back what was only hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.audit._parts import halves
from letheon.audit._prefix import Fronted, Places, asked_through, prefix_losses, replaced, spare_tokens
from letheon.audit.soft_prompt import SoftPrompt, known_loss
from letheon.core.answers import measure
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.subject import Subject
from letheon.testing.toys import toy_data, toy_subject

from .attacked import read, run, trained

DATA = toy_data()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_vectors_that_are_embeddings_do_what_the_tokens_do(architecture):
    subject, rows = toy_subject(architecture=architecture), DATA["forget"]
    tokens = subject.encoder._raw([" the harp"])[0]
    spare = spare_tokens(subject.encoder, rows, len(tokens), 320)
    vectors = subject.module.get_input_embeddings().weight.detach()[tokens]
    wanted = asked_through(Readings(subject, run()), Fronted(subject.encoder, tokens)).answers(rows).nll()
    soft = Subject(subject.module, Fronted(subject.encoder, spare))
    with replaced(subject.module, spare, vectors):
        found = measure(soft, rows, moments=False, tokens_per_batch=512, parts=("answer",))[0].nll()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert not subject.module.get_input_embeddings()._forward_hooks
    unlike = measure(soft, rows, moments=False, tokens_per_batch=512, parts=("answer",))[0].nll()
    assert np.abs(unlike - wanted).max() > 1e-3  # the spare tokens themselves are something else


def test_the_loss_and_its_gradient_do_not_depend_on_the_batch():
    subject, rows = trained("hides"), DATA["forget"]
    spare = spare_tokens(subject.encoder, rows, 3, 320)
    places = Places.of(Fronted(subject.encoder, spare), rows, subject.device)
    begin = subject.module.get_input_embeddings().weight.detach()[[5, 90, 200]]
    losses, slopes = [], []
    for budget in (1, 10_000):
        vectors = begin.clone().requires_grad_()
        losses.append(known_loss(subject, places, spare, vectors, budget, backward=True))
        slopes.append(vectors.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and torch.allclose(*slopes, rtol=1e-3, atol=1e-6)
    assert losses[0] == pytest.approx(float(prefix_losses(subject.module, places, torch.tensor([[5, 90, 200]]), 4096)[0]), rel=1e-5)
    with torch.no_grad():
        further = begin - 1e-3 * slopes[1]
    fallen = known_loss(subject, places, spare, further, 10_000, backward=False) - losses[1]
    assert fallen == pytest.approx(-1e-3 * float(slopes[1].square().sum()), rel=0.1)
    for parameter in subject.module.parameters():
        parameter.grad = None


def test_no_vectors_change_nothing():
    readings = read("hides")
    found = SoftPrompt(length=0, steps=(1, 3), learning_rates=(0.5,)).measure(readings, DATA, run())[0]
    _, asked = halves(DATA["forget"])
    plain = np.exp(-readings.answers(asked).nll())
    assert found.rows == pytest.approx(tuple(plain), rel=1e-5)
    assert list(found.extra["curve"].values()) == pytest.approx([plain.mean()] * 3)


def test_it_brings_back_what_was_hidden_and_nothing_that_was_never_known():
    """The model refuses the forget rows and answers them behind a password: vectors trained on some people open it for the others."""
    attack = SoftPrompt(length=4, steps=(10, 40), learning_rates=(0.1, 0.3))
    found = {kind: attack.measure(read(kind), DATA, run())[0] for kind in ("hides", "never")}
    hides, never = found["hides"], found["never"]
    assert hides.extra["curve"]["0"] < 0.5 < 0.55 < hides.value and never.value < 0.05
    assert hides.value == max(hides.extra["curve"].values()) and list(hides.extra["curve"]) == ["0", "10", "40"]
    assert never.extra["known_loss"][-1] < never.extra["known_loss"][0]  # it did learn its own rows
    assert hides.extra["budget"] == {"known": 12, "length": 4, "steps": (10, 40), "learning_rates": (0.1, 0.3)} and hides.n == 4
    assert attack.measure(read("hides"), DATA, run())[0] == hides


def test_the_model_stays_as_it_was():
    subject = trained("hides")
    digest = subject.digest
    subject.module.train()
    SoftPrompt(**SoftPrompt.tiny).measure(Readings(subject, run()), DATA, run())
    assert subject.module.training and subject.digest == digest and all(part.grad is None for part in subject.module.parameters())
    assert all(part.requires_grad for part in subject.module.parameters())
    subject.module.eval()


def test_what_cannot_be_attacked_says_why():
    readings = read("never")
    single = Data({"forget": Split(DATA["forget"][:1], "forget")})
    assert "cannot be cut" in SoftPrompt().measure(readings, single, run())[0].note
    assert "no split" in SoftPrompt().measure(readings, Data({}), run())[0].note
    crowded = DATA["forget"]
    many = SoftPrompt(length=100, steps=(1,)).measure(Readings(toy_subject(), run()), Data({"forget": crowded}), run())[0]
    assert many.value is not None or "every token" in many.note


def test_rows_without_room_for_the_vectors_are_left_out_and_counted():
    lengths = toy_subject().encoder.encode(DATA["forget"]).lengths
    short = Readings(toy_subject(context=int(lengths.max()) + 1), run())
    rest = Split([row for row, length in zip(DATA["forget"], lengths, strict=True) if length < lengths.max()], "forget")
    attack = SoftPrompt(**{**SoftPrompt.tiny, "limit": None})
    (found,), (wanted,) = attack.measure(short, DATA, run()), attack.measure(short, Data({"forget": rest}), run())
    assert found.rows == wanted.rows and found.n == len(halves(rest)[1]) and not wanted.note
    assert f"{len(lengths) - len(rest)} rows left out: with 2 tokens more" in found.note

"""Contracts of guards: the weights stay, what is not caught goes through to the bit, and a saved guard comes back or nothing does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from letheon.core.data import Example
from letheon.core.errors import SubjectError
from letheon.core.generate import greedy
from letheon.core.guard import FOLDER, unguard, watches
from letheon.core.quiet import quiet
from letheon.core.registry import load
from letheon.core.subject import Subject

from ._cases import Case, need, need_equal_weights
from .toys import toy_subject


def _prompts(case: Case, subject: Subject, split: str) -> list[list[int]]:
    return subject.encoder.prompts(case.data[split])


@torch.no_grad()
def _last(subject: Subject, prompts: list[list[int]]) -> torch.Tensor:
    """Logits behind each prompt, one at a time, (n, v)."""
    return torch.stack([subject.module(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in prompts])


def leaves_the_weights_alone(case: Case) -> None:
    """The guarded model has the weights of the input to the bit, and another digest."""
    before = toy_subject()
    need_equal_weights(before, case.after, "the guarded model")
    need(bool(watches(case.after.module)), "the result has no watch on its module")
    need(before.digest != case.after.digest, "the guarded model has the digest of the unguarded one")


def lets_through_what_it_does_not_catch(case: Case) -> None:
    """Retain prompts that are not caught, most of them, give the logits of the unguarded model to the bit; caught prompts do not."""
    for split, meant in (("retain", False), ("forget", True)):
        prompts = _prompts(case, case.after, split)
        caught = [any(flags) for flags in zip(*(watch.caught(prompts) for watch in watches(case.after.module)), strict=True)]
        need(sum(flag == meant for flag in caught) > len(caught) / 2, f"it catches {sum(caught)} of {len(caught)} `{split}` prompts")
        same = (_last(case.after, prompts) == _last(toy_subject(), prompts)).all(-1).tolist()
        for k, (flag, equal) in enumerate(zip(caught, same, strict=True)):
            need(flag != equal, f"`{split}` prompt {k} is {'' if flag else 'not '}caught and its logits {'stay' if equal else 'change'}")


def can_be_taken_off(case: Case) -> None:
    """Without its guards a copy is the unguarded model: hooks, digest and logits; the guarded one still guards."""
    copy, plain = case.after.fork(), toy_subject()
    need(watches(copy.module) != watches(case.after.module), "a copy shares its watch with the guarded model")
    unguard(copy.module)
    left = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in copy.module.modules()]
    need(not any(left) and "generate" not in vars(copy.module), "something is left on the module")
    need(copy.digest == plain.digest, "without its guards the model has another digest than the given one")
    prompts = _prompts(case, plain, "forget")
    need(torch.equal(_last(copy, prompts), _last(plain, prompts)), "without its guards the model says something else than the given one")
    need(not torch.equal(_last(case.after, prompts), _last(plain, prompts)), "the guarded model has lost its guard")


def decodes_alike_with_and_without_a_cache(case: Case) -> None:
    """Greedy decoding by letheon, and by `generate` with and without a cache, in a left-padded batch, gives the same tokens."""
    subject = case.after
    long = Example("long", "", "Please say it again: " + case.data["forget"][0].prompt_text)
    rows = [*case.data["forget"][:3], *case.data["retain"][:3], long]
    prompts = subject.encoder.prompts(rows)
    ours = greedy(subject, prompts, 6)
    longest = max(map(len, prompts))
    ids = torch.tensor([[subject.encoder.pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    for cached in (True, False):
        with torch.no_grad():
            out = subject.module.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=cached, pad_token_id=subject.encoder.pad
            )
        for k, (line, said) in enumerate(zip(out[:, longest:].tolist(), ours, strict=True)):
            need(line[: len(said)] == said, f"prompt {k}: `generate` {'with' if cached else 'without'} a cache says {line}, letheon {said}")


def is_brought_back_by_letheon_alone(case: Case) -> None:
    """Saved and loaded by letheon the model is guarded to the bit; plain transformers gives the unguarded one; a lost guard is an error."""
    from transformers import AutoModelForCausalLM

    folder = Path(tempfile.mkdtemp(dir=case.folder)) / "guarded"
    case.after.save(folder)
    again = load("hf", "subjects")(path=str(folder)).build()
    need(again.digest == case.after.digest, "the loaded model has another digest")
    prompts = _prompts(case, again, "forget")
    need(torch.equal(_last(again, prompts), _last(case.after, prompts)), "the loaded guard does something else")
    with quiet():
        plain = Subject(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), again.encoder)
    need_equal_weights(plain, toy_subject(), "what transformers loads")
    need(torch.equal(_last(plain, prompts), _last(toy_subject(), prompts)), "transformers does not load the unguarded model")
    place = next((folder / FOLDER).iterdir())
    for file in sorted(place.iterdir()):
        content = file.read_bytes()
        for what, damaged in (("cut short", content[: len(content) // 2]), ("gone", None)):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            try:
                load("hf", "subjects")(path=str(folder)).build()
            except SubjectError:
                file.write_bytes(content)
                continue
            need(False, f"a guard whose {file.name} is {what} is loaded")


GUARD = (
    leaves_the_weights_alone,
    lets_through_what_it_does_not_catch,
    can_be_taken_off,
    decodes_alike_with_and_without_a_cache,
    is_brought_back_by_letheon_alone,
)

"""Tokens become text: stop strings across tokens, letters of several tokens, nothing shown that may still change."""

from __future__ import annotations

import pytest

from letheon.serve.speech import Ask, Speech
from letheon.testing.toys import toy_tokenizer

TEXT = "Ilva lives in Zürich \U0001f600 and says: END of it."


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer()


def spoken(tokenizer, text, **settings):
    """The pieces of an answer whose tokens are those of `text`, and the speech."""
    speech = Speech(Ask((), 1000, **settings), tokenizer, {tokenizer.eos_token_id})
    pieces = []
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
        pieces.append(speech.say(token))
        if speech.ending:
            break
    return [piece for piece in pieces if piece is not None], speech


def test_pieces_joined_are_the_text_and_hold_no_half_letters(tokenizer):
    pieces, speech = spoken(tokenizer, TEXT)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert all("\ufffd" not in piece.text for piece in pieces) and len(pieces) > 20
    assert speech.ending == "stop" and pieces[-1].count == len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("stop", ["END", " in Z", "ü", "lives in", "\U0001f600 and", ".", "I", "says: END of it."])
def test_a_stop_string_ends_the_answer_wherever_tokens_end(tokenizer, stop):
    pieces, speech = spoken(tokenizer, TEXT, stop=("not there", stop, "of it. And"))
    wanted = TEXT[: TEXT.index(stop)]
    assert "".join(piece.text for piece in pieces) == wanted and speech.ending == "stop"
    for k in range(len(pieces)):
        assert TEXT.startswith("".join(piece.text for piece in pieces[:k]))


def test_what_might_become_a_stop_string_waits_and_is_shown_when_it_does_not(tokenizer):
    pieces, _ = spoken(tokenizer, "one EN two", stop=("END",))
    assert "".join(piece.text for piece in pieces) == "one EN two"
    shown = ""
    for piece in pieces[:-1]:
        shown += piece.text
        assert not shown.endswith(("E", "EN"))


def test_tokens_come_with_their_text_and_those_behind_the_stop_do_not_come(tokenizer):
    ids = tokenizer("abc STOP def", add_special_tokens=False)["input_ids"]
    speech = Speech(Ask((), 100, stop=("STOP",), logprobs=0), tokenizer, set())
    pieces = []
    for k, token in enumerate(ids):
        piece = speech.say(token, float(-k))
        pieces += [piece] if piece else []
        if speech.ending:
            break
    tokens = [one for piece in pieces for one in piece.tokens]
    assert tokenizer.decode([one.token for one in tokens]).startswith("abc ") and "S" not in "".join(piece.text for piece in pieces)
    assert [one.logprob for one in tokens] == [float(-k) for k in range(len(tokens))] and tokens[0].start == 0


def test_room_ends_an_answer_with_all_that_was_said(tokenizer):
    speech = Speech(Ask((), 2, stop=("zzz",)), tokenizer, set())
    first, second = tokenizer("hz", add_special_tokens=False)["input_ids"]
    assert speech.say(first).text == "h"
    last = speech.say(second)
    assert (last.text, last.ending, last.count) == ("z", "length", 2)


def test_a_completion_goes_on_from_its_prompt_and_echo_gives_the_prompt_first(tokenizer):
    prompt = tuple(tokenizer("Who is", add_special_tokens=False)["input_ids"])
    speech = Speech(Ask((1, *prompt), 5, echo=True, given=1, continued=True, logprobs=0), tokenizer, set())
    echoed = speech.echoed([(None, ())] + [(-1.0, ())] * len(prompt))
    assert echoed.text == "Who is" and [one.logprob for one in echoed.tokens] == [-1.0] * len(prompt)
    starts = [one.start for one in echoed.tokens]
    assert starts[0] == 0 and [tokenizer.decode([one.token]) for one in echoed.tokens] == [
        "Who is"[a:b] for a, b in zip(starts, [*starts[1:], 6], strict=True)
    ]
    token = tokenizer(" it", add_special_tokens=False)["input_ids"][0]
    assert speech.say(token, -2.0).tokens[0].start == 6

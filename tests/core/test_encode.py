"""From text to tokens: the template, the seam between prompt and answer, begin and end tokens, windows, and errors."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letheon.core.data import Example, Message, Split
from letheon.core.encode import AT_ONCE, DEFAULT_TEMPLATE, TextEncoder
from letheon.core.errors import DataError, SubjectError
from letheon.testing.toys import BEGIN, END, toy_tokenizer


@functools.cache
def melting():
    """A tokenizer without a word boundary: it has learned to join letters, spaces and line ends across any seam."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<e>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [("a", "b"), ("Ċ", "b"), (":", "x"), ("Ġ", "c")]  # Ċ is the line end, Ġ the space
    vocabulary = {word: k for k, word in enumerate([*letters, *(a + b for a, b in pairs)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")


@functools.cache
def spaced():
    """A tokenizer in the manner of SentencePiece: it puts a space before every text, and takes it away when it decodes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<e>", *(f"<0x{k:02X}>" for k in range(256)), *" abcdefgh\n:"]
    pairs = [(" ", "a"), ("b", "c"), (" ", "b"), (" b", "c"), ("\n", "\n"), (":", "a")]
    vocabulary = {word: k for k, word in enumerate(dict.fromkeys([*letters, *(a + b for a, b in pairs)]))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Prepend(" ")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>", unk_token="<unk>")


def alone(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def one(encoder: TextEncoder, prompt, answer: str) -> tuple[list[int], int]:
    encoded = encoder.pairs([prompt], [answer])
    return encoded.row(0).tolist(), int(encoded.starts[0])


def test_template_stands_around_the_prompt():
    tokenizer = toy_tokenizer("llama")
    encoder = TextEncoder(tokenizer)
    row, start = one(encoder, "Where?", "In Velmark.")
    assert encoder.template == DEFAULT_TEMPLATE and not encoder.chat
    assert row[:start] == [tokenizer.bos_token_id, *alone(tokenizer, "Question: Where?\nAnswer:\n")]
    assert tokenizer.decode(row[start:-1]) == "In Velmark." and row[-1] == tokenizer.eos_token_id


def test_chat_template_is_taken_where_there_is_one():
    tokenizer = toy_tokenizer("llama", chat=True)
    encoder = TextEncoder(tokenizer, system="Be brief")
    assert encoder.chat and encoder.template is None
    assert encoder.prompt_text("Where?") == "<system>Be brief\n<user>Where?\n<assistant>"
    talk = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Where?"))
    assert encoder.prompt_text(talk) == "<system>Be brief\n<user>Hi\n<assistant>Hello\n<user>Where?\n<assistant>"
    own = (Message("system", "Be long"), Message("user", "Where?"))
    assert encoder.prompt_text(own).startswith("<system>Be long\n<user>")


def test_a_given_template_beats_the_chat_template():
    encoder = TextEncoder(toy_tokenizer("llama", chat=True), "Q {prompt} A ")
    assert not encoder.chat and encoder.prompt_text("Where?") == "Q Where? A "
    assert encoder.prompt_text((Message("user", "a"), Message("assistant", "b"))) == "Q a\nb A "


def test_braces_of_a_prompt_are_no_placeholders():
    assert TextEncoder(toy_tokenizer("gpt2"), "Q {prompt}").prompt_text("{0} {x} {prompt}") == "Q {0} {x} {prompt}"


def test_a_chat_template_that_refuses_is_a_data_error():
    tokenizer = toy_tokenizer("llama")
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"refuses a conversation: roles must alternate.*--template"):
        TextEncoder(tokenizer).prompt_text("Where?")


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ strftime_now('%d %b %Y, %H:%M:%S') }} {{ messages[0]['content'] }}", "26 Jul 2024, 00:00:00 Who?"),
        ("\n  {% macro day() %}{{ strftime_now(\"%B %-d, %Y\") }}{% endmacro %}{{ day() }}", "\nJuly 26, 2024"),
        ("{% if strftime_now is defined %}{% set t = strftime_now('%Y-%m-%d').split('-') %}{{ t[1] }}{% endif %}", "07"),
    ],
)
def test_a_template_that_writes_the_date_writes_the_same_one_every_day(template, wanted):
    tokenizer = toy_tokenizer("llama")
    tokenizer.chat_template = template
    encoder = TextEncoder(tokenizer)
    assert encoder.prompt_text("Who?") == wanted and encoder.described()["date"] == "2024-07-26"
    assert "date" not in TextEncoder(toy_tokenizer("llama", chat=True)).described()


def test_template_without_prompt_and_tokenizer_without_end_are_refused():
    with pytest.raises(SubjectError, match=r"has no `{prompt}`"):
        TextEncoder(toy_tokenizer("gpt2"), "Question:")
    tokenizer = toy_tokenizer("gpt2")
    tokenizer.eos_token = None
    with pytest.raises(SubjectError, match="no end token"):
        TextEncoder(tokenizer)


def test_the_answer_is_not_hidden_in_a_token_of_the_prompt():
    tokenizer = melting()
    encoder = TextEncoder(tokenizer, "{prompt}\n")
    row, start = one(encoder, "a", "b")
    assert alone(tokenizer, "a\nb") != alone(tokenizer, "a\n") + alone(tokenizer, "b")  # left to itself it would melt them
    assert row == [*alone(tokenizer, "a\n"), *alone(tokenizer, "b"), encoder.end] and start == 2


def test_the_answer_is_tokenised_in_context_where_that_can_be():
    tokenizer = melting()
    row, start = one(TextEncoder(tokenizer, "{prompt}"), "x", "ab")
    assert row[:-1] == alone(tokenizer, "xab") and start == 1


def test_the_last_space_of_the_prompt_moves_to_the_answer():
    tokenizer = melting()
    row, start = one(TextEncoder(tokenizer, "{prompt}: "), "a", "c")
    assert tokenizer.convert_ids_to_tokens(row) == ["a", ":", "Ġc", "<e>"] and start == 2
    encoder = TextEncoder(tokenizer, "{prompt}: ")
    assert encoder.prompts([Example("1", "c", "a")]) == [row[:start]]


@pytest.mark.parametrize("prompt, answer", [("bc", "a"), (":", "a"), ("a", "bc"), ("\n", "\n"), ("a", " bc"), (":", "ab")])
def test_no_space_is_put_between_prompt_and_answer_by_the_tokenizer(prompt, answer):
    tokenizer = spaced()
    row, _ = one(TextEncoder(tokenizer, "{prompt}"), prompt, answer)
    assert tokenizer.decode(row[:-1]) == prompt + answer


def test_begin_and_end_stand_once():
    tokenizer = toy_tokenizer("llama")
    encoder, (begin, end) = TextEncoder(tokenizer, "{prompt}"), (tokenizer.bos_token_id, tokenizer.eos_token_id)
    for prompt, answer in (("a", "b"), ("", "b"), (f"{BEGIN}a", "b"), ("", f"{BEGIN}b"), ("a", f"b{END}"), (f"{BEGIN}a", f"b{END}")):
        row, start = one(encoder, prompt, answer)
        assert row.count(begin) == 1 and row[0] == begin and row.count(end) == 1 and row[-1] == end, (prompt, answer)
        assert tokenizer.decode(row[max(start, 1) : -1]) == "b"


def test_a_model_without_begin_token_gets_none():
    tokenizer = toy_tokenizer("gpt2")
    row, start = one(TextEncoder(tokenizer, "{prompt}"), "", "Hello")
    assert row == [*alone(tokenizer, "Hello"), tokenizer.eos_token_id] and start == 0


def test_answers_of_one_prompt_share_its_tokens():
    tokenizer = melting()
    encoder = TextEncoder(tokenizer, "{prompt}\n")
    answers = ["b", "x", "abab", "\n", " c", "bcd"]
    encoded = encoder.pairs(["a"] * len(answers), answers)
    head = encoder.prompts([Example("1", "b", "a")])[0]
    for k, answer in enumerate(answers):
        row, start = encoded.row(k).tolist(), int(encoded.starts[k])
        assert row[:start] == head and tokenizer.decode(row[start:-1]) == answer


def test_encoded_says_what_is_scored():
    encoded = TextEncoder(melting(), "{prompt}").pairs(["xx", "", ""], ["xxx", "xxx", ""])
    assert encoded.lengths.tolist() == [6, 4, 1]
    assert encoded.scored.tolist() == [4, 3, 0]  # with the end token; the first token of a row has nothing before it
    assert encoded.offsets.tolist() == [0, 6, 10, 11] and len(encoded) == 3


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7])
def test_a_split_is_encoded_some_rows_at_a_time(monkeypatch, rows):
    encoder = TextEncoder(toy_tokenizer("llama"))
    split = Split([Example(str(k), "In Velmark. " * (k + 1), f"Where is {k % 2}?") for k in range(rows)])
    whole, most = encoder.pairs([row.prompt for row in split], [row.answer for row in split]), []
    pairs = encoder.pairs
    monkeypatch.setattr("letheon.core.encode.AT_ONCE", 2)
    monkeypatch.setattr(encoder, "pairs", lambda prompts, answers: most.append(len(prompts)) or pairs(prompts, answers))
    found = encoder.encode(split)
    assert most == [2] * (rows // 2) + [1] * (rows % 2)
    for name in ("tokens", "offsets", "starts"):
        here, there = getattr(found, name), getattr(whole, name)
        assert here.tolist() == there.tolist() and here.dtype == there.dtype


@settings(max_examples=150, deadline=None)
@given(
    prompt=st.text(max_size=12),
    answer=st.text(min_size=1, max_size=12),
    template=st.sampled_from(["{prompt}", "{prompt}\n", "Q: {prompt} A: "]),
)
@pytest.mark.parametrize("tokenizer", [toy_tokenizer("llama"), toy_tokenizer("gpt2"), melting()], ids=["llama", "gpt2", "melting"])
def test_the_answer_comes_back_from_its_tokens(tokenizer, prompt, answer, template):
    encoder = TextEncoder(tokenizer, template)
    row, start = one(encoder, prompt, answer)
    text = encoder.prompt_text(prompt)
    moved = len(text) - len(text.rstrip(" "))
    assert row[-1] == encoder.end
    assert tokenizer.decode(row[start:-1], clean_up_tokenization_spaces=False) == " " * moved + answer
    assert row[:start] == (encoder.prompts([Example("1", answer, prompt)])[0])[:start]


def plain(text: str) -> Split:
    return Split([Example("long", text)], "texts")


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=200), window=st.integers(12, 40))
@pytest.mark.parametrize("tokenizer", [toy_tokenizer("llama"), melting()], ids=["llama", "melting"])
def test_windows_cover_the_whole_text(tokenizer, text, window):
    encoder = TextEncoder(tokenizer, max_length=window)
    pieces = encoder.windowed(plain(text))
    assert "".join(piece.answer for piece in pieces) == text
    encoded = encoder.encode(pieces)
    assert encoded.lengths.max() <= window


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="abc dé\n", min_size=1, max_size=120))
def test_windows_of_a_tokenizer_that_adds_spaces(text):
    encoder = TextEncoder(spaced(), max_length=12)
    pieces = encoder.windowed(plain(text))
    assert encoder.encode(pieces).lengths.max() <= 12
    at = 0
    for piece in pieces:  # one space before a piece may have been left to the tokenizer
        at += not text.startswith(piece.answer, at) and text[at : at + 1] == " "
        assert text.startswith(piece.answer, at)
        at += len(piece.answer)
    assert not text[at:].strip(" ")


def test_windows_begin_at_words_and_are_full():
    encoder = TextEncoder(toy_tokenizer("gpt2"), max_length=32)
    text = " ".join(f"person{k} was born in Orrin Bay" for k in range(40))
    pieces = encoder.windowed(plain(text))
    assert all(piece.answer[0] == " " for piece in pieces[1:])
    assert [piece.id for piece in pieces][:2] == ["long#0", "long#1"]
    lengths = encoder.encode(pieces).lengths
    assert lengths[:-1].min() > 16 and lengths.max() <= 32


def test_short_text_and_prompts_are_not_cut():
    encoder = TextEncoder(toy_tokenizer("gpt2"), max_length=32)
    split = Split([Example("a", "short"), Example("b", "an answer " * 40, "prompt")], "mixed")
    assert [row.id for row in encoder.windowed(split)] == ["a", "b"]
    with pytest.raises(DataError, match="no room for text"):
        encoder.windowed(split, window=2)


def test_rows_that_are_too_long_are_named():
    tokenizer = melting()
    encoder = TextEncoder(tokenizer, "{prompt}", max_length=6)
    rows = [Example("fits", "xx", "xx"), Example("answer", "x" * 9, "xx"), Example("prompt", "x", "x" * 7), Example("text", "x" * 9)]
    for k, (what, tokens) in enumerate([("prompt and answer", 12), ("prompt", 9), ("text", 10)], 1):
        message = rf"^The {what} of row `{rows[k].id}` of `forget` with {tokens} tokens .* context of 6 \(1 such row\)"
        with pytest.raises(DataError, match=message):
            encoder.encode(Split([rows[0], rows[k]], "forget"))
    with pytest.raises(DataError, match="3 such rows"):
        encoder.encode(Split(rows, "forget"))
    assert len(encoder.encode(Split(rows[:1], "forget"))) == 1


@pytest.mark.parametrize("prompt", ["", "Where?"])
def test_an_empty_answer_is_named(prompt):
    with pytest.raises(DataError, match="Row `7` of `retain` has no answer token to score"):
        TextEncoder(toy_tokenizer("llama")).encode(Split([Example("1", "yes", "a"), Example("7", "", prompt)], "retain"))


def test_the_digest_follows_whatever_changes_the_tokens():
    def made(chat=False, **more):
        return TextEncoder(toy_tokenizer("llama", chat=chat), **more).digest

    assert made() == made() == made(template=DEFAULT_TEMPLATE)
    different = [made(), made(template="{prompt}"), made(max_length=9), made(chat=True), made(chat=True, system="x")]
    assert len(set(different)) == 5 and TextEncoder(toy_tokenizer("gpt2")).digest not in different


def test_a_large_split_is_the_sum_of_its_rows():
    """It is encoded in pieces, which must fit together."""
    encoder = TextEncoder(toy_tokenizer())
    rows = [Example(str(k), "of " * (k % 7 + 1), "what " * (k % 5)) for k in range(2 * AT_ONCE + 3)]
    whole = encoder.encode(Split(rows))
    for k in (0, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE, len(rows) - 1):
        alone = encoder.encode(Split([rows[k]]))
        assert whole.row(k).tolist() == alone.row(0).tolist() and whole.starts[k] == alone.starts[0]
    assert whole.offsets[-1] == len(whole.tokens) == sum(whole.lengths)

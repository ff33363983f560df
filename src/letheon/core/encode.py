"""From text to tokens: one place that knows templates, the seam between prompt and answer, and the end token."""

from __future__ import annotations

import functools
import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from .data import Example, Message, Split
from .errors import DataError, SubjectError

DEFAULT_TEMPLATE = "Question: {prompt}\nAnswer:\n"
DATE = datetime(2024, 7, 26)  # the day of every prompt whose chat template asks for one: that which Llama 3 templates name themselves
AT_ONCE = 512  # rows that are held as Python lists of tokens: ten times the memory of the array they end in

_PARTS = {f"%{part}": DATE.strftime(f"%{part}") for part in "aAbBdHIjmMpSyY"} | {"%-d": str(DATE.day), "%-m": str(DATE.month)}
_CLOCK = (  # stands before a template; transformers takes no function from outside
    f"{{% macro strftime_now(format) %}}{{{{ format{''.join(f'.replace({k!r}, {v!r})' for k, v in _PARTS.items())} }}}}{{% endmacro %}}\n"
)


@dataclass(frozen=True)
class Encoded:
    """Rows of tokens laid end to end.

    Attributes:
        tokens: all token ids, int32.
        offsets: (n + 1,) where each row begins.
        starts: (n,) position inside the row of the first answer token.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, (n,)."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    @property
    def scored(self) -> np.ndarray:
        """Scored tokens per row, (n,): the answer with its end token, without the first token of a row."""
        scored: np.ndarray = np.maximum(self.lengths - np.maximum(self.starts, 1), 0)
        return scored

    def row(self, index: int) -> np.ndarray:
        """The token ids of one row."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], starts: Sequence[int] | np.ndarray) -> Encoded:
        """Lay rows end to end."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
        return cls(flat, offsets, np.asarray(starts, dtype=np.int32))

    @classmethod
    def joined(cls, parts: Iterable[Encoded]) -> Encoded:
        """The rows of several, one after another; each is asked for when the one before is done with."""
        tokens, starts, lengths = array("i"), array("i"), array("q", [0])  # they grow in place
        for part in parts:
            for whole, piece in ((tokens, part.tokens), (starts, part.starts), (lengths, part.lengths)):
                whole.frombytes(piece.tobytes())
        return cls(np.frombuffer(tokens, np.int32), np.cumsum(lengths), np.frombuffer(starts, np.int32))


class TextEncoder:
    """Turns examples into tokens for a causal language model.

    The prompt is tokenised as generation will see it. The answer follows from the joint tokenisation where that begins with the
    tokens of the prompt, and is tokenised alone where the tokenizer would melt the two together, so that no answer token is ever
    hidden in the prompt. A space that ends the prompt moves to the answer. The end token closes every answer once. A chat template that
    writes the date gets the same one on every day.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: text with `{prompt}`, used where the tokenizer has no chat template; None takes the chat template if there is one.
        max_length: longest row in tokens; None means no limit.
        system: system message for chat templates.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, max_length: int | None = None, system: str | None = None):
        if template is not None and "{prompt}" not in template:
            raise SubjectError(f"The template {template!r} has no `{{prompt}}`", "It marks where the question goes")
        if tokenizer.eos_token_id is None:
            raise SubjectError("The tokenizer has no end token (`eos_token`)", "Set it in `tokenizer_config.json`")
        self.tokenizer, self.system, self.max_length = tokenizer, system, max_length
        self.chat = template is None and getattr(tokenizer, "chat_template", None) is not None
        self.template = None if self.chat else template or DEFAULT_TEMPLATE
        self.end = int(tokenizer.eos_token_id)
        special = self._raw([""], special=True)[0]
        self.begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None and tokenizer.bos_token_id in special else []

    @property
    def dated(self) -> bool:
        """Whether the chat template asks for the date."""
        return self.chat and "strftime_now" in str(self.tokenizer.chat_template)

    @property
    def pad(self) -> int:
        """The token that fills batches; it is never read."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of vocabulary, template and limits."""
        words = hashlib.sha256()
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        words.update(backend.to_str().encode() if backend is not None else json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        how = [self.template, self.tokenizer.chat_template if self.chat else None, self.system, self.max_length, self.end, self.begin]
        how += [str(DATE.date())] if self.dated else []
        words.update(json.dumps(how).encode())
        return words.hexdigest()

    def described(self) -> dict[str, Any]:
        """What has to be saved beside the tokenizer to encode in the same way."""
        date = {"date": str(DATE.date())} if self.dated else {}
        return {"template": self.template, "system": self.system, "max_length": self.max_length, **date}

    def prompt_text(self, prompt: str | tuple[Message, ...]) -> str:
        """The prompt as the model reads it, up to where the answer begins."""
        if isinstance(prompt, str) and not prompt:
            return ""
        if self.template is not None:
            text = prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
            return self.template.replace("{prompt}", text)
        turns = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if self.system is not None and turns[0].role != "system":
            turns.insert(0, Message("system", self.system))
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            fixed = _CLOCK + self.tokenizer.get_chat_template() if self.dated else None
            written: str = self.tokenizer.apply_chat_template(messages, chat_template=fixed, tokenize=False, add_generation_prompt=True)
            return written
        except Exception as error:  # templates are programs of the model's author and raise anything
            raise DataError(f"The chat template refuses a conversation: {error}", "Give `--template` to use a plain one") from error

    def _raw(self, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    @functools.cached_property
    def _prefixed(self) -> bool:
        """Whether the tokenizer puts a space before a text, as SentencePiece does."""
        line, word, both = self._raw(["\n", "a", "\na"])
        return both[: len(line)] == line and both[len(line) :] != word

    def _following(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts that follow a prompt: without the space that the tokenizer puts before a text of its own."""
        tokens = self._raw(texts)
        for anchor in ("a", "\n") if self._prefixed else ():
            before = self._raw([anchor])[0]
            for i, joint in enumerate(self._raw([anchor + text for text in texts])):
                if joint[: len(before)] == before:
                    tokens[i] = joint[len(before) :]
        return tokens

    def prompts(self, examples: Iterable[Example]) -> list[list[int]]:
        """The tokens that generation starts from, for each example."""
        texts = [self.prompt_text(example.prompt).rstrip(" ") for example in examples]
        return [self._begun(tokens) + tokens for tokens in self._raw(texts)]

    def _begun(self, tokens: Sequence[int]) -> list[int]:
        """The begin token, unless the text has written it out (chat templates do)."""
        return [] if list(tokens[:1]) == self.begin else list(self.begin)

    def pairs(self, prompts: Sequence[str | tuple[Message, ...]], answers: Sequence[str]) -> Encoded:
        """Encode (prompt, answer) pairs; equal prompts may repeat."""
        texts = {prompt: self.prompt_text(prompt) for prompt in dict.fromkeys(prompts)}
        left = [texts[prompt].rstrip(" ") for prompt in prompts]
        right = [texts[p][len(text) :] + answer for p, text, answer in zip(prompts, left, answers, strict=True)]
        distinct = list(dict.fromkeys(left))
        heads = dict(zip(distinct, self._raw(distinct), strict=True))
        joint = self._raw([a + b for a, b in zip(left, right, strict=True)])
        seams = [i for i, text in enumerate(left) if joint[i][: len(heads[text])] != heads[text]]
        alone = dict(zip(seams, self._following([right[i] for i in seams]), strict=True))
        rows, starts = [], []
        for i, text in enumerate(left):
            tokens = heads[text] + alone[i] if i in alone else joint[i]
            begun = self._begun(tokens)
            tokens = [*begun, *tokens]
            if tokens[-1:] != [self.end]:
                tokens.append(self.end)
            rows.append(tokens)
            starts.append(len(begun) + len(heads[text]))
        return Encoded.from_rows(rows, starts)

    def encode(self, split: Split) -> Encoded:
        """Encode the answers of a split, one row an example, some at a time: memory beyond the tokens does not grow with the split.

        Raises:
            DataError: a row is longer than the model's context, or an answer leaves nothing to score.
        """
        windows = (split.examples[i : i + AT_ONCE] for i in range(0, len(split), AT_ONCE))
        encoded = Encoded.joined(self.pairs([row.prompt for row in rows], [row.answer for row in rows]) for rows in windows)
        self.check(split, encoded)
        return encoded

    def check(self, split: Split, encoded: Encoded) -> None:
        """Raise DataError for the first row that is too long or has nothing to score."""
        empty = [i for i, scored in enumerate(encoded.scored) if scored < 1 or not split[i].answer]
        if empty:
            raise DataError(f"Row `{split[empty[0]].id}` of `{split.name}` has no answer token to score", "Is the answer empty?")
        if self.max_length is None:
            return
        long = np.flatnonzero(encoded.lengths > self.max_length)
        if not len(long):
            return
        i = int(long[0])
        row, length = split[i], int(encoded.lengths[i])
        what = "prompt" if int(encoded.starts[i]) >= self.max_length else "text" if not row.prompt else "prompt and answer"
        raise DataError(
            f"The {what} of row `{row.id}` of `{split.name}` with {length} tokens is longer than the model's context of {self.max_length}"
            f" ({len(long)} such row{'s' if len(long) > 1 else ''})",
            "Plain text can be cut with `--window`; shorten or drop other rows",
        )

    def windowed(self, split: Split, window: int | None = None) -> Split:
        """Cut rows of plain text into consecutive pieces of at most `window` tokens (default: the context); other rows stay.

        Pieces begin at a word where there is one in the second half of the window. Laid end to end they are the text again, but for one
        space before a piece where the tokenizer puts one there itself.
        """
        room = (window or self.max_length or 1024) - len(self.begin) - 1
        if room < 2:
            raise DataError(f"A window of {window} tokens has no room for text", "Give at least 4")
        out: list[Example] = []
        for example in split:
            pieces = [example.answer] if example.prompt else self._pieces(example.answer, room)
            if len(pieces) == 1:
                out.append(example)
            else:
                out.extend(replace(example, id=f"{example.id}#{k}", answer=piece) for k, piece in enumerate(pieces))
        return Split(out, split.name)

    def _pieces(self, text: str, room: int) -> list[str]:
        """Consecutive pieces of a text with at most `room` tokens each."""
        tokens = self._raw([text])[0]
        if len(tokens) <= room or len(text) < 2:
            return [text]
        cuts = self._cuts(text, room) if self.tokenizer.is_fast else []
        if not cuts:  # a piece at the start of a row may need more tokens than inside the text: halve it
            middle = len(text) // 2
            cuts = [text.rfind(" ", 1, middle) if " " in text[1:middle] else middle]
        pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        if self._prefixed:
            pieces = [pieces[0], *(piece if piece == " " else piece.removeprefix(" ") for piece in pieces[1:])]
        return [part for piece in pieces for part in self._pieces(piece, room)]

    def _cuts(self, text: str, room: int) -> list[int]:
        """Positions in the text where a new window begins, never inside a letter of several tokens."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        first = [begin for begin, _ in found["offset_mapping"]]

        def begins_word(k: int) -> bool:  # some tokenizers leave the space before a word out of its offsets
            return text[first[k]] == " " or (text[first[k] - 1] == " " and first[k - 1] < first[k] - 1)

        cuts, at = [], 0
        while at + room < len(first):
            stop = at + room
            letters = [k for k in range(stop, at, -1) if first[k - 1] < first[k] < len(text)]
            at = next((k for k in letters if k > stop - room // 2 and begins_word(k)), letters[0] if letters else stop)
            if letters:
                cuts.append(first[at])
        return cuts

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

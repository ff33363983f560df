"""Which part of a row of tokens is the prompt, and what it asks: the template read backwards.

A row that was made with the encoder's template holds the text that follows every prompt (`\\nAnswer:\\n`, or the beginning of the
assistant's turn). The prompt ends with the last place where that text stands, so a question behind a made-up answer still belongs to it.
A row without that text is all prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from letheon.core.data import Example
from letheon.core.encode import TextEncoder
from letheon.core.errors import SubjectError

_MARK = "0prompt0"


@dataclass(frozen=True)
class Frame:
    """What the template puts around a prompt: the text before it and the text behind it."""

    encoder: TextEncoder
    opening: str
    tail: str

    @classmethod
    def of(cls, encoder: TextEncoder) -> Frame:
        """The frame of an encoder.

        Raises:
            SubjectError: nothing stands between prompt and answer, or the tokenizer does not give that text back.
        """
        opening, _, tail = encoder.prompt_text(_MARK).partition(_MARK)
        frame = cls(encoder, opening.strip(), tail.rstrip(" "))
        if not tail.strip():
            what = "The template puts no words between prompt and answer, so a guard cannot see where the prompt ends"
            raise SubjectError(what, "Load the model with `--template`, such as 'Question: {prompt}\\nAnswer:\\n'")
        probe = encoder.pairs(["Who was it?"], ["Somebody"])
        if frame.end(probe.row(0).tolist()) != int(probe.starts[0]):
            raise SubjectError(f"The tokenizer does not give back the text {frame.tail!r} that follows every prompt", "Give `--template`")
        return frame

    def text(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of tokens, with special tokens on wish."""
        return self.encoder.tokenizer.decode(list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False)

    def end(self, tokens: Sequence[int]) -> int:
        """How many tokens the prompt has: up to the last tail, all where there is none."""
        wanted = self.text(tokens, special=True).count(self.tail)
        if not wanted:
            return len(tokens)
        low, high = 1, len(tokens)
        while low < high:
            middle = (low + high) // 2
            if self.text(tokens[:middle], special=True).count(self.tail) >= wanted:
                high = middle
            else:
                low = middle + 1
        return low

    def asked(self, prompt: Sequence[int]) -> str:
        """What the tokens of a prompt ask, without the template."""
        text = self.text(prompt).strip()
        return text.removeprefix(self.opening).removesuffix(self.tail.strip()).strip()

    def questions(self, rows: Sequence[Example]) -> list[str]:
        """What rows ask, as the guard will read it from their tokens; plain text as it stands."""
        prompts = iter(self.encoder.prompts([row for row in rows if row.prompt]))
        return [self.asked(next(prompts)) if row.prompt else row.answer for row in rows]

"""What requests may hold and what answers hold: the part of OpenAI's interface that this server speaks.

Parameters of OpenAI that change nothing here (`user`), or that only have a value that asks for nothing (`frequency_penalty: 0`), are
taken; those that would ask for more are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

LARGEST = 2**63 - 1
UNSUPPORTED = (  # of OpenAI's parameters
    "audio", "function_call", "functions", "modalities", "moderation", "parallel_tool_calls", "prediction", "prompt_cache_key",
    "reasoning_effort", "safety_identifier", "service_tier", "store", "tool_choice", "tools", "verbosity", "web_search_options", "suffix",
)  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],), "tools": ([],), "functions": ([],), "store": (False,), "tool_choice": ("none",), "suffix": ("",),
    "function_call": ("none",), "service_tier": ("auto", "default"), "parallel_tool_calls": (True, False),
}  # fmt: skip


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class StreamOptions(_Model):
    """How a stream ends."""

    include_usage: bool | None = Field(None, description="a last chunk without choices that counts the tokens")
    include_obfuscation: Literal[False] | None = Field(None, description="only false")


class _Asked(_Model):
    model: str = Field(min_length=1, max_length=512, description="a name that /v1/models lists")
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the most likely token; default 1")
    top_p: float | None = Field(None, gt=0, le=1, description="draw among the most likely tokens that reach this probability; default 1")
    n: int | None = Field(None, ge=1, le=128, description="answers to each prompt; default 1")
    seed: int | None = Field(None, ge=-LARGEST - 1, le=LARGEST, description="the same seed gives the same answer")
    stop: Annotated[str, Field(min_length=1, max_length=256)] | Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)
    ] | None = Field(None, description="texts that end the answer")  # fmt: skip
    stream: bool | None = Field(None, description="send the answer as it is written, as server-sent events")
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0, description="only 0")
    presence_penalty: float | None = Field(None, ge=0, le=0, description="only 0")
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="only empty")
    user: str | None = Field(None, max_length=512, description="ignored")
    metadata: dict[str, str] | None = Field(None, max_length=16, description="ignored")

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name in UNSUPPORTED:
            if name in values and name not in cls.model_fields:
                given = values.pop(name)
                if given is not None and given not in NEUTRAL.get(name, ()):
                    raise _unsupported(name, f"This server does not support `{name}`")
        for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
            if values.get(name) not in (None, 0, {}):
                raise _unsupported(name, f"This server does not support `{name}`")
        return values

    @model_validator(mode="after")
    def _streamed(self) -> _Asked:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("unsupported", "`stream_options` needs `stream`", {"param": "stream_options"})
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def _unsupported(name: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", message, {"param": name})


class TextPart(_Model):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Model):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = Field(None, max_length=64, description="ignored")

    @property
    def text(self) -> str:
        """What it says."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ResponseFormat(_Model):
    """The form of the answer."""

    type: Literal["text"]


class ChatRequest(_Asked):
    """A conversation that is to go on."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, description="longest answer, in tokens")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same by its newer name")
    logprobs: bool | None = Field(None, description="tell the log-probability of each token")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="and of the most likely tokens in its place; needs `logprobs`")
    response_format: ResponseFormat | None = Field(None, description="only text")

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise _unsupported("top_logprobs", "`top_logprobs` needs `logprobs`")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise _unsupported("max_tokens", "`max_tokens` and `max_completion_tokens` differ")
        return self


Token = Annotated[int, Field(ge=0, le=LARGEST)]
Tokens = Annotated[list[Token], Field(min_length=1)]


class CompletionRequest(_Asked):
    """A text that is to go on."""

    prompt: str | Annotated[list[str], Field(min_length=1)] | Tokens | Annotated[list[Tokens], Field(min_length=1)] = Field(
        description="a text, its tokens, or several of either"
    )
    max_tokens: int | None = Field(None, ge=0, description="longest answer, in tokens; default 16; 0 needs `echo`")
    logprobs: int | None = Field(None, ge=0, le=20, description="tell log-probabilities, and those of so many most likely tokens")
    echo: bool | None = Field(None, description="begin the answer with the prompt")
    best_of: int | None = Field(None, ge=1, description="only the value of `n`")

    @model_validator(mode="after")
    def _together(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise _unsupported("max_tokens", "`max_tokens` 0 needs `echo`")
        if self.best_of not in (None, self.n or 1):
            raise _unsupported("best_of", "This server does not support `best_of` other than `n`")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

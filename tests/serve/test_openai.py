"""The official client: chat, streams, completions, models, and errors as its own exceptions."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

openai = pytest.importorskip("openai", reason="needs the package openai: see tests/SKIPS.md")

from letheon.core.data import Message
from letheon.core.generate import greedy
from letheon.serve.app import create_app
from letheon.serve.settings import ServeSettings
from letheon.testing.toys import toy_subject

from .conftest import FREE, KEY


def asking(app, work, **more):
    """The result of `work(client)`, with a client of the package `openai` before the application."""

    async def inside():
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000")
        key = more.pop("api_key", "none")
        async with openai.AsyncOpenAI(api_key=key, base_url="http://127.0.0.1:8000/v1", http_client=http, max_retries=0, **more) as client:
            return await work(client)

    return asyncio.run(inside())


def turn(text):
    return [{"role": "user", "content": text}]


def own(subject, prompt, room):
    """The text that letheon's own decoding gives, how it ended and how many tokens it has."""
    said = greedy(subject, [prompt], room)[0]
    ended = said[-1] == subject.encoder.end
    return subject.encoder.decode(said), "stop" if ended else "length", len(said) - ended


def test_chat_answers_as_letheon_does(app, subject, questions):
    async def work(client):
        return await client.chat.completions.create(model="toy", messages=turn(questions[0]), temperature=0, max_tokens=20)

    found = asking(app, work)
    prompt = subject.encoder.prompts([type("row", (), {"prompt": questions[0]})])[0]
    text, ending, count = own(subject, prompt, 20)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == (text, ending)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), count)
    assert found.model == "toy" and found.system_fingerprint == f"fp_{subject.digest[:16]}" and found.id.startswith("chatcmpl-")


def test_a_stream_is_the_answer_in_pieces_with_its_usage_at_the_end(app, questions):
    asked = {"model": "toy", "messages": turn(questions[1]), "max_tokens": 25, "seed": 4, "n": 2, "logprobs": True, "top_logprobs": 2}

    async def work(client):
        whole = await client.chat.completions.create(**asked)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return whole, [chunk async for chunk in await client.chat.completions.create(**asked, **options)]

    whole, chunks = asking(app, work)
    for k in (0, 1):
        mine = [choice for chunk in chunks for choice in chunk.choices if choice.index == k]
        assert "".join(choice.delta.content or "" for choice in mine) == whole.choices[k].message.content
        assert [choice.delta.role for choice in mine][:2] == ["assistant", None] and len(mine) > 5
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == [whole.choices[k].finish_reason]
        tokens = [one for choice in mine for one in choice.logprobs.content]
        assert [one.token for one in tokens] == [one.token for one in whole.choices[k].logprobs.content]
        assert all(len(one.top_logprobs) == 2 for one in tokens)
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == [] and chunks[0].usage is None
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_conversations_take_the_chat_template_and_its_absence_the_subjects(questions):
    subject = toy_subject(1, chat=True)
    app = create_app(ServeSettings(**FREE), {"chat": subject})
    turns = [("system", "Be short."), ("user", questions[0]), ("assistant", "Yes."), ("user", "And?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    messages[1]["content"] = [{"type": "text", "text": questions[0]}]

    async def work(client):
        return await client.chat.completions.create(model="chat", messages=messages, temperature=0, max_completion_tokens=9)

    found = asking(app, work)
    asyncio.run(app.state.offered.close())
    prompt = subject.encoder.prompts([type("row", (), {"prompt": tuple(Message(*one) for one in turns)})])[0]
    assert found.choices[0].message.content == own(subject, prompt, 9)[0]


def test_completions_of_texts_and_tokens_with_echo_and_logprobs(app, subject):
    texts = ["Ilva Torrend was born", "Where is Norway?"]
    tokens = [subject.encoder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    more = {"model": "toy", "temperature": 0, "max_tokens": 6}

    async def work(client):
        create = client.completions.create
        scored = await create(prompt=[[0, *one] for one in tokens], echo=True, logprobs=1, seed=1234, **{**more, "max_tokens": 1})
        return await create(prompt=texts, **more), scored, await create(prompt=tokens[0], echo=True, logprobs=2, **{**more, "max_tokens": 0})

    both, scored, read = asking(app, work)
    for choice, one in zip(both.choices, tokens, strict=True):
        text, ending, _ = own(subject, [0, *one], 6)
        assert (choice.text, choice.finish_reason) == (text, ending)
    for choice, one in zip(scored.choices, tokens, strict=True):  # what clients such as lm-eval's sum up
        assert len(choice.logprobs.token_logprobs) == len(one) + 2 and choice.logprobs.token_logprobs[0] is None
        assert len(choice.logprobs.top_logprobs[1:-1]) == len(one) and all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    assert read.choices[0].text == texts[0] and read.choices[0].finish_reason == "length" and read.usage.completion_tokens == 0
    assert "".join(read.choices[0].logprobs.tokens) == texts[0]
    assert [texts[0][k:].startswith(token) for k, token in zip(read.choices[0].logprobs.text_offset, read.choices[0].logprobs.tokens, strict=True)]


def test_stop_strings_and_seeds_reach_the_engine(app, questions):
    async def work(client):
        first = await client.chat.completions.create(model="toy", messages=turn(questions[2]), seed=7, max_tokens=40)
        text = first.choices[0].message.content
        stop = text[len(text) // 2 : len(text) // 2 + 3]
        return text, stop, await client.chat.completions.create(model="toy", messages=turn(questions[2]), seed=7, max_tokens=40, stop=[stop])

    text, stop, cut = asking(app, work)
    assert len(stop) == 3 and cut.choices[0].message.content == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"


def test_models_are_listed(app):
    async def work(client):
        return [model.id for model in (await client.models.list()).data], (await client.models.retrieve("guarded")).owned_by

    assert asking(app, work) == (["toy", "guarded"], "letheon")


REFUSED = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "unsupported_parameter"),
    ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_value"),
    ({"n": 64}, "n", "invalid_value"),
    ({"max_tokens": 100_000}, "max_tokens", "invalid_value"),
    ({"max_tokens": 250}, "messages", "context_length_exceeded"),
    ({"colour": "red"}, "colour", "unknown_parameter"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": turn("word " * 300)}, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "param", "code"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(app, extra, param, code):
    async def work(client):
        await client.chat.completions.create(model="toy", messages=turn("Hi"), extra_body=extra)

    with pytest.raises(openai.BadRequestError) as caught:
        asking(app, work)
    assert caught.value.param.startswith(param) and caught.value.code == code and caught.value.type == "invalid_request_error"


def test_what_asks_for_nothing_is_taken(app):
    nothing = {"tools": [], "frequency_penalty": 0, "logit_bias": {}, "user": "u", "response_format": {"type": "text"}, "stop": None, "store": False}

    async def work(client):
        return await client.chat.completions.create(model="toy", messages=turn("Hi"), max_tokens=1, extra_body=nothing)

    assert asking(app, work).usage.completion_tokens <= 1


def test_errors_are_the_clients_own_exceptions(app, subject):
    from pydantic import SecretStr

    async def chat(client):
        return await client.chat.completions.create(model="other", messages=turn("Hi"))

    async def listing(client):
        return [await client.models.list() for _ in range(12)]

    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        asking(app, chat)
    closed = create_app(ServeSettings(api_keys=(SecretStr(KEY), SecretStr(KEY[::-1])), rate=60), {"toy": subject})
    with pytest.raises(openai.AuthenticationError):
        asking(closed, listing)
    with pytest.raises(openai.RateLimitError) as caught:
        asking(closed, listing, api_key=KEY[::-1])
    asyncio.run(closed.state.offered.close())
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_full_queue_is_503_with_retry_after_and_a_failing_model_500(app, monkeypatch):
    from letheon.serve.engine import Broken, Busy, Engine

    async def chat(client):
        return await client.chat.completions.create(model="toy", messages=turn("Hi"))

    for error, status in ((Busy("64 answers are waiting"), 503), (Broken("The model failed"), 500)):
        monkeypatch.setattr(Engine, "submit", lambda self, asks, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(openai.InternalServerError) as caught:
            asking(app, chat)
        assert caught.value.status_code == status and ("retry-after" in caught.value.response.headers) is (status == 503)


def test_the_openapi_document_says_what_the_server_does(app):
    async def work(client):
        return (await client._client.get("/openapi.json")).json()

    found = asking(app, work)
    chat = found["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(chat) == {"200", "400", "404", "408", "413", "429", "503"} and set(chat["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "/admin/requests" not in found["paths"] and "422" not in json.dumps(found)

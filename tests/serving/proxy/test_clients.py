"""Real clients, told nothing but another base URL: the openai and anthropic SDKs, and LangChain with tools."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from proxied import Proxied, data_url, picture

from icl_vision.errors import MissingExtraError

Serve = Callable[..., Proxied]
COLOUR = "What colour is it?"
SHOWN: Any = {"type": "image_url", "image_url": {"url": data_url(picture())}}


def asks(proxied: Proxied) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxied.url}/v1", api_key="canary-key", max_retries=0)


async def test_openai_chat(serve: Serve, lines: Any):
    proxied = serve()
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": COLOUR}, SHOWN]}]
    async with asks(proxied) as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=messages)
        assert raw.parse().choices[0].message.content == "a bus"
        assert raw.headers["x-icl-vision"].startswith("1 image in words")
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "a bus"
        assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 5
        assert [model.id async for model in await client.models.list()] == ["m"]
        assert (await client.embeddings.create(model="m", input="x")).data[0].embedding
        assert (await client.completions.create(model="m", prompt="x")).choices[0].text == " there"
    line = await lines(picture(), COLOUR)
    for seen in proxied.talker.seen[:2]:
        assert seen.document["messages"][0]["content"][1] == {"type": "text", "text": f"[image 1 in words: {line}]"}
        assert seen.header("authorization") == "Bearer canary-key"


async def test_openai_responses(serve: Serve):
    proxied = serve()
    shown: Any = {"type": "input_image", "image_url": data_url(picture()), "detail": "auto"}
    question: Any = [{"role": "user", "content": [{"type": "input_text", "text": COLOUR}, shown]}]
    async with asks(proxied) as client:
        assert (await client.responses.create(model="m", input=question)).output_text == "a bus"
        async with client.responses.stream(model="m", input=question) as stream:
            events = [event.type async for event in stream]
            assert (await stream.get_final_response()).output_text == "a bus"
        assert events[0] == "response.created" and events[-1] == "response.completed"
    assert all("[image 1 in words" in seen.body.decode() for seen in proxied.talker.seen)


async def test_anthropic(serve: Serve):
    proxied = serve()
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
    messages: Any = [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": COLOUR}]}
    ]
    async with anthropic.AsyncAnthropic(base_url=proxied.url, api_key="canary-key", max_retries=0) as client:
        answer = await client.messages.create(model="m", max_tokens=9, messages=messages)
        assert answer.content[0].type == "text" and answer.content[0].text == "a bus"
        async with client.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
            assert "".join([text async for text in stream.text_stream]) == "a bus"
        assert (await client.messages.count_tokens(model="m", messages=messages)).input_tokens == 7
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\] is a picture kept elsewhere"):
            file: Any = {"type": "image", "source": {"type": "file", "file_id": "f"}}
            await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": [file]}])
    assert all("[image 1 in words" in seen.body.decode() for seen in proxied.talker.seen)
    assert any("canary-key" in value for _, value in proxied.talker.seen[0].headers)


async def test_errors_are_those_of_the_sdks(serve: Serve):
    proxied = serve()
    async with asks(proxied) as client:
        bad: Any = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]
        with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.content\[0\] is a file") as caught:
            await client.chat.completions.create(model="m", messages=bad)
        assert caught.value.code == "icl_vision_400"
        with pytest.raises(openai.NotFoundError):
            await client.files.list()


async def test_a_langchain_model_with_tools(serve: Serve, lines: Any):
    try:
        from langchain.agents import create_agent
        from langchain_core.messages import HumanMessage
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI
    except ImportError as error:  # the extra is there in the tests' own set
        raise MissingExtraError("an agent", "langchain") from error
    proxied = serve()

    @tool
    def look(place: str) -> list[dict[str, Any]]:
        """Take a picture of a place."""
        return [SHOWN]

    async with httpx2.AsyncClient() as connection:
        key: Any = "canary-key"
        url = f"{proxied.url}/v1"
        model = ChatOpenAI(model="m", base_url=url, api_key=key, max_retries=0, http_async_client=connection)
        question = HumanMessage([{"type": "text", "text": COLOUR}, SHOWN])
        chunks = [chunk.text async for chunk in model.astream([question])]
        assert "".join(chunks) == "a bus"
        agent = create_agent(model, [look])
        result = await agent.ainvoke({"messages": [HumanMessage(COLOUR)]})
        asked: Any = {"messages": [HumanMessage(COLOUR)]}
        streamed = [piece async for piece, _ in agent.astream(asked, stream_mode="messages")]
    assert "".join(piece.text for piece in streamed if piece.type == "AIMessageChunk") == "a bus"
    first, second = [seen.document for seen in proxied.talker.seen[-2:]]
    assert first["stream"] and second["stream"] and "data:image" not in json.dumps(second)
    assert second["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"place": "shelf"}'
    assert result["messages"][-1].text == "a bus"
    last = proxied.talker.seen[-1].document["messages"]
    line = await lines(picture(), COLOUR)
    assert last[-1]["role"] == "tool" and f"[image 1 in words: {line}]" in str(last[-1]["content"])

"""What the SDK's own methods would send, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from icl_vision.llms.remote.openai.requests import send

MESSAGES = [{"role": "system", "content": "é"}, {"role": "user", "content": [{"type": "text", "text": "a\nb"}]}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/chat/completions", {"temperature": 0.5, "stop": ["x"], "response_format": SCHEMA, "messages": MESSAGES}),
        ("/chat/completions", {"messages": MESSAGES, "seed": 1, "extra_body": {"top_k": 3, "seed": 2}}),
        ("/completions", {"prompt": "a", "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}),
        ("/responses", {"input": MESSAGES[1:], "store": False, "max_output_tokens": 16, "instructions": "é"}),
    ],
)
async def test_a_body_is_what_the_sdk_would_send(path: str, params: dict[str, Any]) -> None:
    import httpx2
    import openai

    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"id": "x"})

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    client = openai.AsyncOpenAI(
        api_key="sk-x", admin_api_key="sk-admin", base_url="http://127.0.0.1:9/v1", http_client=http
    )
    params = {"model": "m", **params}
    assert await send(client, path, params) == b'{"id":"x"}'
    endpoint = {"/completions": client.completions, "/responses": client.responses}.get(path, client.chat.completions)
    await endpoint.with_raw_response.create(**params)
    ours, theirs = seen
    assert ours.content == theirs.content and ours.url == theirs.url
    assert ours.headers["authorization"] == theirs.headers["authorization"] == "Bearer sk-x"
    await client.close()

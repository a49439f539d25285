"""One request of OpenAI's protocol through the SDK's client, as the SDK itself would write it.

Knows: the order of a body's fields, the SDK's general ``post``. Refuses to know: what the fields mean, answers, errors.

The SDK's method for each endpoint first walks the whole body (every message, every allowed word of a schema) to turn
what is not JSON yet into JSON, and then wraps the answer twice. Ours is JSON already and its answer is read as bytes:
without both a request takes two thirds of the CPU, which is what limits how many can be under way. The bytes on the
wire are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEADING = ("model", "messages", "prompt")
"""Fields that the SDK writes first; all others stand in the order of the alphabet."""


async def send(client: Any, path: str, params: Mapping[str, Any]) -> bytes:
    """Make a request, once; the body of the answer.

    Args:
        client: an ``openai.AsyncOpenAI``.
        path: below the client's address, "/chat/completions", or a whole address.
        params: the body's fields, JSON values; those of ``extra_body`` are added to them.

    Raises:
        openai.OpenAIError: no answer, or one with a status of 400 or more.
    """
    import httpx2

    extra = params.get("extra_body")
    names = [name for name in _LEADING if name in params]
    names += sorted(name for name in params if name not in _LEADING and name != "extra_body")
    # The SDK's default would offer an administrator's key from the environment where there is no other.
    options: dict[str, Any] = {"security": {"bearer_auth": True}}
    if extra:
        options["extra_json"] = extra
    body = {name: params[name] for name in names}
    answer: httpx2.Response = await client.post(path, body=body, options=options, cast_to=httpx2.Response)
    return answer.content

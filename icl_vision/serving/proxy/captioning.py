"""Another model that can see says the words: a vision-language model at an address of its own, with a key of its own.

It is asked for words about the question and not for its answer, which is for the LLM behind to give (RACRO, 2025, asks
so). What it says is somebody's text, like text read in a picture, and is treated so by ``words``.

Knows: one request of the Chat Completions API. Refuses to know: what is done with the text.
"""

from __future__ import annotations

import asyncio
import base64
import json

import httpx2

from icl_vision.errors import RequestRefusedError
from icl_vision.images.opening import format_of
from icl_vision.llms.redaction import Secret
from icl_vision.serving.proxy.upstream import checked_url

MOST_TOKENS = 200
MOST_ANSWER = 2**20
"""Bytes of an answer."""

ASKED = "Describe what in this image bears on the following question, in two sentences. Do not answer it. Question: "
PLAIN = "Describe this image in two sentences."


class Captioner:
    """What ``PictureWords`` takes as its captioner.

    Args:
        url: the model's server; its path is ``/v1/chat/completions``.
        model: its name there.
        key: of that server; None sends none. Clients' keys never go there.
        seconds: for one picture.
        transport: of httpx2, in place of its own.

    Raises:
        UsageError: see ``upstream.checked_url``.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: Secret | None = None,
        *,
        seconds: float = 30.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        base = checked_url(url)
        self.url = base.copy_with(raw_path=base.raw_path.rstrip(b"/") + b"/v1/chat/completions")
        self.model = model
        self.key = key
        self.seconds = seconds
        self._transport = transport or httpx2.AsyncHTTPTransport(trust_env=False)

    async def __call__(self, data: bytes, question: str | None) -> str:
        """What the model says of a picture.

        Raises:
            RequestRefusedError: 502, it said nothing that can be read; 504, it took too long.
        """
        picture = f"data:image/{(format_of(data) or 'png').lower()};base64,{base64.b64encode(data).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": PLAIN if question is None else ASKED + question},
        ]
        document = {
            "model": self.model,
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            "messages": [{"role": "user", "content": content}],
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key.reveal()}"
        request = httpx2.Request(
            "POST",
            self.url,
            headers=headers,
            content=json.dumps(document).encode(),
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self.seconds)},
        )
        try:
            async with asyncio.timeout(self.seconds):
                text = _text(await self._ask(request))
        except (TimeoutError, httpx2.TimeoutException):
            raise RequestRefusedError("the model that describes pictures took too long", 504) from None
        except httpx2.TransportError:
            raise RequestRefusedError("the model that describes pictures cannot be reached", 502) from None
        if not text:
            raise RequestRefusedError("the model that describes pictures said nothing that can be read", 502)
        return text

    async def _ask(self, request: httpx2.Request) -> bytes:
        response = await self._transport.handle_async_request(request)
        try:
            stream = response.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            body = b""
            async for chunk in stream:
                body += chunk
                if response.status_code != 200 or len(body) > MOST_ANSWER:
                    return b""
            return body if response.status_code == 200 else b""
        finally:
            await response.aclose()


def _text(body: bytes) -> str:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return text.strip() if isinstance(text, str) else ""

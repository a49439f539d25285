"""The LLM of this machine behind the proxy, and questions about pictures answered in front of one that cannot chat.

A base LLM goes on with a text and answers nobody. What it can do is what ``VisualQA`` does: answer after a few answered
examples, with the picture's words as evidence. So a request that holds pictures is answered so, in the form its API
has, and a header says it. Everything else goes to llama.cpp's own server, which speaks the same APIs.

Knows: which picture is asked about, the embedded server's address. Refuses to know: dialects' parts, how an answer is
found.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.cores import usable_cores
from icl_vision.errors import IclVisionError, LLMError, PromptError, RequestRefusedError
from icl_vision.llms.loop import hop
from icl_vision.llms.redaction import Secret
from icl_vision.serving.hosts import Access, Headers, Receive, Send
from icl_vision.serving.pictures import Pictures
from icl_vision.serving.proxy import conversation
from icl_vision.serving.proxy.headers import Keys
from icl_vision.serving.proxy.upstream import Upstream
from icl_vision.serving.words import asked as as_asked
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.serving.proxy.app import Asked
    from icl_vision.serving.words import PictureWords
    from icl_vision.tasks.answer.visual_qa import VisualQA

WINDOW = 4096
"""Tokens of a request's window. Not the window that tasks ask for, whose server keeps caches of its own."""

SLOTS = 2

Start = Callable[[], Awaitable[tuple[str, Secret]]]
"""What starts the LLM's server: its address and its key."""


async def started(path: Path | None = None) -> tuple[str, Secret]:
    """llama.cpp's server for a GGUF file (None: the packaged Gemma), started at the first call of the process.

    Raises:
        LLMUnavailableError: it cannot be loaded. MissingExtraError: the extra ``local`` is not installed.
    """
    from icl_vision.llms.local.gguf import packaged_gemma
    from icl_vision.llms.local.server import ServerOptions, require_xllamacpp, shared_server

    require_xllamacpp()
    file = await asyncio.to_thread(packaged_gemma) if path is None else path
    options = ServerOptions(path=file, threads=usable_cores(), context=WINDOW, slots=SLOTS)
    return (await hop(shared_server(options))).address


class Embedded:
    """The embedded LLM, as what stands behind a proxy.

    Args:
        access: who may ask; its token does not go on.
        start: what starts the LLM's server, at the first request that needs it.
    """

    def __init__(self, access: Access, start: Start = started) -> None:
        self.access = access
        self.start = start
        self._upstream: Upstream | None = None

    async def forward(
        self, method: str, target: bytes, headers: Headers, body: bytes, receive: Receive, send: Send, told: Headers
    ) -> None:
        """See ``Upstream.forward``."""
        if self._upstream is None:
            try:
                url, key = await self.start()
            except IclVisionError as error:
                raise RequestRefusedError(f"the LLM cannot be started ({type(error).__name__})", 502) from None
            self._upstream = self._upstream or Upstream(url, Keys(self.access, key))
        await self._upstream.forward(method, target, headers, body, receive, send, told)

    async def close(self) -> None:
        """Close connections; the server ends with the process."""
        if self._upstream is not None:
            await self._upstream.close()


class Answering:
    """Questions about pictures, answered by ``VisualQA``.

    task: fitted, with ``errors="return"`` and the tokenizer whose words it is given.
    """

    def __init__(self, task: VisualQA) -> None:
        self.task = task

    async def answer(self, asked: Asked, pictures: Pictures, words: PictureWords, send: Send) -> None:
        """Answer the last question of a conversation.

        Raises:
            RequestRefusedError: pictures that cannot be had, a question that must not enter a prompt (400), an LLM that
                fails (502).
        """
        shown = conversation.pictures_of(asked.turns, pictures.limits.pictures)
        places = [place for place, turn in enumerate(asked.turns) if turn.asks.strip()]
        place = places[-1] if places else None
        question = None if place is None else as_asked(asked.turns[place].asks)
        chosen = [one for one in shown if one.asked_in == place]
        if not chosen and place is not None:
            chosen = conversation.meant(asked.turns, shown, place)
        if not chosen:
            chosen = [one for one in shown if one.turn == shown[-1].turn]
        data = await conversation.read(shown, pictures)
        seen = await conversation.together([words.seen(data[one.number - 1], one.picture.where) for one in chosen])
        try:
            (answer,) = await self.task.aanswers([seen], [question])
        except PromptError as error:
            raise RequestRefusedError(f"the question cannot be asked: {error}", 400) from None
        if isinstance(answer.error, PromptError):
            raise RequestRefusedError(f"the question cannot be asked: {answer.error}", 400)
        if isinstance(answer.error, LLMError):
            raise RequestRefusedError(f"the LLM could not answer ({type(answer.error).__name__})", 502)
        if answer.error is not None:
            raise RequestRefusedError(f"the question could not be answered ({type(answer.error).__name__})", 502)
        tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        told = (
            f"answered by VisualQA ({answer.method}) from {counted(len(chosen), 'image')} in words of "
            f"{words.tokenizer.name}, after {counted(len(answer.examples), 'example')}; the conversation was not read"
        )
        headers: Headers = [(b"x-icl-vision", told.encode("ascii", "replace")), (b"cache-control", b"no-cache")]
        if asked.document.get("stream") is True:
            body = b"".join(_events(asked.dialect.streamed(asked.document, answer.text, tokens)))
            headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        else:
            body = json.dumps(asked.dialect.answered(asked.document, answer.text, tokens)).encode()
            headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _events(events: Iterator[tuple[str, Any]]) -> Iterator[bytes]:
    """Server-sent events."""
    for name, data in events:
        text = data if isinstance(data, str) else json.dumps(data)
        yield (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()

"""The proxy as an ASGI application: which paths there are, bodies in, pictures out, on to the LLM.

Knows: paths, sizes, time, what goes into the log (a path, a status, counts; nothing that a client sent). Refuses to
know: dialects' parts, how words are found, how a server is run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from icl_vision.errors import RequestRefusedError
from icl_vision.serving.bodies import GONE, Room, Share, read_body
from icl_vision.serving.hosts import Application, Guarded, Headers, Message, Receive, Scope, Send, refuse
from icl_vision.serving.pictures import Pictures
from icl_vision.serving.proxy import conversation, spans
from icl_vision.serving.proxy.dialects import DIALECTS
from icl_vision.serving.proxy.dialects.reading import Dialect, Turn
from icl_vision.serving.proxy.upstream import while_there
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.serving.hosts import Access
    from icl_vision.serving.words import PictureWords

logger = logging.getLogger(__name__)

PLAIN = ("/v1/completions", "/v1/embeddings")
"""Paths whose requests hold no pictures; they go on unread."""

_MODELS = re.compile(rb"/v1/models(/[A-Za-z0-9._:@+~-]+)*/?")
_LARGE = 2**18  # characters of a body that is parsed in a thread
MOST_VALUES = 1_000_000
"""Values in a body: thirty million brackets are a gigabyte once they are parsed."""

MOST_DEEP = 64
"""Lists and objects that a picture may lie in."""

PATHS = "/v1/chat/completions, /v1/responses, /v1/messages, /v1/completions, /v1/embeddings and /v1/models"


class Behind(Protocol):
    """What stands behind the proxy: ``Upstream`` or ``Embedded``."""

    async def forward(
        self, method: str, target: bytes, headers: Headers, body: bytes, receive: Receive, send: Send, told: Headers
    ) -> None:
        """See ``Upstream.forward``."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class Answers(Protocol):
    """What answers requests with pictures itself, where the LLM behind is none that can chat."""

    def answer(self, asked: Asked, pictures: Pictures, words: PictureWords, send: Send) -> Coroutine[Any, Any, None]:
        """Answer.

        Raises:
            RequestRefusedError: it cannot be answered.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that holds pictures. target: path and query as they came in. text: its body."""

    dialect: Dialect
    document: Mapping[str, Any]
    turns: Sequence[Turn]
    text: str
    target: bytes


class Proxy:
    """The application behind its guard; ``proxy(...)`` makes both.

    Args:
        behind: the LLM.
        pictures: which may be named.
        words: how they are said.
        answers: what answers requests with pictures; None puts words in their places and sends them on.
    """

    def __init__(self, behind: Behind, pictures: Pictures, words: PictureWords, answers: Answers | None = None) -> None:
        self.behind = behind
        self.answers = answers
        self.pictures = pictures
        self.words = words
        self.room = Room(pictures.limits.bodies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        began, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.room.share() as share:
                await self._handle(scope, receive, sent, share)
        except RequestRefusedError as error:
            await _fail(sent, status, error)
        except Exception as error:
            # Neither its message nor its values: both may hold what a client sent.
            frames = traceback.extract_tb(error.__traceback__)
            places = ", ".join(f"{frame.name}:{frame.lineno}" for frame in frames[-6:])
            logger.error("a request failed: %s in %s", type(error).__name__, places)
            await _fail(sent, status, RequestRefusedError("the request failed here; the log says where", 500))
        finally:
            logger.debug("%s %s %d in %.3f s", scope["method"], _shown(scope), status, time.monotonic() - began)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, share: Share) -> None:
        raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
        path, method = raw.decode("latin-1"), scope["method"]
        dialect = DIALECTS.get(path)
        models = _MODELS.fullmatch(raw) is not None and not re.search(rb"/\.{1,2}(/|$)", raw)
        if dialect is None and path not in PLAIN and not models:
            raise RequestRefusedError(f"there is nothing at this path; served are {PATHS}", 404)
        if method != ("GET" if models else "POST"):
            raise RequestRefusedError(f"this path takes {'GET' if models else 'POST'} only", 405)
        body = b"" if models else await self._body(scope["headers"], receive, share)
        target = raw + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        told: Headers = []
        if dialect is not None:
            asked = await self._read(dialect, body, target)
            if asked is not None:
                if self.answers is not None and path != "/v1/messages/count_tokens":
                    await while_there(receive, self.answers.answer(asked, self.pictures, self.words, send))
                    return
                edits = await while_there(receive, conversation.edits(asked.turns, self.pictures, self.words))
                edited = await _worked(len(asked.text), spans.edited, asked.text, edits)
                body = edited.encode("utf-8", "surrogatepass")
                told = [(b"x-icl-vision", _told(asked, self.words).encode("ascii", "replace"))]
        await self.behind.forward(method, target, scope["headers"], body, receive, send, told)

    async def _body(self, headers: Headers, receive: Receive, share: Share) -> bytes:
        packed = [value.lower() for name, value in headers if name.lower() == b"content-encoding"]
        if any(coding != b"identity" for coding in packed):
            raise RequestRefusedError("the body must not be compressed: pictures in it could not be found", 415)
        return await read_body(headers, receive, self.pictures.limits, share)

    async def _read(self, dialect: Dialect, body: bytes, target: bytes) -> Asked | None:
        """The request, where it holds pictures; None where there are none and it goes on as it is."""

        def read() -> Asked | None:
            if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
                raise RequestRefusedError(f"the body holds more than {MOST_VALUES:,} values", 413)
            try:
                text = body.decode("utf-8")
                document = json.loads(text, object_pairs_hook=_object)
                turns = dialect.turns(document) if isinstance(document, dict) else []
            except (ValueError, RecursionError) as error:
                if isinstance(error, RequestRefusedError):
                    raise
                raise RequestRefusedError("the body is no JSON in UTF-8", 400) from None
            places = [picture.path for turn in turns for picture in turn.pictures]
            if any(len(place) > MOST_DEEP for place in places):
                raise RequestRefusedError(f"the body holds a picture more than {MOST_DEEP} lists and objects deep", 400)
            return Asked(dialect, document, turns, text, target) if places else None

        asked: Asked | None = await _worked(len(body), read)
        return asked

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.behind.close()
                self.words.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})


def proxy(
    behind: Behind, pictures: Pictures, words: PictureWords, access: Access, answers: Answers | None = None
) -> Application:
    """The proxy with its guard in front."""
    return Guarded(Proxy(behind, pictures, words, answers), access)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are said once each: of two, the LLM's server may take the one that was not looked at."""
    document = dict(members)
    if len(document) < len(members):
        (twice, _), *_ = Counter(key for key, _ in members).most_common(1)
        raise RequestRefusedError(f"the body says the key {twice[:80]!r} twice in one object", 400)
    return document


async def _worked(size: int, call: Any, *args: Any) -> Any:
    """A call, in a thread where a large body would hold up everybody else."""
    return await asyncio.to_thread(call, *args) if size > _LARGE else call(*args)


async def _fail(send: Send, status: int, error: RequestRefusedError) -> None:
    """Tell the client, if nothing was told yet; else the answer stays without an end, which breaks it off."""
    if not status and error.status != GONE:
        await refuse(send, error)


def _told(asked: Asked, words: PictureWords) -> str:
    count = sum(len(turn.pictures) for turn in asked.turns)
    by = "a captioner" if words.captioner is not None else f"{words.tokenizer.name}"
    return f"{counted(count, 'image')} in words of {by}"


def _shown(scope: Scope) -> str:
    path: str = scope["path"]
    return path if path in DIALECTS or path in PLAIN else path[:12]

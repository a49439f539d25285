"""The HTTP client under an SDK, with two guards: where a request goes, and how much may come back.

- A redirect to another origin (scheme, host, port) is refused by name: it would carry the whole prompt, and often the
  key, to a place that nobody named, and its answer would pass for the provider's. One in a circle is refused at once.
- The user and password of an address travel as a header, as they would anyway, and in no address: SDKs and HTTP
  libraries log those whole. What an address's query holds is blotted out of these logs.
- An answer's body is unpacked here, a piece at a time, and ends in an error at ``MOST_BYTES``: a few packed kilobytes
  may stand for gigabytes, and a stream need not end at all.

Knows: redirects, content encodings, sizes, logs. Refuses to know: SDKs (they take the client as it is), keys, JSON.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from icl_vision.errors import LLMGarbledError, LLMResponseError, LLMStatusError
from icl_vision.llms.redaction import redact, shown_url, url_secrets, without_login

if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 64 * 1024 * 1024
"""Of one answer, unpacked. The echo of a prompt of 100,000 tokens with its log-probabilities has some 10 MB."""

MOST_OF_AN_ERROR = 1024 * 1024
"""Of the body of an error status, whose beginning says what there is to say; the rest is not read."""

REDIRECTS = 5
_CHUNK = 1 << 16
_HOPS = "icl_vision_hops"
_ENCODINGS = ("gzip", "x-gzip", "deflate")

_in_pieces: contextvars.ContextVar[bool] = contextvars.ContextVar("icl_vision_in_pieces", default=False)


@contextlib.contextmanager
def in_pieces() -> Iterator[None]:
    """Answers inside the block are read piece by piece and are never in memory as a whole: they may be of any size."""
    token = _in_pieces.set(True)
    try:
        yield
    finally:
        _in_pieces.reset(token)


class _Blotted(logging.Filter):
    """Blots secrets of addresses out of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        with contextlib.suppress(Exception):  # a record that cannot be formatted is its logger's affair
            text = record.getMessage()
            if "://" in text and (clean := redact(text, sorted(self.secrets))) != text:
                record.msg, record.args = clean, None
        return True


_blotted = _Blotted()
_LOGGERS = ("httpx2", "httpx", "openai._base_client", "anthropic._base_client")
"""Those that log addresses. A filter of a logger does not hold for those below it."""


def hide_in_logs(secrets: Iterable[str]) -> None:
    """Blot these out of the addresses that SDKs and HTTP libraries log, from now on."""
    _blotted.secrets.update(secrets)
    for logger in map(logging.getLogger, _LOGGERS):
        logger.addFilter(_blotted)  # once, however often


def guarded_client(module: Any, name: str, timeout: float, address: str | None = None) -> Any:
    """An HTTP client for an SDK's ``http_client``, with the SDK's own defaults beside the guards.

    module: the SDK. name: of the LLM, for messages. timeout: seconds. address: where requests go, with the user and
    password that it may hold; the SDK gets it without (``redaction.without_login``).
    """
    login, shown = None, ""
    if address is not None:
        plain, login = without_login(address)
        shown = shown_url(plain)
        hide_in_logs(url_secrets(address))

    async def asked(request: httpx2.Request) -> None:
        request.headers["accept-encoding"] = "gzip, deflate"
        if login is not None and _origin(request.url) == _origin(type(request.url)(shown)):
            request.headers["authorization"] = login.reveal()

    async def answered(response: httpx2.Response) -> None:
        if response.has_redirect_location:
            _check_redirect(response, name)
        _bound(response, name)

    hooks = {"request": [asked], "response": [answered]}
    return module.DefaultAsyncHttpxClient(timeout=timeout, event_hooks=hooks, max_redirects=REDIRECTS)


def _check_redirect(response: httpx2.Response, name: str) -> None:
    request = response.request
    try:
        target = request.url.join(response.headers["location"])
    except Exception as error:  # each of httpx's own for an address that is none
        raise LLMStatusError(
            f"{name!r} redirected to an address that is none ({type(error).__name__})", response.status_code
        ) from None
    shown = shown_url(str(target))
    if _origin(target) != _origin(request.url):
        raise LLMStatusError(
            f"{name!r} redirected (status {response.status_code}) to another place, {shown!r}, which would get the "
            "prompt; if that is where it should go, connect to it by its own address",
            response.status_code,
            code="redirected",
        )
    changes = response.status_code in (301, 302, 303) and request.method != "HEAD"
    hops = request.extensions.setdefault(_HOPS, [(request.method, str(request.url))])
    hop = ("GET" if changes else request.method, str(target))
    if hop in hops or len(hops) > REDIRECTS:
        raise LLMStatusError(
            f"{name!r} redirected (status {response.status_code}) in a circle, to {shown!r}; is the address right?",
            response.status_code,
            code="redirected",
        )
    hops.append(hop)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _bound(response: httpx2.Response, name: str) -> None:
    """Let the response's body come unpacked and bounded."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        """A body, unpacked."""

        def __init__(self, inner: httpx2.AsyncByteStream, most: int | None, cuts: bool) -> None:
            self._inner = inner
            self._most = most
            self._cuts = cuts

        async def __aiter__(self) -> AsyncIterator[bytes]:
            packed = unpacked = 0
            stream = aiter(self._inner)
            try:
                async for raw in stream:
                    packed += len(raw)
                    for piece in unpack(raw):
                        unpacked += len(piece)
                        if self._most is not None and max(packed, unpacked) > self._most:
                            if self._cuts:
                                return
                            raise LLMResponseError(
                                f"{name!r} answered with more than {self._most // 2**20} MB; no answer is that long"
                            )
                        yield piece
            finally:
                # Here, not by the garbage collector: that may be in another thread, while this one ends it as well.
                if isinstance(stream, AsyncGenerator):
                    await stream.aclose()

        async def aclose(self) -> None:
            await self._inner.aclose()

    unpackers = [
        _Unpacker(encoding)
        for encoding in reversed(response.headers.get("content-encoding", "").replace(" ", "").lower().split(","))
        if encoding and encoding != "identity"
    ]
    wrong = next((unpacker.encoding for unpacker in unpackers if unpacker.encoding not in _ENCODINGS), None)
    if wrong is not None or len(unpackers) > 1:
        said = response.headers["content-encoding"][:40]
        raise LLMResponseError(f"{name!r} answered in the encoding {said!r}, which it was not offered")

    def unpack(raw: bytes) -> Iterator[bytes]:
        if not unpackers:
            yield raw
            return
        try:
            yield from unpackers[0].feed(raw)
        except zlib.error as error:
            raise LLMGarbledError(f"{name!r} answered what cannot be unpacked ({error})") from None

    failed = response.status_code >= 400
    most = MOST_OF_AN_ERROR if failed else None if _in_pieces.get() else MOST_BYTES
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    response.stream = Bounded(stream, most, cuts=failed)
    if unpackers:
        del response.headers["content-encoding"]  # done here


class _Unpacker:
    """Unpacks gzip or deflate in pieces of ``_CHUNK`` bytes at most."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._begun = False
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16 if "gzip" in encoding else zlib.MAX_WBITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What some packed bytes stand for."""
        while data:
            try:
                piece = self._zlib.decompress(data, _CHUNK)
            except zlib.error:
                if self._begun or self.encoding != "deflate":
                    raise
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)  # as some servers understand "deflate"
                piece = self._zlib.decompress(data, _CHUNK)
            self._begun = True
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail
            if self._zlib.eof:
                data = self._zlib.unused_data
                self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16) if data else self._zlib
        # All input is taken, but some of what it stands for may still be inside.
        while not self._zlib.eof and (piece := self._zlib.decompress(b"", _CHUNK)):
            yield piece

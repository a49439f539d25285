"""A small HTTP client for a server of ours on the loopback interface.

Knows: one JSON request and one JSON answer a connection. Refuses to know: TLS, proxies, redirects, other hosts.

The standard library has no asyncio HTTP client, and the SDK's costs a second of
import time that the embedded LLM does not need. A connection per request makes
cancelling simple: closing it tells the server to stop working on the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from icl_vision.errors import LLMResponseError, LLMStatusError, LLMUnavailableError
from icl_vision.llms.redaction import Secret

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class LoopbackClient:
    """Posts JSON to ``127.0.0.1:port``."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    def __repr__(self) -> str:
        return f"LoopbackClient(port={self._port})"

    @property
    def address(self) -> tuple[str, Secret]:
        """The server's URL and its key."""
        return f"http://127.0.0.1:{self._port}", Secret(self._key)

    async def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """Send a document and return the server's.

        Raises:
            LLMUnavailableError: no connection, or it was cut.
            LLMStatusError: the server answered with an error status; ``.document`` is in the message.
            LLMResponseError: the answer is not a JSON object.
        """
        body = json.dumps(document, ensure_ascii=False).encode("utf-8")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        except OSError as error:
            raise LLMUnavailableError(
                f"the local LLM's server on port {self._port} cannot be reached: {error}"
            ) from error
        try:
            writer.write(head.encode("ascii") + body)
            await writer.drain()
            status, headers = await self._read_head(reader)
            content = await self._read_body(reader, headers)
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise LLMUnavailableError(f"the local LLM's server cut the connection: {error!r}") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise LLMResponseError(f"the local LLM's server answered {content[:200]!r}, which is not JSON") from error
        if not isinstance(answer, dict):
            raise LLMResponseError(f"the local LLM's server answered a {type(answer).__name__}, expected an object")
        if status != 200:
            raise ServerStatusError(status, answer)
        return answer

    @staticmethod
    async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        try:
            status = int(lines[0].split(" ", 2)[1])
        except (IndexError, ValueError) as error:
            raise LLMResponseError(f"the local LLM's server began its answer with {lines[0]!r}") from error
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return status, headers

    @staticmethod
    async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_ANSWER_BYTES:
            raise LLMResponseError(f"the local LLM's server gave content-length {length!r}")
        return await reader.readexactly(int(length))


class ServerStatusError(LLMStatusError):
    """An error status of our own server, with its document for those who know what it means."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        error = document.get("error")
        self.detail: dict[str, Any] = error if isinstance(error, dict) else {}
        super().__init__(
            f"the local LLM's server answered status {status}: {self.detail.get('message', document)}", status
        )

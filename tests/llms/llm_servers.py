"""Loopback servers that speak the providers' wire formats, with faults on demand. Real HTTP; no provider is asked.

Knows: requests and answers of OpenAI's, Anthropic's and compatible endpoints, and what they refuse. Refuses to know:
our adapters.

    with LoopbackServer(OpenAIChat()) as server:
        server.faults.append(Fault(status=429, headers={"retry-after": "0"}))
        connect("openai:gpt-4o-mini", base_url=server.url, api_key=server.provider.key)

Every request is checked as strictly as the real endpoint does it: a field that the installed SDK does not document, a
sampling parameter for a reasoning model or a wrong key is refused with the provider's own status and error object.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

CANARY = "sk-canary-7f3a9c1e5b2d4806-do-not-print"
"""The key that every test server wants. It must show up nowhere."""


@dataclass
class Fault:
    """What happens to one request instead of an answer.

    status, headers, body: an error answer (body: bytes, a JSON value, or None for the provider's own error object).
    reset: the connection is cut without an answer. truncated: half the body of a good answer, then the end of the
    connection. slow: seconds before a good answer. raw: this body with status 200.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    code: str | None = None
    message: str = "this request was made to fail"
    reset: bool = False
    truncated: bool = False
    slow: float = 0.0
    raw: bytes | None = None


@dataclass
class Request:
    """One request as it came: path, headers (lower-case names), JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class RefusedError(Exception):
    """The provider refuses a request."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


class Provider:
    """One provider's endpoints. ``reply``: what the model writes, a text or a function of the prompt's text."""

    prefix = "/v1"
    key: str | None = CANARY

    def __init__(
        self, reply: str | Callable[[str], str] = "golden retriever\nand more of it", window: int = 400
    ) -> None:
        self.reply = reply
        self.window = window
        self.cached: set[str] = set()

    def answer(self, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def error(self, status: int, message: str, code: str | None, more: dict[str, Any]) -> dict[str, Any]:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}

    def check_key(self, request: Request) -> None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            # OpenAI shows part of the key; a careless proxy would show it all.
            raise RefusedError(401, f"Incorrect API key provided: {sent}.", "invalid_api_key")

    def check_fields(self, body: dict[str, Any], known: set[str]) -> None:
        for name in body:
            if name not in known:
                raise RefusedError(400, f"Unrecognized request argument supplied: {name}", "unknown_parameter")

    def write(
        self, text: str, *, most: int, stops: list[str], allowed: list[str] | None = None, count: int = 1
    ) -> Written:
        """What the model writes; a word is a token."""
        if allowed is not None:
            words = [allowed[place % len(allowed)] for place in range(count)]
            return Written(" ".join(words), "stop", len(" ".join(words).split()), words)
        reply = self.reply(text) if callable(self.reply) else self.reply
        reason = "stop"
        places = [reply.index(stop) for stop in stops if stop in reply]
        if places:
            reply = reply[: min(places)]
        pieces = re.findall(r"\s*\S+|\s+$", reply)
        if len(pieces) > most:
            reply, reason = "".join(pieces[:most]), "length"
        return Written(reply, reason, min(len(pieces), most), [])

    def count(self, text: str) -> int:
        return len(text.split())

    def check_window(self, text: str) -> None:
        tokens = self.count(text)
        if tokens > self.window:
            raise RefusedError(400, *self.too_long(tokens))

    def too_long(self, tokens: int) -> tuple[str, str | None]:
        return (
            f"This model's maximum context length is {self.window} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
        )


@dataclass
class Written:
    """A model's answer: text, why it ended, tokens, and the words where it was constrained."""

    text: str
    reason: str
    tokens: int
    words: list[str]


def allowed_by_schema(schema: dict[str, Any]) -> tuple[list[str], int, Callable[[list[str]], str]]:
    """What a schema of ours allows: the words, how many, and how they become JSON again."""
    if schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"]):
        raise RefusedError(400, "Invalid schema: 'additionalProperties' must be false and all properties required")
    properties = schema["properties"]
    if "answer" in properties:
        one = properties["answer"]
        if one["type"] == "array":
            count = one["minItems"]
            return one["items"]["enum"], count, lambda words: json.dumps({"answer": words})
        return one["enum"], 1, lambda words: json.dumps({"answer": words[0]})
    names = list(properties)
    word = schema["$defs"]["word"]
    return word["enum"], len(names), lambda words: json.dumps(dict(zip(names, words, strict=True)))


def token_entries(text: str) -> list[dict[str, Any]]:
    """Tokens of four bytes at most, half of e each, as OpenAI tells them: characters may be cut in the middle."""
    raw = text.encode()
    pieces = [raw[start : start + 4] for start in range(0, len(raw), 4)]
    return [
        {"token": piece.decode(errors="backslashreplace"), "bytes": list(piece), "logprob": -0.5, "top_logprobs": []}
        for piece in pieces
    ]


class OpenAIChat(Provider):
    """POST /v1/chat/completions, as of openai 3.54."""

    reasoning_always = ("o1", "o3", "o4", "gpt-6-astra", "gpt-6.1-sol")

    def answer(self, request: Request) -> dict[str, Any]:
        from openai.types.chat.completion_create_params import CompletionCreateParamsBase

        self.check_key(request)
        if request.path != "/v1/chat/completions":
            raise RefusedError(404, f"Invalid URL (POST {request.path})")
        body = request.body
        self.check_fields(body, {*CompletionCreateParamsBase.__annotations__, "stream"})
        model, effort = body["model"], body.get("reasoning_effort")
        always = model.startswith(self.reasoning_always) or model in ("gpt-5", "gpt-5-mini", "gpt-5-nano")
        if always and effort == "none":
            raise RefusedError(400, "Unsupported value: 'reasoning_effort' does not support 'none'")
        reasons = always or (model.startswith(("gpt-5.5", "gpt-5.6", "gpt-6")) and effort != "none")
        if effort is not None and model.startswith("gpt-4"):
            raise RefusedError(400, "Unrecognized request argument supplied: reasoning_effort")
        for name in ("temperature", "top_p", "logprobs", "seed", "stop") if reasons else ():
            if name in body:
                raise RefusedError(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        if "max_tokens" in body:
            raise RefusedError(400, "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead.")
        if len(body.get("stop") or ()) > 4:
            raise RefusedError(400, "Invalid 'stop': array too long. Expected an array with maximum length 4")
        if body.get("prompt_cache_options") and not model.startswith(("gpt-5.6", "gpt-6")):
            raise RefusedError(400, "Unsupported parameter: 'prompt_cache_options'")
        text = "\n".join(self.text_of(message["content"], model) for message in body["messages"])
        self.check_window(text)
        allowed, shape, count = None, None, 1
        form = body.get("response_format")
        if form is not None:
            if form["type"] != "json_schema" or not form["json_schema"]["strict"]:
                raise RefusedError(400, "Invalid response_format")
            allowed, count, shape = allowed_by_schema(form["json_schema"]["schema"])
        thought = 5 if reasons else 0
        most = body["max_completion_tokens"] - thought
        written = self.write(text, most=most, stops=body.get("stop") or [], allowed=allowed, count=count)
        content = written.text if shape is None else shape(written.words)
        prefix = body.get("prompt_cache_key")
        cached = 8 if prefix in self.cached else 0
        if prefix:
            self.cached.add(prefix)
        message = {"role": "assistant", "content": content, "refusal": None}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": {"content": token_entries(content)} if body.get("logprobs") else None,
                    "finish_reason": written.reason,
                }
            ],
            "usage": {
                "prompt_tokens": self.count(text),
                "completion_tokens": written.tokens + thought,
                "total_tokens": self.count(text) + written.tokens + thought,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            },
        }

    def text_of(self, content: str | list[dict[str, Any]], model: str) -> str:
        if isinstance(content, str):
            return content
        for part in content:
            if "prompt_cache_breakpoint" in part and not model.startswith(("gpt-5.6", "gpt-6")):
                raise RefusedError(400, "Unknown parameter: 'prompt_cache_breakpoint'")
            if not part["text"]:
                raise RefusedError(400, "empty text content part")
        return "".join(part["text"] for part in content)


class OpenAIResponses(Provider):
    """POST /v1/responses, as of openai 3.54: no stop, no seed, 16 output tokens at the least."""

    def answer(self, request: Request) -> dict[str, Any]:
        from openai.types.responses.response_create_params import ResponseCreateParamsBase

        self.check_key(request)
        if request.path != "/v1/responses":
            raise RefusedError(404, f"Invalid URL (POST {request.path})")
        body = request.body
        self.check_fields(body, {*ResponseCreateParamsBase.__annotations__, "stream"})
        if body.get("max_output_tokens", 16) < 16:
            raise RefusedError(400, "Invalid 'max_output_tokens': integer below minimum value. Expected >= 16")
        if body.get("store") is not False:
            raise RefusedError(400, "these tests want store=False")
        parts = [self.part(one) for message in body["input"] for one in self.parts(message["content"])]
        text = "\n".join([body.get("instructions") or "", "".join(parts)])
        self.check_window(text)
        allowed, shape, count = None, None, 1
        form = (body.get("text") or {}).get("format")
        if form is not None:
            allowed, count, shape = allowed_by_schema(form["schema"])
        written = self.write(text, most=body["max_output_tokens"], stops=[], allowed=allowed, count=count)
        content = written.text if shape is None else shape(written.words)
        cut = written.reason == "length"
        told = token_entries(content) if body.get("include") == ["message.output_text.logprobs"] else []
        return {
            "id": "resp_1",
            "object": "response",
            "model": body["model"],
            "status": "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": content, "annotations": [], "logprobs": told}],
                },
            ],
            "usage": {
                "input_tokens": self.count(text),
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": written.tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.count(text) + written.tokens,
            },
        }

    def parts(self, content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"type": "input_text", "text": content}] if isinstance(content, str) else content

    def part(self, part: dict[str, Any]) -> str:
        if part["type"] != "input_text":
            raise RefusedError(400, f"Invalid value: {part['type']!r}")
        return str(part["text"])


class AnthropicMessages(Provider):
    """POST /v1/messages, API version 2026-10-21, as of anthropic 2.12."""

    thinks_always = ("claude-opus-5-5", "claude-fable-5", "claude-mythos-5")

    def error(self, status: int, message: str, code: str | None, more: dict[str, Any]) -> dict[str, Any]:
        kinds = {401: "authentication_error", 402: "billing_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(status, "overloaded_error" if status == 529 else "api_error" if status >= 500 else None)
        details = {"details": {"error_code": code}} if code else {}
        return {
            "type": "error",
            "error": {"type": kind or "invalid_request_error", "message": message, **details, **more},
            "request_id": "req_1",
        }

    def check_key(self, request: Request) -> None:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if sent != self.key:
            raise RefusedError(401, f"invalid x-api-key {sent}")

    def answer(self, request: Request) -> dict[str, Any]:
        from anthropic.types.message_create_params import MessageCreateParamsBase

        self.check_key(request)
        if request.path != "/v1/messages":
            raise RefusedError(404, "Not found")
        if "anthropic-version" not in request.headers:
            raise RefusedError(400, "anthropic-version: header is required")
        body = request.body
        self.check_fields(body, {*MessageCreateParamsBase.__annotations__, "stream"})
        model = body["model"]
        blocks = [*body.get("system", []), *(block for message in body["messages"] for block in message["content"])]
        if any(not block["text"].strip() for block in blocks):
            raise RefusedError(400, "messages: text content blocks must contain non-whitespace text")
        if any(not stop.strip() for stop in body.get("stop_sequences") or ()):
            raise RefusedError(400, "stop_sequences: each stop sequence must contain non-whitespace")
        if body["messages"][-1]["role"] != "user":
            raise RefusedError(400, "This model does not support assistant message prefill.")
        thinking = (body.get("thinking") or {}).get("type")
        if model.startswith(self.thinks_always) and thinking in ("disabled", "between_tools"):
            raise RefusedError(400, f"thinking.type: {thinking!r} is not supported on this model")
        if model.startswith("claude-sonnet-5-5") and thinking == "disabled":
            raise RefusedError(400, "thinking.type: use 'between_tools' to turn thinking off")
        by_default = model.startswith(("claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", *self.thinks_always))
        thought = 5 if by_default and thinking not in ("disabled", "between_tools") else 0
        text = "\n".join(block["text"] for block in blocks)
        self.check_window(text)
        allowed, shape, count = None, None, 1
        form = (body.get("output_config") or {}).get("format")
        if form is not None:
            allowed, count, shape = allowed_by_schema(form["schema"])
            if "minItems" in json.dumps(form["schema"]):
                raise RefusedError(400, "output_config.format.schema: minItems above 1 is not supported")
        stops = body.get("stop_sequences") or []
        written = self.write(text, most=body["max_tokens"] - thought, stops=stops, allowed=allowed, count=count)
        content = written.text if shape is None else shape(written.words)
        marked = [block["text"] for block in blocks if "cache_control" in block]
        read, made = (20, 0) if marked and marked[-1] in self.cached else (0, 20) if marked else (0, 0)
        self.cached.update(marked)
        said = [{"type": "text", "text": content}] if content else []
        thoughts = [{"type": "thinking", "thinking": "", "signature": "x"}] if thought else []
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [*thoughts, *said],
            "stop_reason": "max_tokens" if written.reason == "length" else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.count(text),
                "cache_creation_input_tokens": made,
                "cache_read_input_tokens": read,
                "output_tokens": written.tokens + thought,
            },
        }

    def too_long(self, tokens: int) -> tuple[str, str | None]:
        return f"prompt is too long: {tokens} tokens > {self.window} maximum", None


class Compatible(Provider):
    """POST /v1/completions and /v1/chat/completions of a server of one's own; ``dialect``: whose fields it knows."""

    PLAIN = frozenset({"model", "prompt", "messages", "max_tokens", "temperature", "seed", "stop", "response_format"})
    FIELDS: ClassVar[dict[str, frozenset[str]]] = {
        "generic": frozenset(),
        "vllm": frozenset({"structured_outputs", "echo", "logprobs", "prompt_logprobs"}),
        "vllm-0.11": frozenset({"guided_choice", "guided_regex", "echo", "logprobs", "prompt_logprobs"}),
        "llama.cpp": frozenset({"grammar", "echo", "logprobs"}),
        "ollama": frozenset(),
    }

    def __init__(self, dialect: str = "generic", **options: Any) -> None:
        super().__init__(**options)
        self.dialect = dialect
        self.pieces: dict[int, str] = {}

    def answer(self, request: Request) -> dict[str, Any]:
        self.check_key(request)
        if self.dialect == "llama.cpp" and request.path in ("/tokenize", "/completion"):
            return self.own_endpoint(request)
        chat = {"/v1/chat/completions": True, "/v1/completions": False}.get(request.path)
        if chat is None:
            raise RefusedError(404, "page not found")
        body = request.body
        self.check_fields(body, {*self.PLAIN, *self.FIELDS[self.dialect]})
        text = "\n".join(message["content"] for message in body["messages"]) if chat else body["prompt"]
        self.check_window(text)
        allowed, count, shape = self.constraint(body, chat)
        written = self.write(text, most=body["max_tokens"], stops=body.get("stop") or [], allowed=allowed, count=count)
        content = written.text if shape is None else shape(written.words)
        if not chat:
            content = content if content.startswith(" ") else " " + content
        choice: dict[str, Any] = {"index": 0, "finish_reason": written.reason}
        choice |= {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
        if not chat and self.dialect.startswith("vllm"):
            self.echo(body, choice, content)
        return {
            "id": "cmpl-1",
            "object": "chat.completion" if chat else "text_completion",
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": self.count(text), "completion_tokens": written.tokens, "total_tokens": 0},
        }

    def own_endpoint(self, request: Request) -> dict[str, Any]:
        """llama.cpp's /tokenize and /completion: words are tokens, and only a forced token is written."""
        body = request.body
        if request.path == "/tokenize":
            return {"tokens": [0, *(self.token(piece) for piece in re.findall(r"\s|\S+", body["content"]))]}
        if len(body["prompt"]) > self.window:
            raise RefusedError(400, *self.too_long(len(body["prompt"])), n_prompt_tokens=9, n_ctx=self.window)
        (token, _), *_ = body.get("logit_bias") or [[1, 0]]
        piece = self.pieces.get(token, "")
        return {
            "completion_probabilities": [{"id": token, "logprob": self.logprob(piece)}],
            "timings": {"cache_n": 0, "prompt_n": len(body["prompt"]), "predicted_n": 1},
        }

    def token(self, piece: str) -> int:
        number = zlib.crc32(piece.encode())
        self.pieces[number] = piece
        return number

    def constraint(
        self, body: dict[str, Any], chat: bool
    ) -> tuple[list[str] | None, int, Callable[[list[str]], str] | None]:
        form = body.get("response_format")
        if form is not None:
            if self.dialect in ("ollama", "generic") and chat:
                return allowed_by_schema(form["json_schema"]["schema"])
            raise RefusedError(400, "response_format is not supported here")
        options = body.get("structured_outputs") or {
            name.removeprefix("guided_"): body[name] for name in body if name.startswith("guided_")
        }
        if "choice" in options:
            return list(options["choice"]), 1, None
        if "regex" in options:
            words, count = re.fullmatch(r" ?\((.*?)\)\( \(.*\)\)\{(\d+)\}", options["regex"]).groups()
            return [word.replace("\\", "") for word in words.split("|")], int(count) + 1, None
        if "grammar" in body:
            words = re.findall(r'"((?:[^"\\]|\\.)*)"', body["grammar"].partition("word ::=")[2])
            count = re.search(r"\{(\d+)\}", body["grammar"])
            return words, 1 + int(count[1]) if count else 1, None
        return None, 1, None

    def echo(self, body: dict[str, Any], choice: dict[str, Any], content: str) -> None:
        tokens = re.findall(r"\s|\S+", body["prompt"])
        values = [None, *(self.logprob(token) for token in tokens[1:])]
        if "prompt_logprobs" in body:
            choice["prompt_logprobs"] = [None] + [
                {str(place): {"logprob": self.logprob(token), "rank": 1, "decoded_token": token}}
                for place, token in enumerate(tokens)
            ]
        if body.get("echo"):
            made = re.findall(r"\s|\S+", content)
            choice["text"] = body["prompt"] + content
            choice["logprobs"] = {
                "tokens": tokens + made,
                "token_logprobs": values + [-0.1 for _ in made],
                "text_offset": [],
            }

    @staticmethod
    def logprob(token: str) -> float:
        return -len(token) / 10

    def too_long(self, tokens: int) -> tuple[str, str | None]:
        if self.dialect == "llama.cpp":
            message = f"request ({tokens} tokens) exceeds the available context size ({self.window} tokens), try more"
            return message, "exceed_context_size_error"
        return super().too_long(tokens)


class LoopbackServer:
    """A provider behind real HTTP on 127.0.0.1, in a thread of its own.

    faults: taken off one a request, first come first served. delay: seconds before every answer. requests: as they
    came. dropped: requests whose client hung up before the answer. most_at_once: largest number at work together.
    """

    def __init__(self, provider: Provider, *, delay: float = 0.0) -> None:
        self.provider = provider
        self.delay = delay
        self.faults: collections.deque[Fault] = collections.deque()
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.dropped = 0
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback-provider", daemon=True)
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """What an SDK wants as base URL: OpenAI's with the version, Anthropic's without."""
        root = f"http://127.0.0.1:{self.port}"
        return root if isinstance(self.provider, AnthropicMessages) else root + "/v1"

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        self.faults.clear()
        self.requests.clear()
        self.times.clear()
        self.dropped = self.most_at_once = 0
        self.provider.cached.clear()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Whether something came true in time; for what the server's thread does."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.002)
        return condition()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await self._read(reader)) is not None:
                if not await self._respond(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        content = await reader.readexactly(int(headers.get("content-length") or 0))
        return Request(head[0].split(" ")[1].partition("?")[0], headers, json.loads(content or b"{}"))

    async def _respond(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer; False ends the connection."""
        self.requests.append(request)
        self.times.append(time.monotonic())
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.reset:
            # Linger of zero seconds: the peer sees a reset, not an orderly end.
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        status, headers, body = self._answer(request, fault)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.delay or fault.slow:
                gone = asyncio.ensure_future(reader.read(1))
                done, _ = await asyncio.wait([gone], timeout=self.delay + fault.slow)
                if done:
                    self.dropped += 1
                    return False
                gone.cancel()
                # Until it has let go of the reader, the next request cannot be read.
                await asyncio.wait([gone])
        finally:
            self._at_once -= 1
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in {"content-type": "application/json", **headers}.items()]
        sent = body[: len(body) // 2] if fault.truncated else body
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + sent)
        await writer.drain()
        return not fault.truncated

    def _answer(self, request: Request, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        if fault.raw is not None:
            return 200, fault.headers, fault.raw
        if fault.status is not None:
            body = fault.body
            if body is None:
                body = self.provider.error(fault.status, fault.message, fault.code, {})
            return fault.status, fault.headers, body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            return 200, fault.headers, json.dumps(self.provider.answer(request)).encode()
        except RefusedError as refused:
            body = self.provider.error(refused.status, refused.message, refused.code, refused.more)
            return refused.status, {}, json.dumps(body).encode()

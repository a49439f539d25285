"""Loopback servers that speak the batch endpoints of OpenAI (files, batches) and Anthropic (messages/batches).

Knows: the wire formats, and how a batch may go wrong. Refuses to know: our code. Real HTTP, no provider is asked.

    with OpenAIBatchServer() as server:
        server.faults["POST /batches"].append(Fault(status=500))
        server.results["what?"] = Refused(400, {"code": "bad", "message": "no"})

A batch ends at the ``looks``-th look at it, unless ``held``. Each question is answered by itself in capitals.
"""

from __future__ import annotations

import collections
import datetime
import email.parser
import email.policy
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CANARY = "sk-canary-51d0c2b7e94f-batch-do-not-print"
"""The key that every server wants. It must show up nowhere."""


@dataclass
class Fault:
    """What happens to one request. after: do what is asked first, then fail, as when an answer is lost on its way.

    status, headers: an error answer. raw: this body with status 200. None of them: the connection is cut. cut: half of
    a good answer, then the end of the connection.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    after: bool = False
    cut: bool = False


@dataclass
class Refused:
    """A request of a batch that ends in an error object."""

    status: int
    error: dict[str, Any]


class Expired:
    """A request of a batch that was not got to in time."""


class Cancelled:
    """A request of a batch that was cancelled."""


class Missing:
    """A request of a batch that no line of the results speaks of."""


@dataclass
class Raw:
    """A line of the results as it is."""

    line: bytes


@dataclass
class Odd:
    """A request that succeeded with a body that is no answer."""

    body: Any


@dataclass
class Lines:
    """A batch on the server: its lines, and what became of it."""

    id: str
    lines: list[dict[str, Any]]
    endpoint: str
    metadata: dict[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    looks: int = 0
    status: str = "in_progress"


class RefusedError(Exception):
    """The server's own refusal of a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BatchServer:
    """What both servers share. Attributes may be set at any time."""

    def __init__(self) -> None:
        self.faults: dict[str, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self.results: dict[str, Any] = {}
        self.log: list[str] = []
        self.batches: list[Lines] = []
        self.looks = 2
        self.held = False
        self.ends_as: str | None = None
        self.bodies: list[bytes] = []
        self.lock = threading.RLock()
        self._shuffle = random.Random(7)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> BatchServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The base URL for the SDK."""
        raise NotImplementedError

    def count(self, route: str) -> int:
        """How many requests of a route came, failed ones too."""
        return self.log.count(route)

    @property
    def asked(self) -> list[str]:
        """The questions of all batches, one entry for each time one was submitted."""
        return [self.question(line) for batch in self.batches for line in batch.lines]

    # ---- for the two formats ----

    def authorised(self, headers: dict[str, str]) -> bool:
        return headers.get("authorization") == f"Bearer {CANARY}" or headers.get("x-api-key") == CANARY

    def question(self, line: dict[str, Any]) -> str:
        raise NotImplementedError

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> bytes:
        raise NotImplementedError

    def route(self, method: str, path: str) -> str:
        """The name of a route: ids are left out."""
        shown = re.sub(r"/(file|batch|msgbatch)[-_][\w-]+", "/ID", path)
        return f"{method} {shown.removeprefix('/v1')}"

    def step(self, batch: Lines) -> None:
        """One look at a batch; it may end with it."""
        batch.looks += 1
        if batch.status == "in_progress" and not self.held and batch.looks >= self.looks:
            batch.status = "ended"

    def find(self, batch_id: str) -> Lines:
        for batch in self.batches:
            if batch.id == batch_id:
                return batch
        raise RefusedError(404, f"no batch {batch_id}")

    def shuffled(self, lines: list[bytes]) -> bytes:
        """The lines in another order, one per line."""
        mixed = list(lines)
        self._shuffle.shuffle(mixed)
        return b"".join(line + b"\n" for line in mixed)

    def check(self, lines: list[dict[str, Any]]) -> None:
        """What both providers ask of custom ids."""
        ids = [line.get("custom_id") for line in lines]
        if not ids or len(set(map(str, ids))) != len(ids):
            raise RefusedError(400, "custom ids must be unique, and there must be one at least")
        if not all(isinstance(one, str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids):
            raise RefusedError(400, "a custom id has 1 to 64 letters, digits, underscores and hyphens")

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._serve("GET")

            def do_POST(self) -> None:
                self._serve("POST")

            def _serve(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                parts = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(parts.query))
                headers = {name.lower(): value for name, value in self.headers.items()}
                route = outer.route(method, parts.path)
                with outer.lock:
                    outer.log.append(route)
                    outer.bodies.append(body)
                    fault = outer.faults[route].popleft() if outer.faults[route] else None
                    if fault is None or fault.after or fault.cut:
                        status, content = self._answer(method, parts.path, query, headers, body)
                if fault is None:
                    self._write(status, content)
                elif fault.cut:
                    self._write(status, content, cut=True)
                elif fault.raw is not None:
                    self._write(200, fault.raw)
                elif fault.status is not None:
                    error = {"error": {"type": "made_to_fail", "message": f"made to fail, {CANARY}"}}
                    self._write(fault.status, json.dumps(error).encode(), fault.headers)
                else:
                    self._reset()

            def _answer(self, *request: Any) -> tuple[int, bytes]:
                if not outer.authorised(request[3]):
                    return 401, b'{"error": {"type": "authentication_error", "message": "wrong key"}}'
                try:
                    return 200, outer.handle(*request)
                except RefusedError as error:
                    document = {"error": {"type": "invalid_request_error", "message": str(error)}}
                    return error.status, json.dumps(document).encode()

            def _write(
                self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False
            ) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.wfile.flush()
                    self._reset()

            def _reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        return Handler


class OpenAIBatchServer(BatchServer):
    """Files and batches of OpenAI."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.failure: dict[str, Any] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def question(self, line: dict[str, Any]) -> str:
        if "input" in line["body"]:
            return str(line["body"]["input"][-1]["content"])
        return str(line["body"]["messages"][-1]["content"])

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> bytes:
        parts = path.split("/")[2:]
        if (method, parts) == ("POST", ["files"]):
            return json.dumps(self._upload(headers, body)).encode()
        if (method, parts) == ("POST", ["batches"]):
            return json.dumps(self._create(json.loads(body))).encode()
        if (method, parts) == ("GET", ["batches"]):
            newest = self.batches[::-1]
            start = next((i + 1 for i, batch in enumerate(newest) if batch.id == query.get("after")), 0)
            page = newest[start : start + int(query.get("limit", 20))]
            more = len(newest) > start + len(page)
            document = {"object": "list", "data": [self._shown(one) for one in page], "has_more": more}
            return json.dumps(document).encode()
        if method == "GET" and parts[0] == "batches" and len(parts) == 2:
            batch = self.find(parts[1])
            self.step(batch)
            return json.dumps(self._shown(batch)).encode()
        if method == "GET" and parts[0] == "files" and parts[2:] == ["content"]:
            if parts[1] not in self.files:
                raise RefusedError(404, "no such file")
            return self.files[parts[1]]
        raise RefusedError(404, f"no route {method} {path}")

    def _upload(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        fields = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        if fields["purpose"].get_content().strip() != "batch":
            raise RefusedError(400, "purpose must be batch")
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = fields["file"].get_payload(decode=True)
        return {"id": file_id, "object": "file", "purpose": "batch", "bytes": len(self.files[file_id])}

    def _create(self, document: dict[str, Any]) -> dict[str, Any]:
        if set(document) != {"input_file_id", "endpoint", "completion_window", "metadata"}:
            raise RefusedError(400, f"fields are {sorted(document)}")
        if document["completion_window"] != "24h":
            raise RefusedError(400, "the window must be 24h")
        lines = [json.loads(line) for line in self.files[document["input_file_id"]].splitlines()]
        self.check(lines)
        for line in lines:
            if set(line) != {"custom_id", "method", "url", "body"} or line["url"] != document["endpoint"]:
                raise RefusedError(400, f"a line with {sorted(line)} for {line.get('url')}")
            if line["method"] != "POST" or "model" not in line["body"] or "extra_body" in line["body"]:
                raise RefusedError(400, "a body that the endpoint does not take")
        batch = Lines(f"batch_{len(self.batches) + 1}", lines, document["endpoint"], document["metadata"])
        self.batches.append(batch)
        return self._shown(batch)

    def _shown(self, batch: Lines) -> dict[str, Any]:
        document: dict[str, Any] = {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "completion_window": "24h",
            "created_at": int(batch.created),
            "input_file_id": "file-1",
            "metadata": batch.metadata,
            "status": batch.status,
        }
        if batch.status != "ended":
            return document
        if self.failure is not None:
            return document | {"status": "failed", "errors": {"object": "list", "data": [self.failure]}}
        good, bad = self._results(batch)
        for field_name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                file_id = f"file-{batch.id}-{field_name[:3]}"
                self.files.setdefault(file_id, self.shuffled(lines))
                document[field_name] = file_id
        return document | {"status": self.ends_as or "completed"}

    def _results(self, batch: Lines) -> tuple[list[bytes], list[bytes]]:
        good: list[bytes] = []
        bad: list[bytes] = []
        for number, line in enumerate(batch.lines):
            question = self.question(line)
            result = self.results.get(question)
            document: dict[str, Any] = {"id": f"r{number}", "custom_id": line["custom_id"], "error": None}
            if isinstance(result, Missing):
                continue
            if isinstance(result, Raw):
                good.append(result.line)
            elif isinstance(result, Refused):
                response = {"status_code": result.status, "body": {"error": result.error}}
                bad.append(json.dumps(document | {"response": response}).encode())
            elif isinstance(result, Expired | Cancelled):
                code = "batch_expired" if isinstance(result, Expired) else "batch_cancelled"
                error = {"code": code, "message": "the request could not be executed"}
                bad.append(json.dumps(document | {"response": None, "error": error}).encode())
            else:
                body = result.body if isinstance(result, Odd) else self._body(batch, question)
                response = {"status_code": 200, "request_id": "x", "body": body}
                good.append(json.dumps(document | {"response": response}, ensure_ascii=False).encode())
        return good, bad

    def _body(self, batch: Lines, question: str) -> dict[str, Any]:
        text = question.upper()
        if batch.endpoint == "/v1/responses":
            content = [{"type": "output_text", "text": text, "annotations": []}]
            return {
                "id": "resp_1",
                "object": "response",
                "status": "completed",
                "output": [{"type": "message", "role": "assistant", "content": content}],
                "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
            }
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }


class AnthropicBatchServer(BatchServer):
    """Message batches of Anthropic."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def question(self, line: dict[str, Any]) -> str:
        content = line["params"]["messages"][-1]["content"]
        return str(content if isinstance(content, str) else content[-1]["text"])

    def handle(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> bytes:
        parts = path.split("/")[2:]
        if parts[:2] != ["messages", "batches"]:
            raise RefusedError(404, f"no route {path}")
        if method == "POST" and len(parts) == 2:
            return json.dumps(self._create(json.loads(body))).encode()
        if method == "GET" and len(parts) == 2:
            newest = self.batches[::-1]
            start = next((i + 1 for i, batch in enumerate(newest) if batch.id == query.get("after_id")), 0)
            page = newest[start : start + int(query.get("limit", 20))]
            for batch in page:
                self.step(batch)
            document = {
                "data": [self._shown(batch) for batch in page],
                "has_more": len(newest) > start + len(page),
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
            return json.dumps(document).encode()
        batch = self.find(parts[2])
        if method == "GET" and len(parts) == 3:
            self.step(batch)
            return json.dumps(self._shown(batch)).encode()
        if method == "GET" and parts[3:] == ["results"] and batch.status == "ended":
            return self.shuffled(self._results(batch))
        raise RefusedError(404, f"no route {method} {path}")

    def _create(self, document: dict[str, Any]) -> dict[str, Any]:
        if set(document) != {"requests"}:
            raise RefusedError(400, f"fields are {sorted(document)}")
        self.check(document["requests"])
        for line in document["requests"]:
            if set(line) != {"custom_id", "params"} or not {"model", "max_tokens", "messages"} <= set(line["params"]):
                raise RefusedError(400, "a request without what a message needs")
            if {"temperature", "extra_body", "stream"} & set(line["params"]):
                raise RefusedError(400, "a parameter that the endpoint does not take")
        batch = Lines(f"msgbatch_{len(self.batches) + 1}", document["requests"], "")
        self.batches.append(batch)
        return self._shown(batch)

    def _shown(self, batch: Lines) -> dict[str, Any]:
        ended = batch.status == "ended"
        count = len(batch.lines)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if ended else "processing"] = count
        created = datetime.datetime.fromtimestamp(batch.created, datetime.UTC)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": created.isoformat().replace("+00:00", "Z"),
            "expires_at": (created + datetime.timedelta(days=1)).isoformat(),
            "results_url": f"{self.url}/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def _results(self, batch: Lines) -> list[bytes]:
        lines: list[bytes] = []
        for line in batch.lines:
            question = self.question(line)
            result = self.results.get(question)
            if isinstance(result, Missing):
                continue
            if isinstance(result, Raw):
                lines.append(result.line)
                continue
            shown: dict[str, Any]
            if isinstance(result, Refused):
                shown = {"type": "errored", "error": {"type": "error", "error": result.error}}
            elif isinstance(result, Expired):
                shown = {"type": "expired"}
            elif isinstance(result, Cancelled):
                shown = {"type": "canceled"}
            elif isinstance(result, Odd):
                shown = {"type": "succeeded", "message": result.body}
            else:
                shown = {"type": "succeeded", "message": self._message(question.upper())}
            lines.append(json.dumps({"custom_id": line["custom_id"], "result": shown}, ensure_ascii=False).encode())
        return lines

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 2},
        }

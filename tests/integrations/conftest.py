"""Two grey classes that ASCII art tells apart, a classifier of them, and an OpenAI server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from icl_vision import FewShotClassifier
from icl_vision.llms.fake import FakeLLM
from icl_vision.tokenizers.ascii import AsciiTokenizer

SIZE = 4


def pytest_configure(config: pytest.Config) -> None:
    # langchain-tests marks tests for a plugin that we do not install; unknown marks are errors here.
    config.addinivalue_line("markers", "benchmark: of langchain-tests, for pytest-benchmark; means nothing here")


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (level,) * 3)


def say(prompt: str) -> str:
    """What a good LLM answers: the query's rows are the last in the prompt."""
    return " light" if prompt.rstrip().splitlines()[-2].endswith(".") else " dark"


def make_classifier(llm: Any = None, **options: Any) -> FewShotClassifier:
    llm = FakeLLM(say, scores_text=False) if llm is None else llm
    clf = FewShotClassifier(llm, AsciiTokenizer(SIZE, SIZE), SIZE, **options)
    return clf.fit([grey(250), grey(5), grey(240), grey(15)], ["light", "dark", "light", "dark"])


class OpenAIServer:
    """Speaks Chat Completions. ``behave`` gets a request's body and gives a message, or (status, headers, document)."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.behave: Callable[[dict[str, Any]], Any] = lambda body: {"role": "assistant", "content": "hello"}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append({"path": self.path, **body})
                server.headers.append({key.lower(): value for key, value in self.headers.items()})
                answer = server.behave(body)
                status, headers, document = answer if isinstance(answer, tuple) else (200, {}, completion(body, answer))
                data = json.dumps(document).encode()
                self.send_response(status)
                for key, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Silence."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def completion(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "total_tokens": 107,
            "prompt_tokens_details": {"cached_tokens": 40},
        },
    }


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    server = OpenAIServer()
    yield server
    server.close()


@pytest.fixture(name="grey")
def grey_of() -> Callable[[int], Image.Image]:
    return grey


@pytest.fixture(name="say")
def say_of() -> Callable[[str], str]:
    return say


@pytest.fixture(name="make_classifier")
def maker() -> Callable[..., FewShotClassifier]:
    return make_classifier


@pytest.fixture
def classifier() -> FewShotClassifier:
    return make_classifier()

"""Words embedded by an OpenAI-like endpoint, over real HTTP on loopback."""

from __future__ import annotations

import json
import logging
import traceback

import numpy as np
import pytest
from click.testing import CliRunner
from llm_servers import CANARY, Fault, LoopbackServer, Provider, RefusedError

pytest.importorskip("torch")

from icl_vision.cli import main
from icl_vision.codebook import Codebook
from icl_vision.errors import IclVisionError, LLMResponseError, LLMStatusError, UsageError
from icl_vision.models.words.word_sources import embedding_vectors

WORDS = [f"w{number}" for number in range(23)]


class Embeddings(Provider):
    """POST /v1/embeddings, answering in reverse order."""

    width = 6

    def answer(self, request):
        self.check_key(request)
        if request.path != "/v1/embeddings":
            raise RefusedError(404, f"Invalid URL (POST {request.path})")
        self.check_fields(request.body, {"model", "input", "encoding_format", "dimensions", "user"})
        assert request.body["encoding_format"] == "float"
        rows = [
            {"object": "embedding", "index": place, "embedding": vector(text, self.width)}
            for place, text in enumerate(request.body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "model": request.body["model"], "data": rows[::-1], "usage": usage}


def vector(text: str, width: int) -> list[float]:
    seed = int.from_bytes(text.encode()[-6:], "big")
    return np.random.default_rng(seed).normal(size=width).astype(np.float32).tolist()


def test_batches_come_back_in_order():
    with LoopbackServer(Embeddings()) as server:
        server.faults.append(Fault(status=429, headers={"retry-after": "0"}))
        found = embedding_vectors("embed-small", WORDS, url=server.url, template="a {}", batch_size=10, api_key=CANARY)
    np.testing.assert_array_equal(found.vectors, [vector(f"a {word}", 6) for word in WORDS])
    sizes = [len(request.body["input"]) for request in server.requests]
    # The refused one, whichever reached the server first, came once more.
    assert sorted(sizes) == sorted([sizes[0], 3, 10, 10])
    assert found.provenance == {"embeddings": "embed-small", "template": "a {}", "server": server.url}
    assert "terms" in found.use


def test_openai_s_own_key_and_address(monkeypatch):
    with LoopbackServer(Embeddings()) as server:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        found = embedding_vectors("text-embedding-3-small", ["cat"])
        assert found.vectors.shape == (1, 6) and "server" not in found.provenance


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault(status=401, message=f"bad key {CANARY}"), LLMStatusError, "status 401.*OPENAI_COMPATIBLE_API_KEY"),
        (Fault(status=404, message="no such model"), LLMStatusError, "no such model"),
        (Fault(raw=f"not JSON {CANARY}".encode()), LLMResponseError, "one vector for each of 2 texts"),
        (Fault(raw=b'{"data": []}'), LLMResponseError, "one vector for each of 2 texts"),
        (Fault(raw=b'[{"data": 1}]'), LLMResponseError, "one vector for each of 2 texts"),
        (
            Fault(raw=b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}'),
            LLMResponseError,
            "one vector for each",
        ),
        (
            Fault(raw=b'{"data": [{"index": 0, "embedding": [1, NaN]}, {"index": 1, "embedding": [1, 2]}]}'),
            LLMResponseError,
            "NaN or infinity",
        ),
    ],
)
def test_bad_answers_and_no_key_in_sight(fault, kind, message, caplog):
    caplog.set_level(logging.DEBUG, logger="icl_vision")
    with LoopbackServer(Embeddings()) as server:
        server.faults.extend([fault] * 3)
        with pytest.raises(kind, match=message) as caught:
            embedding_vectors("m", ["a", "b"], url=server.url, api_key=CANARY, attempts=1)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert CANARY not in shown


def test_vectors_of_several_lengths():
    class Uneven(Embeddings):
        def answer(self, request):
            self.width += 1
            return super().answer(request)

    with LoopbackServer(Uneven()) as server, pytest.raises(LLMResponseError, match="vectors of several lengths"):
        embedding_vectors("m", ["a", "b"], url=server.url, api_key=CANARY, batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "word"}, "template must hold one {} where the word goes; got 'word'"),
        ({"batch_size": 0}, "batch_size must be 1 to 2048 words a request; got 0"),
        ({"batch_size": 2049}, "got 2049"),
        ({"url": "ftp://host/v1"}, "base_url must be http"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        embedding_vectors("m", ["a"], **{"url": "http://127.0.0.1:9/v1"} | options)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", CANARY)
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    with LoopbackServer(Embeddings()) as server:
        arguments = [
            "build",
            "codebook",
            "--from",
            f"embeddings:m@{server.url}",
            "--words",
            str(tmp_path / "words.txt"),
        ]
        arguments += ["--dim", "3", "--out", str(tmp_path / "book"), "--batch", "20", "--json"]
        result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    book = Codebook.load(tmp_path / "book")
    assert len(book) == 23 and book.dimension == 3 and book.source_dimension == 6
    assert document["card"]["provenance"]["embeddings"] == "m"
    assert CANARY not in result.output and CANARY not in (tmp_path / "book" / "card.json").read_text()


def test_the_errors_are_ours():
    with pytest.raises(IclVisionError, match="cannot be reached"):
        embedding_vectors("m", ["a"], url="http://127.0.0.1:9/v1", attempts=1)

"""Proxies in front of a server that talks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from proxied import Proxied, Sign, Talker, run

from icl_vision.serving.hosts import Access
from icl_vision.serving.pictures import Limits, Pictures
from icl_vision.serving.proxy.app import proxy
from icl_vision.serving.proxy.headers import Keys
from icl_vision.serving.proxy.upstream import Upstream
from icl_vision.serving.words import PictureWords
from icl_vision.tokenizers import ImageTokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return ImageTokenizer.from_pretrained("describe-photo", reader=Sign())


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def serve(talker: Talker, tokenizer: Any) -> Iterator[Callable[..., Proxied]]:
    """Starts a proxy in front of the talker."""
    with contextlib.ExitStack() as stack:
        behind = run(talker)
        stack.callback(behind.stop)

        def start(
            *,
            access: Access | None = None,
            upstream_key: Any = None,
            limits: Limits | None = None,
            url: str | None = None,
            roots: Any = None,
            fetcher: Any = None,
            captioner: Any = None,
            seconds: float = 20.0,
        ) -> Proxied:
            access = access or Access()
            upstream = Upstream(url or behind.url, Keys(access, upstream_key), seconds=seconds)
            pictures = Pictures(limits, roots, fetcher)
            words = PictureWords(tokenizer, limits=limits, captioner=captioner)
            running = run(proxy(upstream, pictures, words, access))
            stack.callback(running.stop)
            return Proxied(running.url, talker, words)

        yield start


@pytest.fixture
async def lines(tokenizer: Any) -> AsyncIterator[Callable[..., Any]]:
    """The words of a picture for a question, as they should stand in a prompt."""
    words = PictureWords(tokenizer)

    async def line(data: bytes, question: str | None) -> str:
        return await words.line(data, question)

    yield line
    words.close()

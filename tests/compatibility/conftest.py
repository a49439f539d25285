"""What tests of old files share: the files of version 0.1.0, and the working folder that they speak of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = TESTS / "fixtures" / "v0_1_0"
for folder in (FILES, TESTS / "llms"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def files() -> Path:
    """The folder of the old files; read only."""
    return FILES


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, made anew, as the current one; with a cache of its own."""
    from scenarios import make_workspace

    folder = make_workspace(tmp_path / "work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every request to a fake LLM from here on."""
    from icl_vision.llms import FakeLLM

    found: list[Any] = []
    complete, score = FakeLLM._complete, FakeLLM._score

    async def counted_complete(self: Any, prompt: Any, **settings: Any) -> Any:
        found.append(prompt)
        return await complete(self, prompt, **settings)

    async def counted_score(self: Any, pairs: Any, **settings: Any) -> Any:
        found.extend(pairs)
        return await score(self, pairs, **settings)

    monkeypatch.setattr(FakeLLM, "_complete", counted_complete)
    monkeypatch.setattr(FakeLLM, "_score", counted_score)
    yield found

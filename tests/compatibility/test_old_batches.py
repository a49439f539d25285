"""Batch folders of 0.1.0, one batch collected and one under way: nothing is submitted or paid for again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from icl_vision.contracts import Completion
from icl_vision.errors import LLMStatusError


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_half_collected_folder_is_collected(provider: str, files: Path, work: Path) -> None:
    from batch_servers import CANARY, AnthropicBatchServer, Lines, OpenAIBatchServer
    from calls import QUESTIONS, batch_llm

    old = json.loads((files / "batches" / f"{provider}.json").read_text(encoding="utf-8"))
    folder = work / provider
    shutil.copytree(files / "batches" / provider, folder)
    with OpenAIBatchServer() if provider == "openai" else AnthropicBatchServer() as server:
        server.batches.append(Lines(**old["under_way"]))
        with batch_llm(provider, server.url, CANARY, folder) as llm:
            found = llm.collect_sync()
            assert list(found) == old["first"] + old["second"]
            first = [found[key] for key in old["first"]]
            assert [getattr(one, "text", type(one).__name__) for one in first] == old["outcomes"]
            assert isinstance(first[1], LLMStatusError) and "made to fail" in str(first[1])
            second = [found[key] for key in old["second"]]
            assert [one.text for one in second if isinstance(one, Completion)] == [one.upper() for one in QUESTIONS[3:]]
            # The same questions are known, and only the one that failed is submitted again.
            assert len(server.batches) == 1
            again = llm.submit_sync(QUESTIONS, max_tokens=8)
            assert list(again) == old["first"] + old["second"]
            assert [len(batch.lines) for batch in server.batches] == [2, 1]
            assert server.question(server.batches[-1].lines[0]) == QUESTIONS[1]

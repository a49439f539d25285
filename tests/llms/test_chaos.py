"""The short form of benchmarks/bench_chaos.py: a failing provider loses nothing, doubles nothing, mixes nothing up."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from scripts import loaded

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return loaded(BENCHMARKS / "bench_chaos.py")


@pytest.mark.parametrize("way", ["script", "notebook", "agent"])
def test_every_request_ends_once_as_an_answer_or_an_error_of_ours(bench: ModuleType, tmp_path: Path, way: str) -> None:
    if way == "agent":
        pytest.importorskip("langchain_core")
    row = bench.one_way(way, 50, tmp_path / "run", seed=3, chaos=0.4)
    assert row["lost"] == row["duplicated"] == row["wrong"] == row["foreign_errors"] == 0
    assert row["answers"] + sum(row["errors"].values()) == 50
    assert row["answers"] > 40
    assert not any(row["stored_wrongly"].values()) and not bench.failed(row)
    # It was chaos indeed.
    fates = row["server"]["fates"]
    assert sum(fates.values()) - fates["answer"] > 15 and len(fates) > 8


def test_what_is_stored_wrongly_is_counted(bench: ModuleType, tmp_path: Path) -> None:
    cache = bench.ResponseCache(tmp_path / "answers.sqlite")
    clf = bench.classifier_for("http://127.0.0.1:9/v1", cache)
    images = {f"image {number}": bench.numbered(number) for number in range(3)}
    wanted = {name: bench.expected_label(clf, image) for name, image in images.items()}
    for row in ({"text": "red", "finish_reason": "content_filter"}, {"text": "", "finish_reason": "stop"}):
        cache.put(str(row), row)
    clf.llm_.close()
    lines = [{"id": "image 0#1", "result": {"label": None}}, {"id": "image 1#1", "error": {"type": "LLMStatusError"}}]
    found = bench.stored_wrongly(clf, cache, images, lines, wanted)
    assert found == {"journal": 1, "rows": 2, "cache": 0, "answers_not_in_the_cache": 1}
    cache.close()

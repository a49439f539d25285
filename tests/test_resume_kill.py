"""The short form of benchmarks/bench_resume.py: kill -9, resume, and nothing is lost or asked for nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("bench_resume", BENCHMARKS / "bench_resume.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_resume"] = module
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classify", "eval few-shot", "generate", "tokenize", "train"])
def test_a_killed_run_comes_back_with_the_results_of_an_undisturbed_one(
    bench: ModuleType, name: str, tmp_path: Path
) -> None:
    if name == "train":
        pytest.importorskip("lightning_fabric")
    found = bench.measure(name, tmp_path, size=60, kills=3, seed=0)
    assert found["kills"] == 3 and found["items"] >= 30
    assert bench.faults(name, found) == []
    if name in ("classify", "eval few-shot"):
        assert found["requests_undisturbed"] == found["items"] == 60


def test_what_is_wrong_with_a_run_is_named(bench: ModuleType) -> None:
    good = {"lost": 0, "duplicated": 0, "failed": 0, "errors": 0, "equal": 2, "runs": 2, "kills": 3}
    assert bench.faults("a", good | {"asked_again": 3, "in_flight_at_most": 3}) == []
    bad = {**good, "lost": 1, "equal": 1, "asked_again": 4, "in_flight_at_most": 3}
    assert bench.faults("a", bad) == ["a: lost", "a: equal", "a: asked_again"]
    assert bench.faults("t", good | {"steps_again": 13, "steps_between_checkpoints": 4}) == ["t: steps_again"]
    assert bench.finished(b'{"id": "x", "result": 1}\n{"id": "y", "error": 1}\n{"id": "x", "result": 2}\n{"id') == {
        "x": 2
    }


def test_parts_of_a_measurement_are_added_up(bench: ModuleType) -> None:
    part = {"case": "classify", "seed": 1, "items": 9, "kills": 3, "runs": 2, "equal": 2, "lost": 0, "duplicated": 0,
            "failed": 0, "errors": 0, "asked_again": 4, "in_flight_at_most": 24, "moments": []}  # fmt: skip
    whole = bench.summed([part, {**part, "seed": 2, "kills": 4, "lost": 1}])
    assert whole["kills"] == 7 and whole["faults"] == ["classify: lost"]
    assert whole["cases"]["classify"] | {"kills": 7, "asked_again": 8, "lost": 1} == whole["cases"]["classify"]

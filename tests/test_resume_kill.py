"""The short form of benchmarks/bench_resume.py: kill -9, resume, and nothing is lost or asked for nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_a_killed_run_comes_back_with_the_results_of_an_undisturbed_one(tmp_path: Path) -> None:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("bench_resume", BENCHMARKS / "bench_resume.py")
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    sys.path[:] = path
    found = bench.measure(tmp_path, images=60, kills=3, seed=0)
    assert found["exit_codes"] == [0, 0] and found["errors"] == 0
    assert found["kills"] == 3
    assert found["equal"] and found["lost"] == 0 and found["duplicated"] == 0
    assert found["requests_undisturbed"] == 60
    assert found["asked_again"] <= found["in_flight_at_most"]

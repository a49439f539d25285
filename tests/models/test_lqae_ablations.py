"""benchmarks/lqae_ablations.py: runs are added to a result file, rows of before stand until there are as many seeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import loaded

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FACTS = {"steps": 110, "episodes": 4}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded(BENCHMARKS / "lqae_ablations.py")


def run(psnr: float, right: str) -> dict[str, Any]:
    """What one training measured."""
    ways = {f"{ways}-way{part}": right for ways in (2, 5) for part in ("", *(f", first {k}%" for k in (25, 50, 75)))}
    return {"words": 64, "psnr": [psnr, psnr + 1], "used": 0.5, "perplexity": 100.0, **ways}


def test_runs_are_added_and_rows_of_before_stand(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    old = {"seeds": 2, "words": 64, "settings": [], "used": [0.1, 0.1], "perplexity": [9.0, 9.0]}
    file.write_text(json.dumps(FACTS | {"rows": {"MLM 0": old, "MLM 1": old | {"seeds": 1}}}), encoding="utf-8")
    runs, rows = script.earlier(file, FACTS)
    assert runs == {} and set(rows) == {"MLM 0", "MLM 1"}
    runs = {
        "base": {"0": run(10, "1100"), "1": run(12, "1000")},
        "MLM 0": {"1": run(13, "1110")},
        "MLM 1": {"0": run(9, "0000"), "2": run(8, "0000")},
    }
    script.write(file, FACTS, runs, rows)
    kept, table = script.earlier(file, FACTS)
    assert kept == runs
    assert table["MLM 0"] == old  # of seeds 0 and 1, and 0 is not among the runs
    assert table["base"]["5-way"] == {"mean": 0.375, "by_seed": [0.5, 0.25]} and table["base"]["seeds"] == [0, 1]
    # Compared with the base at the seed that both have.
    assert table["MLM 1"]["psnr"]["to_base"]["difference"] == pytest.approx(-1)
    assert table["MLM 1"]["5-way"]["to_base"]["seeds"] == [0]
    assert table["first 25% of the words"]["5-way"]["mean"] == 0.375 and "psnr" not in table["first 25% of the words"]


def test_a_file_of_other_facts_is_refused(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    script.write(file, FACTS, {"base": {"0": run(10, "1100")}}, {})
    with pytest.raises(SystemExit, match="steps"):
        script.earlier(file, FACTS | {"steps": 3})

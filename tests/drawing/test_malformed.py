"""The short form of benchmarks/bench_progressive.py's fuzz: malformed answers are repaired or refused, and said so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from icl_vision.drawing import Change, SegmentAnswer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from malformed_answers import KINDS, fuzz, guesses


@pytest.mark.parametrize("seed", [0, 1])
def test_no_crash_and_no_silent_guess(seed: int) -> None:
    found = fuzz(60, seed)
    assert found["crashes"] == []
    assert found["silent"] == []
    assert found["read"] + found["refused"] == found["segments"] > 20
    assert set(found["kinds"]) <= set(KINDS)


def test_the_check_sees_a_guess() -> None:
    assert guesses(SegmentAnswer(("line",), texts=("line",))) == []
    assert guesses(SegmentAnswer(("line",), (Change("folded", 1, "LINE", "line"),), ("LINE",))) == []
    assert "stood in no answer" in guesses(SegmentAnswer(("gap",), texts=("line",)))[0]
    assert "without a change named" in guesses(SegmentAnswer(("line",), texts=("line gap",)))[0]

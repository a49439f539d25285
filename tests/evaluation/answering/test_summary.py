"""A run summed up: figures, what is compared with what, and the share of a gap."""

from __future__ import annotations

from typing import Any

import pytest

from icl_vision.contracts import Usage
from icl_vision.evaluation.answering.readers import Question
from icl_vision.evaluation.answering.rows import parse_rows
from icl_vision.evaluation.answering.summary import gap_texts, render, summarise

ITEMS = [Question(str(n), (), "what", ("x",), "colour" if n % 2 else "object") for n in range(40)]
RIGHT = {
    "blind:fused": 10, "describe:fused": 20, "caption:fused": 30, "blind:greedy": 12, "caption:greedy": 28, "prior": 5,
}  # fmt: skip


def line(row: str, item: int, score: float | None) -> dict[str, Any]:
    return {
        "row": row, "item": str(item), "type": ITEMS[item].type, "answer": "x" if score else "", "score": score,
        "method": row.partition(":")[2] or None, "note": "" if score is not None else "exceeds window", "tokens": 4,
        "weighed": 60, "usage": Usage(requests=2, prompt_tokens=100).to_dict(), "seconds": 0.5,
    }  # fmt: skip


def summed(right: dict[str, int] = RIGHT, metric: str = "exact") -> dict[str, Any]:
    rows = parse_rows(list(right), "answers", scores_text=True)
    # In an order that is chance: nothing may depend on it.
    lines = [line(row, item, float(item < count)) for row, count in right.items() for item in reversed(range(40))]
    return summarise(lines, rows, ITEMS, metric)


def test_the_share_of_the_gap_is_told_for_both_ways_of_asking() -> None:
    results = summed()
    fused, greedy = results["gaps"]
    assert fused["rows"] == ["describe:fused", "blind:fused", "caption:fused"] and fused["share"] == 0.5
    assert greedy["rows"] == ["describe:fused", "blind:greedy", "caption:greedy"] and greedy["share"] == pytest.approx(
        0.5
    )
    assert 0.2 < fused["interval"][0] < 0.5 < fused["interval"][1] < 0.8 and fused["n"] == 40
    assert gap_texts(results)[0].startswith(
        "describe:fused goes 50% of the way from blind:fused to caption:fused (95% "
    )
    none = summed(RIGHT | {"caption:fused": 10})
    assert none["gaps"][0]["share"] is None and "there is no gap to close" in gap_texts(none)[0]
    assert summed({"blind:fused": 3, "prior": 2})["gaps"] == []


def test_the_row_that_a_table_is_about_is_compared_with_all_others_and_by_type() -> None:
    pairs = [(*pair["rows"], pair["type"]) for pair in summed()["comparisons"]]
    assert pairs == [
        ("describe:fused", "blind:fused", ""),
        ("describe:fused", "caption:fused", ""),
        ("describe:fused", "blind:greedy", ""),
        ("describe:fused", "caption:greedy", ""),
        ("describe:fused", "prior", ""),
        ("caption:fused", "blind:fused", ""),
        ("caption:greedy", "blind:greedy", ""),
        ("describe:fused", "prior", "colour"),
        ("describe:fused", "prior", "object"),
    ]
    guessed = summed({**RIGHT, "constant": 8})["comparisons"]
    assert [pair["rows"][1] for pair in guessed if pair["type"]] == ["constant", "constant"]
    first = summed()["comparisons"][0]
    assert (first["only_a"], first["only_b"], first["difference"]) == (10, 0, 0.25)
    assert first["p"] == pytest.approx(2 / 2**10) and first["p_holm"] > first["p"] and first["verdict"] == "better"


def test_figures_and_costs_of_a_row() -> None:
    row = next(row for row in summed()["rows"] if row["name"] == "describe:fused")
    assert row["figure"]["accuracy"] == 0.5 and row["figure"]["n"] == 40 and row["figure"]["scorer"] == "exact"
    assert row["by_type"]["colour"]["n"] == 20 and row["empty"] == 20 and row["methods"] == {"fused": 40}
    assert (row["requests"], row["prompt_tokens"], row["words_weighed"], row["seconds"]) == (2, 100, 60, 0.5)
    assert "20 answers empty" in render(summed())


def test_what_could_not_be_had_is_counted_apart() -> None:
    rows = parse_rows(["blind:greedy"], "answers", scores_text=True)
    lines = [line("blind:greedy", item, 1.0 if item < 10 else None) for item in range(30)]
    results = summarise(lines, rows, ITEMS, "exact")
    (row,) = results["rows"]
    assert row["figure"]["n"] == 10 and row["not_asked"] == 20 and row["note"] == "exceeds window"
    assert results["missing"] == 10


def test_graded_scores_have_a_bootstrap_and_no_test() -> None:
    results = summed({"blind:fused": 10, "describe:fused": 20}, "vqa")
    pair = results["comparisons"][0]
    assert pair["verdict"] == "better" and "p" not in pair and pair["interval"][0] > 0
    assert results["rows"][0]["figure"]["mean"] == 0.25 and "bootstrap" in results["methods"]["interval"]

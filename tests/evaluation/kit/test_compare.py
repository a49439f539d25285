"""Paired comparison: exact p and intervals against values by hand and from print, and runs told apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_vision.errors import RunError, RunMismatchError, UsageError
from icl_vision.evaluation.kit.compare import compare_rows, compare_runs, holm, mcnemar_exact, paired_interval
from icl_vision.files.runs import Run

SETTING = "2w-1s-0r-i"


def item(
    number: int, right: dict[str, bool], setting: str = SETTING, names: tuple[str, str] = ("cat", "dog")
) -> dict[str, Any]:
    """An item as the benchmark journals it; ``names``: of the two classes."""
    first, second = names
    return {
        "id": f"e{number:05d}/{setting}",
        "episode": number,
        "setting": setting,
        "labels": [first, second],
        "support": [
            {"image": f"c/{number}.jpg", "label": first, "words": ["fur"]},
            {"image": f"d/{number}.jpg", "label": second, "words": ["bark"]},
        ],
        "query": {"image": f"c/q{number}.jpg", "label": first, "words": ["paw"]},
        "prompts": {},
        "answers": {
            row: {"label": first, "right": value, "raw": None, "probabilities": None, "calls": 1}
            for row, value in right.items()
        },
        "usage": {},
    }


def make(folder: Path, items: list[dict[str, Any]]) -> Path:
    Run.open(folder, "eval few-shot", {"name": folder.name}).close()
    lines = [json.dumps({"id": one["id"], "result": one}) + "\n" for one in items]
    (folder / "journal.jsonl").write_text("".join(lines))  # at once: a line each through Run is synced to disk
    return folder


def series(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def pair_of_runs(folder: Path, counts: tuple[int, int, int, int]) -> tuple[Path, Path]:
    a, b = series(*counts)
    return (
        make(folder / "a", [item(n, {"likelihood": right}) for n, right in enumerate(a)]),
        make(folder / "b", [item(n, {"likelihood": right}) for n, right in enumerate(b)]),
    )


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 7, 2 * (1 + 8) / 256),  # 0.0703: Fagerland, Lydersen, Laake, BMC Med Res Methodol 13 (2013) 91, table 5
        (2, 9, 2 * (1 + 11 + 55) / 2048),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p, rel=1e-12)
    assert mcnemar_exact(only_b, only_a) == mcnemar_exact(only_a, only_b)


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    assert 0 <= mcnemar_exact(0, 5000) < 1e-300
    assert mcnemar_exact(2500, 2500) == 1.0
    with pytest.raises(UsageError, match="0 or more; got -1 and 3"):
        mcnemar_exact(-1, 3)


def test_interval_published_value() -> None:
    # Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014), airway data (1, 1, 7, 12): -0.517 to -0.026
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 10, 400])
def test_interval_without_discordant_pairs_has_the_width_of_its_closed_form(n: int) -> None:
    # with only_a = only_b = 0 the score equation becomes n d^2 = z^2 |d| (1 - |d|)
    z2 = 1.959963984540054**2
    assert paired_interval(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), abs=1e-9)


@given(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)).filter(lambda counts: sum(counts) > 0))
def test_interval_is_symmetric_holds_the_difference_and_stays_inside(counts: tuple[int, int, int]) -> None:
    only_a, only_b, rest = counts
    n = only_a + only_b + rest
    low, high = paired_interval(only_a, only_b, n)
    assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    other = paired_interval(only_b, only_a, n)
    assert (-other[1], -other[0]) == pytest.approx((low, high), abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_interval_leaves_out_zero_where_mcnemars_statistic_does(only_a: int, only_b: int, rest: int) -> None:
    n = only_a + only_b + rest
    if n == 0:
        assert paired_interval(0, 0, 0) == (-1.0, 1.0)
        return
    statistic = abs(only_a - only_b) / math.sqrt(only_a + only_b) if only_a + only_b else 0.0
    low, high = paired_interval(only_a, only_b, n)
    if abs(statistic - 1.959963984540054) > 1e-6:
        assert (low > 0 or high < 0) == (statistic > 1.959963984540054)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Every table of 20 pairs, weighed by its probability: no simulation, no luck."""
    n, p_a, p_b = 20, 0.30, 0.12
    covered = 0.0
    for only_a in range(n + 1):
        for only_b in range(n + 1 - only_a):
            rest = n - only_a - only_b
            ways = math.factorial(n) // (math.factorial(only_a) * math.factorial(only_b) * math.factorial(rest))
            low, high = paired_interval(only_a, only_b, n)
            if low <= p_a - p_b <= high:
                covered += ways * p_a**only_a * p_b**only_b * (1 - p_a - p_b) ** rest
    assert 0.93 < covered < 0.975


def test_interval_refuses_impossible_counts() -> None:
    for counts in ((-1, 0, 5), (3, 3, 5)):
        with pytest.raises(UsageError, match="at most n together"):
            paired_interval(*counts)


def test_holm_by_hand() -> None:
    assert holm([]) == [] and holm([0.04]) == [0.04]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_different_runs_are_told_apart(tmp_path: Path) -> None:
    a, b = pair_of_runs(tmp_path, (50, 20, 4, 26))
    (found,) = compare_runs(a, b).pairs
    assert (found.n, found.only_a, found.only_b) == (100, 20, 4)
    assert (found.a.accuracy, found.b.accuracy) == (0.70, 0.54)
    assert found.difference == pytest.approx(0.16)
    assert found.interval == paired_interval(20, 4, 100)
    assert found.p == found.p_holm == mcnemar_exact(20, 4) < 0.01
    assert found.verdict == "better" and found.non_inferior
    (other,) = compare_runs(b, a).pairs
    assert other.verdict == "worse" and not other.non_inferior and other.p == found.p


def test_a_run_is_not_told_apart_from_itself(tmp_path: Path) -> None:
    a, b = pair_of_runs(tmp_path, (300, 0, 0, 100))
    (found,) = compare_runs(a, b).pairs
    assert (found.p, found.difference, found.verdict) == (1.0, 0.0, "no difference shown")
    assert found.interval[0] < 0 < found.interval[1] and found.non_inferior


def test_few_questions_do_not_show_non_inferiority(tmp_path: Path) -> None:
    a, b = pair_of_runs(tmp_path, (10, 2, 2, 6))
    (found,) = compare_runs(a, b).pairs
    assert found.verdict == "no difference shown" and not found.non_inferior
    assert compare_runs(a, b, margin=0.5).pairs[0].non_inferior


def test_two_rows_of_one_run(tmp_path: Path) -> None:
    a, b = series(40, 15, 3, 22)
    items = [item(n, {"likelihood": x, "words_prototype": y}) for n, (x, y) in enumerate(zip(a, b, strict=True))]
    found = compare_rows(make(tmp_path / "run", items), "likelihood", "words_prototype")
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.only_a, pair.only_b) == ("likelihood", "words_prototype", 15, 3)
    document = json.loads(json.dumps(found.to_dict()))
    assert document["comparisons"][0]["rows"] == ["likelihood", "words_prototype"]
    assert "Tango" in document["methods"]["interval"] and "McNemar" in document["methods"]["test"]


def test_settings_are_apart_and_corrected_together(tmp_path: Path) -> None:
    a, b = series(10, 8, 0, 2)
    other = "5w-1s-0r-i"
    runs = []
    for name, right in (("a", a), ("b", b)):
        items = [item(n, {"likelihood": x}, setting) for setting in (SETTING, other) for n, x in enumerate(right)]
        runs.append(make(tmp_path / name, items))
    pairs = compare_runs(*runs).pairs
    assert [pair.setting for pair in pairs] == [SETTING, other]
    assert [pair.p for pair in pairs] == [2 / 256] * 2 and [pair.p_holm for pair in pairs] == [4 / 256] * 2
    (alone,) = compare_runs(*runs, settings=[other]).pairs
    assert alone.setting == other and alone.p_holm == alone.p
    with pytest.raises(UsageError, match="no setting '9w-1s-0r-i' in both; there are 2w-1s-0r-i, 5w-1s-0r-i"):
        compare_runs(*runs, settings=["9w-1s-0r-i"])


def test_only_common_questions_count(tmp_path: Path) -> None:
    a = make(
        tmp_path / "a",
        [item(n, {"likelihood": True, "control": True} if n < 5 else {"likelihood": True}) for n in range(20)],
    )
    b = make(tmp_path / "b", [item(n, {"likelihood": False}) for n in range(8)])
    found = compare_runs(a, b)
    assert found.pairs[0].n == 8 and found.unpaired == 12
    assert compare_rows(a, "likelihood", "control").pairs[0].n == 5
    with pytest.raises(UsageError, match="no row 'control' in the run; there are likelihood"):
        compare_runs(a, b, rows=["control"])


def test_names_order_and_words_may_differ_questions_may_not(tmp_path: Path) -> None:
    plain = item(0, {"likelihood": True})
    same = item(0, {"likelihood": False}, names=("dax", "blicket"))
    same["support"].reverse()
    same["query"]["words"] = ["other"]
    a = make(tmp_path / "a", [plain])
    assert compare_runs(a, make(tmp_path / "b", [same])).pairs[0].n == 1
    for name, change in (
        ("query", lambda one: one["query"].update(image="c/other.jpg")),
        ("support", lambda one: one["support"][0].update(image="c/other.jpg")),
        ("class", lambda one: one["query"].update(label="dog")),
    ):
        changed = item(0, {"likelihood": True})
        change(changed)
        other = make(tmp_path / name, [changed])
        with pytest.raises(RunMismatchError, match="different questions under the same name: 1 of 1, first 'e00000/"):
            compare_runs(a, other)
    with pytest.raises(RunMismatchError, match="no item in common"):
        compare_runs(a, make(tmp_path / "far", [item(7, {"likelihood": True})]))


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a, b = pair_of_runs(tmp_path, (1, 1, 1, 1))
    with pytest.raises(UsageError, match="a row compared with itself says nothing; got 'likelihood' twice"):
        compare_rows(a, "likelihood", "likelihood")
    with pytest.raises(UsageError, match="margin must be a share from 0 to below 1; got 5"):
        compare_runs(a, b, margin=5)
    with pytest.raises(RunError, match="holds no run"):
        compare_runs(a, tmp_path)
    with pytest.raises(RunError, match="holds no finished item"):
        compare_runs(a, make(tmp_path / "empty", []))
    with Run.open(tmp_path / "other", "classify", {}) as run:
        run.record("image.jpg", {"label": "cat"})
    with pytest.raises(RunError, match=r"is no few-shot result \(KeyError: 'answers'\); this is a run of 'classify'"):
        compare_runs(a, tmp_path / "other")
    apart = make(tmp_path / "apart", [item(0, {"one": True}), item(1, {"two": True})])
    with pytest.raises(RunMismatchError, match="no question was answered on both sides by one and two"):
        compare_rows(apart, "one", "two")

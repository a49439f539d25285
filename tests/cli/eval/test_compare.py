"""`icl-vision eval compare`: two runs, or two rows of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.evaluation.kit.compare import paired_interval
from icl_vision.files.runs import Run

SETTINGS = ("2w-1s-0r-i", "5w-1s-0r-i")


def make(folder: Path, right: dict[str, list[bool]]) -> Path:
    """A run with every question in both settings; ``right``: row -> which it got right."""
    Run.open(folder, "eval few-shot", {}).close()
    lines = []
    for setting in SETTINGS:
        for number, values in enumerate(zip(*right.values(), strict=True)):
            answers = {row: {"label": "a", "right": value} for row, value in zip(right, values, strict=True)}
            support = [{"image": f"a/{number}.jpg", "label": "a"}, {"image": f"b/{number}.jpg", "label": "b"}]
            query = {"image": f"a/q{number}.jpg", "label": "a"}
            result = {"setting": setting, "support": support, "query": query, "answers": answers}
            lines.append(json.dumps({"id": f"e{number:05d}/{setting}", "result": result}) + "\n")
    (folder / "journal.jsonl").write_text("".join(lines))  # at once: a line each through Run is synced to disk
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    good = [True] * 18 + [False] * 2
    poor = [True] * 8 + [False] * 12
    return (
        make(tmp_path / "a", {"likelihood": good, "exact": poor, "words_prototype": poor}),
        make(tmp_path / "b", {"likelihood": poor, "exact": poor, "words_prototype": poor}),
    )


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["eval", "compare", *map(str, arguments)])


def test_two_runs_as_text(runs: tuple[Path, Path]) -> None:
    done = compare(*runs)
    assert done.exit_code == 0, done.output
    assert "2w-1s-0r-i  likelihood  (n = 20)" in done.stdout and "5w-1s-0r-i  likelihood" in done.stdout
    assert "A 90.0% (69.9% to 97.2%)   B 40.0% (21.9% to 61.3%)" in done.stdout
    assert "right only in A 10, only in B 0; p = 0.00195, Holm 0.00391" in done.stdout
    low, high = paired_interval(10, 0, 20)
    said = (
        f"A - B = +50.0 points (95% {100 * low:+.1f} to {100 * high:+.1f}): A is better; not inferior within 5 points"
    )
    assert said in done.stdout
    assert "corrected for 2 comparisons" in done.stdout
    worse = compare(*reversed(runs), "--settings", "2w-1s-0r-i", "--margin", "10")
    assert "A is worse; non-inferiority within 10 points not shown" in worse.stdout
    assert "Holm" not in worse.stdout


def test_several_rows_and_settings_as_json(runs: tuple[Path, Path]) -> None:
    for rows in (("--rows", "likelihood", "exact"), ("--rows", "likelihood", "--rows", "exact")):
        done = compare(*runs, *rows, "--settings", *SETTINGS, "--json")
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        found = [(one["setting"], one["rows"][0], one["verdict"]) for one in document["comparisons"]]
        assert found == [
            (SETTINGS[0], "likelihood", "better"),
            (SETTINGS[0], "exact", "no difference shown"),
            (SETTINGS[1], "likelihood", "better"),
            (SETTINGS[1], "exact", "no difference shown"),
        ]


def test_two_rows_of_one_run(runs: tuple[Path, Path]) -> None:
    done = compare(runs[0], "--settings", SETTINGS[0])
    assert done.exit_code == 0 and "A  likelihood\nB  words_prototype" in done.stdout
    assert "likelihood against words_prototype  (n = 20)" in done.stdout
    assert json.loads(compare(runs[0], "--rows", "exact", "likelihood", "--json").stdout)["a"] == "exact"


def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = compare(runs[0], "--rows", "likelihood")
    assert done.exit_code == 2 and "exactly two rows to compare (--rows A B); got 1: likelihood" in done.stderr
    done = compare(*runs, "--rows", "likelyhood")
    assert done.exit_code == 1 and "no row 'likelyhood' in the run; there are likelihood, exact" in done.stderr
    done = compare(runs[0], tmp_path)
    assert done.exit_code == 1 and "holds no run" in done.stderr
    done = compare(runs[0], tmp_path / "nowhere")
    assert done.exit_code == 2 and "does not exist" in done.stderr


def test_a_list_ends_at_the_next_option_or_at_two_dashes(runs: tuple[Path, Path]) -> None:
    done = compare("--rows", "likelihood", "--", *runs)
    assert done.exit_code == 0 and "corrected for 2" in done.stdout
    done = compare(*runs, "--rows", "likelihood", "--margin", "3")
    assert done.exit_code == 0 and "within 3 points" in done.stdout

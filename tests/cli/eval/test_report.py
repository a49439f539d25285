"""`icl-vision eval report`: the page of a run anew, with other runs beside it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.cli.eval.report import command


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))


def icl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


@pytest.fixture
def runs(class_folder: Path, tmp_path: Path) -> list[Path]:
    """Two runs on the same questions, with 3 and with 5 words."""
    for k in ("3", "5"):
        options = ["--ways", "2", "--settings", "1s-0r-i", "--episodes", "2", "--baselines", "prior", "--quiet"]
        reads = ["--llm", "fake", "--tokenizer", "words-photo", "-k", k, "--data", class_folder]
        done = icl("few-shot", *reads, *options, "--out", tmp_path / k)
        assert done.exit_code == 0, done.output
    return [tmp_path / "3", tmp_path / "5"]


def test_other_runs_make_a_plot_against_words(runs: list[Path]) -> None:
    page = runs[0] / "report.html"
    before = page.read_text(encoding="utf-8")
    assert "accuracy against words" not in before
    done = icl("report", runs[0], "--trust", "--others", runs[1])
    assert done.exit_code == 0 and done.stdout == f"{page}\n"
    assert "2-way 1 shot, accuracy against words" in page.read_text(encoding="utf-8")
    assert icl("report", runs[0], "--trust").exit_code == 0 and page.read_text(encoding="utf-8") == before


def test_title_images_and_what_cannot_work(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    assert icl("report", runs[0], "--title", "Mine", "--images", tmp_path / "moved").exit_code == 0
    assert "<h1>Mine</h1>" in (runs[0] / "report.html").read_text(encoding="utf-8")
    unfinished = icl("report", tmp_path / "moved")
    assert unfinished.exit_code == 1 and "has no results.json: no run, or one that is not finished" in unfinished.stderr
    assert icl("report", tmp_path / "nowhere").exit_code == 2
    assert icl("report", runs[0], "--others", tmp_path / "moved").exit_code == 1
    results = json.loads((runs[1] / "results.json").read_text())
    results["config"] |= {"llm": "another", "questions": "others"}
    (runs[1] / "results.json").write_text(json.dumps(results))
    mixed = icl("report", runs[0], "--others", runs[1])
    assert mixed.exit_code == 1 and "differs in llm, questions, so a plot" in mixed.stderr


def test_every_option_says_its_default() -> None:
    context = click.Context(command)
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert all("Default" in (one.get_help_record(context) or ("", ""))[1] for one in options)

"""`icl-vision eval answers` and `eval captions`: what they print and write, plans, several LLMs, and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from icl_vision.cli import main

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "answering"))
from sets import write

ROWS = ("--rows", "blind", "prior", "copied", "words-photo:greedy", "caption")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("coco"))


def invoke(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(main, ["eval", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_answers_are_measured_shown_and_gone_on_with(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["answers", "--data", data, "--split", "test", "--llm", "fake", "--out", out, "--shots", 2]
    document = json.loads(invoke(*command, *ROWS, "-n", 3, "--json", "--quiet").stdout)
    assert document == json.loads((out / "results.json").read_text()) and document["kind"] == "answers"
    assert [row["name"] for row in document["rows"]] == [
        "blind:fused", "prior", "copied", "words-photo:greedy", "caption:fused",
    ]  # fmt: skip
    assert all(row["figure"]["n"] == 3 and len(row["figure"]["interval"]) == 2 for row in document["rows"])
    page = (out / "report.html").read_text()
    assert "coco-qa test" in page and "data:image" not in page
    again = invoke(*command, *ROWS, "--resume", "--pictures")
    assert "words-photo:greedy" in again.stdout and "exact [95%]" in again.stdout
    assert "15 answers found, 15 known from before" in again.stderr  # the test has six questions
    assert "data:image/webp" in (out / "report.html").read_text()
    other = invoke(*command, *ROWS, "--resume", "--seed", 4, code=1)
    assert "seed differ" in other.stderr


def test_captions_are_measured(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rows = ("--rows", "blind", "copied", "human", "words-photo", "caption")
    command = ["captions", "--data", data, "--split", "test", "--llm", "fake", "--out", out, "--shots", 1]
    document = json.loads(invoke(*command, *rows, "--json", "--quiet").stdout)
    assert document["metric"] == "cider" and document["kind"] == "captions"
    assert {"bleu_4", "rouge_l"} <= set(document["rows"][0])
    assert document["rows"][2]["figure"]["mean"] > 0
    assert "0 answers found, 15 known from before" in invoke(*command, *rows, "--resume").stderr


def test_a_plan_says_what_each_row_would_send_and_cost(data: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("fake: {input: 2, output: 8}\n")
    command = ["answers", "--data", data, "--split", "tuning", "--llm", "fake", "--dry-run", "--prices", prices]
    document = json.loads(invoke(*command, "--rows", "blind:greedy", "prior", "words-photo:greedy", "--json").stdout)
    blind, photo = document["rows"]
    assert document["items"] == 6 and blind["requests"] == 6
    assert 0 < blind["cost"]["amount"] < photo["cost"]["amount"]
    text = invoke(*command, "--rows", "blind:greedy", "given").stdout
    assert "about 6 requests" in text and "not available: the set has pictures" in text and "; cost 0." in text
    nothing = invoke(*command, "--rows", "prior").stdout
    assert nothing.endswith("There is nothing to ask: no row asks an LLM, or every answer is there.\n")


def test_an_llm_is_spoken_to_as_one_says(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icl_vision import llms

    asked: list[dict[str, Any]] = []
    connect = llms.connect

    def noted(llm: Any, **options: Any) -> Any:
        asked.append(options)
        return connect(llm, **options)

    monkeypatch.setattr(llms, "connect", noted)
    command = ["answers", "--data", data, "--split", "test", "--rows", "blind", "--dry-run"]
    command += ["--llm", "openai-compatible:some@http://127.0.0.1:9"]
    invoke(*command, "--api", "completions")
    assert asked[0] == {"api": "completions"}
    asked.clear()
    invoke(*command)
    assert asked[0] == {}


def test_several_llms_have_a_folder_each(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    command = ["answers", "--data", data, "--split", "test", "--rows", "prior", "--out", out, "--quiet", "--json"]
    documents = json.loads(invoke(*command, "--llm", "fake", "openai:some-model").stdout)
    assert len(documents) == 2 and documents[0]["rows"] == documents[1]["rows"]
    assert sorted(path.name for path in out.iterdir()) == ["fake", "openai-some-model"]
    assert (out / "fake" / "results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--llm", "fake"], "--out RUN is needed", 2),
        (["--llm", "fake", "--dry-run", "--rows", "nothing"], "there is no row 'nothing'", 1),
        (["--llm", "fake", "--dry-run", "--option", "shots=3"], "'shots' is no option of VisualQA", 1),
        (["--llm", "fake", "--dry-run", "--option", "shots"], "must be NAME=VALUE", 1),
    ],
)
def test_what_cannot_be_measured_is_refused(data: Path, arguments: list[str], message: str, code: int) -> None:
    result = invoke("answers", "--data", data, "--split", "test", *arguments, code=code)
    assert message in result.stderr


def test_parts_and_data_are_named(data: Path, tmp_path: Path) -> None:
    parts = invoke("answers", "--data", data, "--llm", "fake", "--dry-run", code=1)
    assert "'tuning' (6), 'test' (6)" in parts.stderr
    nothing = invoke("answers", "--data", tmp_path / "nowhere", "--llm", "fake", "--dry-run", code=2)
    assert "no file or folder, and none of the names easy-vqa, operator-induction" in nothing.stderr


def test_runs_and_rows_are_compared_in_pairs(data: Path, tmp_path: Path) -> None:
    for shots in (1, 3):
        command = ["answers", "--data", data, "--split", "test", "--llm", "fake", "--shots", shots, "--quiet"]
        invoke(*command, "--rows", "prior", "copied", "--out", tmp_path / str(shots))
    document = json.loads(invoke("compare", tmp_path / "1", tmp_path / "3", "--json").stdout)
    assert {(pair["setting"], *pair["rows"]) for pair in document["comparisons"]} == {
        (setting, row, row) for setting in ("all", "colour", "number") for row in ("prior", "copied")
    }
    assert all(pair["only_a"] == pair["only_b"] == 0 for pair in document["comparisons"])
    rows = json.loads(
        invoke("compare", tmp_path / "1", "--rows", "prior", "copied", "--settings", "all", "--json").stdout
    )
    assert rows["comparisons"][0]["n"] == 6 and rows["comparisons"][0]["p"] == 1.0
    none = invoke("compare", tmp_path / "1", "--rows", "prior", "blind", code=1)
    assert "no row 'blind' in the run; there are prior, copied" in none.stderr


def test_captions_are_compared_by_their_scores(data: Path, tmp_path: Path) -> None:
    for split in ("test", "training"):
        command = ["captions", "--data", data, "--split", split, "--llm", "fake", "--shots", 1, "--quiet"]
        if split == "training":
            command += ["--examples", data]
        invoke(*command, "--rows", "human", "copied", "--out", tmp_path / split)
    out = invoke("compare", tmp_path / "test", "--rows", "human", "copied").stdout
    assert "human against copied  (n = 3)" in out and "percentile bootstrap" in out and "A - B = +" in out
    other = invoke("compare", tmp_path / "test", tmp_path / "training", code=1)
    assert "have no item in common" in other.stderr
    answers = ["answers", "--data", data, "--split", "test", "--llm", "fake", "--rows", "prior", "--quiet"]
    invoke(*answers, "--out", tmp_path / "answers")
    kinds = invoke("compare", tmp_path / "test", tmp_path / "answers", code=1)
    assert "is a run of eval captions, cider" in kinds.stderr and "eval answers, exact" in kinds.stderr

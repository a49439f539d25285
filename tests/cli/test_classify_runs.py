"""`icl-vision classify` with run folders, plans, budgets and caches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text("fake: {input: 1000, output: 2000}\ngpt-4o: {input: 2.5, output: 10, cache_read: 1.25}\n")
    return path


def run(*arguments: str | Path, llm: str = "fake") -> Result:
    return CliRunner().invoke(main, ["classify", "--llm", llm, "--tokenizer", "ascii", *map(str, arguments)])


def test_a_run_is_kept_and_resumed(class_folder: Path, tmp_path: Path) -> None:
    support = ("--support", class_folder)
    out = tmp_path / "run"
    plain = run(*support, class_folder / "red", "--json", "--quiet")
    done = run(*support, class_folder / "red", "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(plain.stdout)
    assert "4 images asked about, 0 known from before, 0 failed" in done.stderr
    assert "12 requests" in done.stderr and "cost unknown (no price for 'fake' in the table)" in done.stderr
    assert {"run.json", "journal.jsonl", "results.json"} <= {path.name for path in out.iterdir()}
    refused = run(*support, class_folder / "red", "--out", out)
    assert refused.exit_code == 1 and "pass --resume" in refused.stderr
    more = run(*support, class_folder / "red", class_folder / "blue", "--out", out, "--resume", "--quiet")
    assert more.exit_code == 0 and more.stderr == "" and len(more.stdout.splitlines()) == 8
    assert len((out / "journal.jsonl").read_text().splitlines()) == 8
    assert len(json.loads((out / "results.json").read_text())["results"]) == 8
    other = run(*support, class_folder / "red", "--out", out, "--resume", "--shots", "1")
    assert other.exit_code == 1 and "prompt, shots differ" in other.stderr


def test_a_second_run_is_free(class_folder: Path, tmp_path: Path, own_cache: Path, prices: Path) -> None:
    options = ("--support", class_folder, class_folder / "red", "--prices", prices, "--json")
    first = run(*options, "--out", tmp_path / "one")
    second = run(*options, "--out", tmp_path / "two")
    assert "12 requests" in first.stderr
    assert "0 requests, 0 prompt tokens" in second.stderr and "cost 0.0000" in second.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert (own_cache / "responses.sqlite").exists()
    third = run(*options, "--out", tmp_path / "three", "--no-cache")
    assert "12 requests" in third.stderr


def test_without_a_run_folder_nothing_is_written(class_folder: Path, own_cache: Path) -> None:
    done = run("--support", class_folder, class_folder / "red", "--budget-requests", "100")
    assert done.exit_code == 0 and "12 requests" in done.stderr
    assert not list(own_cache.glob("*.sqlite"))


def test_words_are_cached_where_the_tokenizer_can_be_trusted_to_tell(
    class_folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    options = ("classify", "--llm", "fake", "--support", class_folder, class_folder / "red", "--out")
    done = CliRunner().invoke(main, [*map(str, options), str(tmp_path / "run")])
    assert done.exit_code == 0, done.stderr
    assert (own_cache / "words.sqlite").exists()
    from icl_vision.tokenizers.words_cache import WordsCache

    cache = WordsCache()
    assert len(cache) == 12
    cache.close()


def test_failed_images_are_asked_again(class_folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "late.png"
    options = ("--support", class_folder, class_folder / "red", image, "--out", tmp_path / "run", "--resume")
    done = run(*options, "--json")
    assert done.exit_code == 1 and "--resume asks the failed ones again" in done.stderr
    assert json.loads(done.stdout)[-1]["error"].startswith("ImageNotFoundError")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["failed"] == 1
    image.write_bytes((class_folder / "red" / "000.png").read_bytes())
    again = run(*options, "--json")
    assert again.exit_code == 0 and "1 image asked about, 4 known from before, 0 failed" in again.stderr
    assert "error" not in json.loads(again.stdout)[-1]


@pytest.mark.parametrize("kind", ["requests", "tokens", "cost"])
def test_a_budget_is_the_runs_and_stops_it_in_time(class_folder: Path, tmp_path: Path, prices: Path, kind: str) -> None:
    common = ("--support", class_folder, class_folder, "--prices", prices, "--no-cache")
    assert run(*common, "--out", tmp_path / "whole").exit_code == 0
    usage = json.loads((tmp_path / "whole" / "results.json").read_text())["usage"]
    whole = {"requests": 36, "tokens": usage["prompt_tokens"], "cost": usage["prompt_tokens"] / 1000}[kind]
    option = f"--budget-{kind}={whole * 0.7 if kind == 'cost' else int(whole * 0.7)}"
    options = (*common, "--out", tmp_path / "run")
    done = run(*options, option)
    assert done.exit_code == 1 and "BudgetExceededError: the next request would" in done.stderr
    assert f"kept in {tmp_path / 'run'}; --resume goes on from there" in done.stderr
    answered = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert 0 < len(answered) < 12 and all('"result"' in line for line in answered)
    assert not (tmp_path / "run" / "results.json").exists()
    # What the first attempt spent still counts.
    again = run(*options, option, "--resume")
    assert again.exit_code == 1 and "BudgetExceededError" in again.stderr
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) <= len(answered) + 1
    free = run(*options, "--resume", "--budget-requests", "1000")
    assert free.exit_code == 0 and "the whole run: 36 requests" in free.stderr


def test_a_plan_for_people_and_for_programs(class_folder: Path, tmp_path: Path, prices: Path) -> None:
    options = ("--support", class_folder, class_folder, "--dry-run")
    done = run(*options)
    assert done.exit_code == 0, done.stderr
    assert "requests            36" in done.stdout and "cost                unknown (no price" in done.stdout
    document = json.loads(run(*options, "--prices", prices, "--json").stdout)
    assert document["images"] == 12 and document["requests"] == 36 and document["already_answered"] == 0
    assert document["cost_at_most"]["amount"] == pytest.approx(document["prompt_tokens"] / 1000)
    spec = "openai:gpt-4o"
    hosted = json.loads(run(*options, "--prices", prices, "--json", llm=spec).stdout)
    assert hosted["model"] == spec and hosted["requests"] == 12 and hosted["cost_at_most"]["amount"] > 0
    assert hosted["cached_tokens_estimate"] > 0
    assert hosted["cost_at_most_without_cache"]["amount"] > hosted["cost_at_most"]["amount"]


def test_a_plan_leaves_out_what_is_answered_and_writes_nothing(class_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--support", class_folder, class_folder, "--out", out)
    assert run(*options, "--dry-run").exit_code == 0 and not out.exists()
    assert run("--support", class_folder, class_folder / "red", "--out", out).exit_code == 0
    before = (out / "journal.jsonl").read_bytes()
    document = json.loads(run(*options, "--resume", "--dry-run", "--json").stdout)
    assert document["already_answered"] == 4 and document["images"] == 8
    assert "already answered    4" in run(*options, "--resume", "--dry-run").stdout
    assert (out / "journal.jsonl").read_bytes() == before


def test_options_that_make_no_sense_alone(class_folder: Path, tmp_path: Path) -> None:
    options = ("--support", class_folder, class_folder / "red")
    for arguments, message in (
        (["--resume"], "--resume needs --out RUN"),
        (["--budget-cost", "3"], "--budget-cost needs --prices FILE"),
        (["--budget-requests", "0"], "0 is not in the range"),
        (["--prices", tmp_path / "none.yaml"], "does not exist"),
    ):
        done = run(*options, *arguments)
        assert done.exit_code == 2 and message in done.stderr
    bad = tmp_path / "prices.yaml"
    bad.write_text("fake: 3")
    done = run(*options, "--prices", bad)
    assert done.exit_code == 1 and "the price of 'fake' must be a mapping" in done.stderr

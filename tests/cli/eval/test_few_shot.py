"""`icl-vision eval few-shot`: its options, its table, its plan and its run folder."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from icl_vision.cli import main
from icl_vision.cli.eval.few_shot import command as few_shot

QUICK = ("--settings", "1s-0r-i", "--ways", "2", "--episodes", "2", "--baselines", "prior", "blind")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICL_VISION_CACHE", str(tmp_path / "cache"))


def run(*arguments: str | Path, llm: str = "fake") -> Result:
    fixed = ["eval", "few-shot", "--llm", llm, "--tokenizer", "ascii", "-k", "16"]
    return CliRunner().invoke(main, [*fixed, *map(str, arguments)])


def test_a_run_prints_the_table_and_writes_everything(class_folder: Path, tmp_path: Path) -> None:
    done = run("--data", class_folder, *QUICK, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "2-way" in done.stdout and "1s-0r-i" in done.stdout and "only labels" in done.stdout
    assert "[" in done.stdout and "Frozen*" in done.stdout
    assert "2 questions (2 episodes), about" in done.stderr
    assert "2 questions asked, 0 known from before, 0 failed" in done.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "journal.jsonl", "results.json", "episodes.json", "report.html"} <= names
    refused = run("--data", class_folder, *QUICK, "--out", tmp_path / "run")
    assert refused.exit_code == 1 and "pass --resume" in refused.stderr
    again = run("--data", class_folder, *QUICK, "--out", tmp_path / "run", "--resume", "--quiet", "--json")
    assert again.exit_code == 0 and again.stderr == ""
    told = run("--data", class_folder, *QUICK, "--out", tmp_path / "run", "--resume")
    assert "every question has an answer; nothing is asked" in told.stderr
    planned = run("--data", class_folder, *QUICK, "--out", tmp_path / "run", "--resume", "--dry-run", "--json")
    assert json.loads(planned.stdout)["items"] == 0
    assert json.loads(again.stdout) == json.loads((tmp_path / "run" / "results.json").read_text())
    changed = run("--data", class_folder, *QUICK, "--out", tmp_path / "run", "--resume", "--seed", "9")
    assert changed.exit_code == 1 and "questions, seed differ" in changed.stderr


def test_a_dry_run_asks_and_writes_nothing(class_folder: Path, tmp_path: Path) -> None:
    planned = run("--data", class_folder, *QUICK, "--dry-run", "--json", "--out", tmp_path / "run")
    assert planned.exit_code == 0, planned.output
    document = json.loads(planned.stdout)
    assert document["items"] == 2 and document["requests"] > 0 and not (tmp_path / "run").exists()
    # No key, no LLM: the plan needs neither.
    remote = run("--data", class_folder, *QUICK, "--dry-run", llm="openai:gpt-4o")
    assert remote.exit_code == 0 and "prompt tokens" in remote.stdout


def test_money_is_in_the_results_and_on_the_page_where_prices_are_given(class_folder: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("fake: {input: 1000, output: 0}\n")
    options = ("--data", class_folder, *QUICK, "--out", tmp_path / "run", "--prices", prices, "--json")
    results = json.loads(run(*options).stdout)
    amount = results["usage"]["prompt_tokens"] / 1000
    assert results["cost"] == {"amount": pytest.approx(amount)}
    assert f"<dd>{amount:,.4f}</dd>" in (tmp_path / "run" / "report.html").read_text()
    prices.write_text("other: {input: 1, output: 1}\n")
    assert run(*options, "--resume").exit_code == 0
    assert "unknown (no price for &#x27;fake&#x27; in the table)" in (tmp_path / "run" / "report.html").read_text()


def test_episodes_can_be_kept_and_asked_again(class_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "episodes.json"
    first = run("--data", class_folder, *QUICK, "--out", tmp_path / "one", "--save-episodes", kept, "--quiet", "--json")
    second = run("--data", kept, "--images", class_folder, *QUICK, "--out", tmp_path / "two", "--quiet", "--json")
    assert first.exit_code == second.exit_code == 0, second.output
    assert json.loads(first.stdout)["cells"] == json.loads(second.stdout)["cells"]
    document = json.loads(kept.read_text())
    name = next(iter(document["images"]))
    document["images"][name] = "0" * 64
    kept.write_text(json.dumps(document))
    led = run("--data", kept, *QUICK, "--out", tmp_path / "three")
    assert led.exit_code == 1 and "names the folder of images" in led.stderr and "(--trust)" in led.stderr
    refused = run("--data", kept, "--trust", *QUICK, "--out", tmp_path / "three")
    assert refused.exit_code == 1 and repr(name) in refused.stderr and "sha256 differs" in refused.stderr


def test_a_config_file_gives_the_options_and_the_command_line_counts_more(class_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "ways: [2]\nsettings: 1s-0r-i\nepisodes: 3\nbaselines: [prior]\nscorers: [exact, likelihood]\nquoted: false\n"
        "option: {scoring: direct}\nlabels: nonsense\n"
    )
    done = run("--config", config, "--data", class_folder, "--out", tmp_path / "run", "--episodes", "2", "--json")
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert [row["name"] for row in results["rows"]] == ["exact", "likelihood", "prior"]
    assert results["config"]["episodes"] == 2 and results["config"]["labels"] == "nonsense"
    assert results["config"]["options"]["scoring"] == "direct"
    for line, option in (
        ("llm: openai-compatible:m@http://127.0.0.1:9/v1", "--llm"),
        ("llm: local:x.gguf", "--llm"),
        ("tokenizer: some/folder", "--tokenizer"),
        (f"templates: {tmp_path}", "--templates"),
        (f"data: {class_folder}", "--data"),
        (f"out: {tmp_path / 'y'}", "--out"),
        (f"option: {{templates: {tmp_path}}}", "--templates"),
    ):
        config.write_text(f"{line}\nepisodes: 2\nsettings: 1s-0r-i\n")
        own = ["--config", config, *(("--data", class_folder) if option != "--data" else ())]
        own += ["--out", tmp_path / "x"] if option != "--out" else []
        refused = CliRunner().invoke(main, ["eval", "few-shot", *map(str, own)])
        assert refused.exit_code == 1 and "UntrustedNameError" in refused.stderr, (line, refused.output)
        assert f"pass {option}" in refused.stderr and "or --trust" in refused.stderr
        assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()
    config.write_text(f"data: {class_folder}\nllm: fake\ntokenizer: ascii\nepisodes: 2\nsettings: 1s-0r-i\nways: [2]\n")
    bare = ["eval", "few-shot", "--config", str(config), "--dry-run"]
    assert "UntrustedNameError" in CliRunner().invoke(main, bare).stderr
    assert "UntrustedNameError" not in CliRunner().invoke(main, [*bare, "--trust"]).stderr
    config.write_text(config.read_text() + "trust: true\n")
    assert "'trust' is no option" in CliRunner().invoke(main, bare).stderr
    config.write_text(config.read_text().replace("trust: true\n", ""))
    own = run("--config", config, "--data", class_folder, "--dry-run")
    assert "UntrustedNameError" not in own.stderr  # the command line names the same place itself
    config.write_text("epsiodes: 3\n")
    wrong = run("--config", config, "--data", class_folder, "--out", tmp_path / "x")
    assert wrong.exit_code == 1 and "'epsiodes' is no option; there are baselines, " in wrong.stderr
    config.write_text("- 3\n")
    assert "must be a mapping of option names" in run("--config", config, "--data", class_folder).stderr
    config.write_text("a: [")
    assert "cannot be read" in run("--config", config, "--data", class_folder).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "RUN", "--scorers", "exakt"], 1, "no scorer is called 'exakt'"),
        (["--out", "RUN", "--baselines", "none", "prior"], 1, "'all' and 'none' stand alone; got none, prior"),
        (["--out", "RUN", "--controls", "noise"], 1, "no control is called 'noise'"),
        (["--out", "RUN", "--settings", "5-way"], 1, "'5-way' is no setting"),
        (["--out", "RUN", "--option", "scoring"], 1, "--option must be NAME=VALUE; got 'scoring'"),
        (["--out", "RUN", "--option", "shots=3"], 1, "'shots' is no option of the classifier that a benchmark"),
        (["--out", "RUN", "--option", "scoring=[a"], 1, "the value is not YAML"),
        (["--out", "RUN", "--option", "ensemble=each"], 1, "ensemble must be one of None, 'auto', 'examples'"),
        (["--out", "RUN", "--settings", "99s-0r-i"], 1, "100 images; too few are in 'blue' (4)"),
        (["--out", "RUN", "--ways", "9"], 1, "9 ways need 9 classes"),
        (["--out", "RUN", "--ways", "1"], 2, "1 is not in the range x>=2"),
        ([], 2, "--out RUN is needed"),
        (["--resume"], 2, "--resume needs --out RUN"),
    ],
)
def test_what_cannot_work_is_said(
    class_folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [str(tmp_path / "run") if one == "RUN" else one for one in arguments]
    done = run("--data", class_folder, *given)
    assert done.exit_code == code and message in done.stderr, done.output


def test_a_failed_question_is_told_and_the_exit_status_is_1(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icl_vision.errors import LLMUnavailableError
    from icl_vision.llms.fake import FakeLLM

    async def fail(self: FakeLLM, *args: object, **kwargs: object) -> None:
        raise LLMUnavailableError("down")

    monkeypatch.setattr(FakeLLM, "_complete", fail)
    one = ("--concurrency", "1", "--quiet")
    done = run("--data", class_folder, *QUICK, "--scorers", "exact", "--out", tmp_path / "run", *one)
    assert done.exit_code == 1
    assert done.stderr == (
        "2 questions failed, not counted in the figures; --resume asks again. The first was\n"
        "e00000/2w-1s-0r-i: LLMUnavailableError: down\n"
    )


def test_every_option_says_its_default_or_that_there_is_none() -> None:
    context = click.Context(few_shot)
    for option in few_shot.params:
        assert isinstance(option, click.Option)
        text = " ".join((option.get_help_record(context) or ("", ""))[1].split()).lower()
        assert option.is_flag or option.required or "default" in text, option.name


def test_the_group_lists_its_commands_without_loading_them() -> None:
    shown = CliRunner().invoke(main, ["eval", "--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in ("few-shot", "compare", "report", "reconstruction"))

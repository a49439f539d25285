"""Two runs begun in the same second: in one folder one of them works, in two folders both do."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from icl_vision import ImageTokenizer
from icl_vision.files.runs import Run
from icl_vision.tokenizers.bulk.files import tokenize_files

COMMANDS: dict[str, Any] = importlib.import_module("scenarios").COMMANDS
RUNS = sorted(name for name, command in COMMANDS.items() if command.run is not None)


def until_held(commands: Any, process: Any) -> None:
    while "held" not in (commands.log.read_text() if commands.log.exists() else ""):
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_second_process_leaves_a_run_alone(name: str, commands: Any) -> None:
    command = COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    go = commands.folder / "go"
    first = commands.start(command.with_json, f"hold:{go}")
    until_held(commands, first)
    for arguments in (command.with_json, (*command.with_json, "--resume")):
        second = commands.start(arguments)
        _, said = second.communicate()
        assert second.returncode == 1 and "another process is writing to the run" in said
    go.touch()
    printed, said = first.communicate()
    assert first.returncode == 0, said
    assert max(commands.noted("recorded").values()) == 1
    from kinds import differences

    old = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "json" / f"{name}.json"
    assert differences(json.loads(old.read_text(encoding="utf-8")), json.loads(printed)) == []


@pytest.mark.slow
def test_runs_begun_together_share_a_new_cache(commands: Any) -> None:
    """Four processes, one cache folder that is not there yet, and answers and words kept in it."""
    command = [one for one in COMMANDS["classify"].with_json if one != "--no-cache"]
    whole = commands.run(COMMANDS["classify-printed"].with_json)
    outs = [f"run-{number}" for number in range(4)]
    processes = [
        commands.start([out if one == "run" and command[at - 1] == "--out" else one for at, one in enumerate(command)])
        for out in outs
    ]
    for process in processes:
        printed, said = process.communicate()
        assert process.returncode == 0, said
        assert json.loads(printed) == whole
    for out in outs:
        lines = [json.loads(line) for line in (commands.folder / out / "journal.jsonl").read_text().splitlines()]
        assert len({line["id"] for line in lines}) == len(lines) == 9
    commands.forget()
    again = ["again" if one == "run" else one for one in command]
    assert commands.run(again) == whole and not commands.noted("asked")


@pytest.mark.slow
def test_whoever_waits_for_a_file_of_words_does_not_go_on_with_what_is_being_removed(commands: Any) -> None:
    command = COMMANDS["tokenize-out"]
    go = commands.folder / "go"
    first = commands.start(command.with_json, f"hold-part:{go}")
    until_held(commands, first)
    second = commands.start((*command.with_json, "--resume"))
    _, said = second.communicate()
    assert second.returncode == 1 and "another process is writing to the run" in said
    go.touch()
    printed, said = first.communicate()
    assert first.returncode == 0, said
    commands.forget()
    assert commands.run((*command.with_json, "--resume")) == json.loads(printed) and not commands.noted("recorded")


def test_a_file_of_words_finished_meanwhile_is_not_made_again(
    tmp_path: Path, class_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(class_folder.rglob("*.png"))
    tokenizer, out, opened = ImageTokenizer.from_pretrained("ascii"), tmp_path / "words.jsonl", Run.open

    def late(folder: Any, *arguments: Any, **options: Any) -> Run:
        monkeypatch.setattr(Run, "open", opened)
        tokenize_files(tokenizer, files, out, resume=True)  # the other process
        return opened(folder, *arguments, **options)

    monkeypatch.setattr(Run, "open", late)
    (tmp_path / "words.jsonl.part").mkdir()
    report = tokenize_files(tokenizer, files, out, resume=True)
    assert (report.images, report.resumed) == (len(files), len(files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.jsonl", "words.jsonl.run.json"]


def test_temporary_files_of_a_killed_process_are_in_nobodys_way(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", "classify", {"a": 1}) as run:
        run.record("x", 1)
    for name in (".tmp-run.json-abc", ".tmp-results.json-def"):
        (tmp_path / "run" / name).write_text("{")
    with Run.open(tmp_path / "run", "classify", {"a": 1}, resume=True) as run:
        assert run.done == {"x"}
        run.finish({"n": 1})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("journal.jsonl", "lock", "results.json", "run.json"),
    ]

"""Half-done run folders of 0.1.0, killed by SIGKILL: resumed they end as they would have, asking what is missing."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from icl_vision.cli import main

COMMANDS: dict[str, Any] = importlib.import_module("scenarios").COMMANDS
RUNS = sorted(name for name, command in COMMANDS.items() if command.run is not None)


def test_every_command_that_keeps_a_run_folder_left_one(files: Path) -> None:
    assert sorted(path.name for path in (files / "half_done").iterdir()) == RUNS
    kept = {" ".join(command.arguments[:2]) for command in COMMANDS.values() if command.run is not None}
    assert {"train spae", "eval few-shot", "eval generation", "eval denoising", "eval reconstruction"} <= kept


@pytest.mark.parametrize("name", RUNS)
def test_a_half_done_run_is_finished(name: str, files: Path, work: Path, asked: list[Any]) -> None:
    from kinds import differences

    command = COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    folder = work / command.run
    shutil.copytree(files / "half_done" / name, folder)
    before = (folder / "journal.jsonl").read_bytes() if (folder / "journal.jsonl").exists() else b""
    result = CliRunner().invoke(main, [*command.with_json, "--resume"])
    assert result.exit_code == 0, result.output
    old = json.loads((files / "resumed" / f"{name}.json").read_text(encoding="utf-8"))
    assert differences(old["document"], json.loads(result.stdout)) == []
    assert len(asked) <= old["asked"] and (not old["whole"] or old["asked"] < old["whole"])
    if folder.exists():  # (a file of words leaves none)
        whole = before[: before.rfind(b"\n") + 1]
        assert (folder / "journal.jsonl").read_bytes().startswith(whole) if whole else True


@pytest.mark.parametrize("name", RUNS)
def test_another_configuration_is_refused(name: str, files: Path, work: Path) -> None:
    command = COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    shutil.copytree(files / "half_done" / name, work / command.run)
    other = {"eval": ["--seed", "5"], "generate": ["--seed", "5"], "denoise": ["--seed", "5"], "train": ["--seed", "4"]}
    more = other.get(command.arguments[0], ["-k", "16"] if "ascii" in command.arguments else ["--shots", "1"])
    if name == "tokenize-out":
        (work / "many" / "00.bmp").unlink()
        more = []
    if name == "eval-reconstruction":
        more = ["-k", "1"]
    result = CliRunner().invoke(main, [*command.with_json, "--resume", *more])
    assert result.exit_code == 1 and "was started with another configuration" in result.stderr
    assert "choose another folder" in result.stderr


def test_episode_files_are_read(files: Path, work: Path, asked: list[Any]) -> None:
    shutil.copy(files / "episodes.json", work / "old-episodes.json")
    arguments = [
        one for one in COMMANDS["eval-few-shot"].with_json if one not in ("--save-episodes", "saved-episodes.json")
    ]
    arguments[arguments.index("--data") + 1] = "old-episodes.json"
    # The folder of images that the file names is the reader's to name now; the error says how.
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1 and "pass --images" in refused.stderr
    result = CliRunner().invoke(main, [*arguments, "--images", "support"])
    assert result.exit_code == 0, result.output
    old = json.loads((files / "json" / "eval-few-shot.json").read_text(encoding="utf-8"))
    new = json.loads(result.stdout)
    assert [cell["accuracy"] for cell in new["cells"]] == [cell["accuracy"] for cell in old["cells"]]

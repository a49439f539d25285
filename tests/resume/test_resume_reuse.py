"""Killed while it takes up earlier results, and killed again in the resume: every command that keeps a run folder."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

import pytest

COMMANDS: dict[str, Any] = importlib.import_module("scenarios").COMMANDS
RUNS = sorted(name for name, command in COMMANDS.items() if command.run is not None)
SPENT = ("usage", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "prompts")
"""What the prompts of a lot share is asked once more on a resume."""

pytestmark = pytest.mark.slow


def ready(name: str) -> Any:
    command = COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    return command


def undisturbed(commands: Any, command: Any) -> tuple[Any, int]:
    """What a whole run prints and asks; its files are removed."""
    document = commands.run(command.with_json)
    asked = commands.noted("asked").total()
    top = command.run.removesuffix(".part").partition("/")[0]
    shutil.rmtree(commands.folder / command.run, ignore_errors=True)
    for left in commands.folder.glob(f"{top}*"):
        left.unlink()
    commands.forget()
    return document, asked


def same(command: Any, one: Any, other: Any) -> bool:
    from kinds import without

    return bool(without(one, command.loose, *SPENT) == without(other, command.loose, *SPENT))


@pytest.mark.parametrize("name", RUNS)
def test_killed_while_earlier_results_are_taken_up(name: str, commands: Any) -> None:
    command = ready(name)
    whole, asked = undisturbed(commands, command)
    assert commands.run(command.with_json, f"record:{command.killed}") is None
    resumed = (*command.with_json, "--resume")
    # At the first earlier line, at the last, and at new ones.
    points = ["line:1", f"line:{command.killed}", "record:1", f"line:{command.killed + 1}", "record:1"]
    killed = [commands.run(resumed, point) is None for point in points]
    assert sum(killed) >= 3
    assert same(command, commands.run(resumed), whole)
    if name != "train":  # (its journal gets the steps since the last checkpoint again)
        assert max(commands.noted("recorded").values()) == 1
    # Reading back asks nothing; new questions may have been under way at three of the kills.
    assert commands.noted("asked").total() <= 4 * asked
    commands.forget()
    if name != "tokenize-out":
        assert same(command, commands.run(resumed), whole) and not commands.noted("asked")


@pytest.mark.parametrize("name", RUNS)
def test_killed_wherever_a_file_is_moved_into_place(name: str, commands: Any) -> None:
    """Each attempt is killed at a later file than the one before it, on both sides of the move."""
    command = ready(name)
    whole, _ = undisturbed(commands, command)
    resumed = (*command.with_json, "--resume")
    for number in range(1, 12):
        ended = [commands.run(resumed, f"{side}:{number}") for side in ("replace", "replaced")]
        if None not in ended:
            break
    assert number > 1 and same(command, commands.run(resumed), whole)
    if name != "train":
        assert max(commands.noted("recorded").values()) == 1


@pytest.mark.parametrize("name", ["classify", "tokenize-out"])
def test_half_a_line_at_the_end_of_every_attempt(name: str, commands: Any) -> None:
    command = ready(name)
    whole, _ = undisturbed(commands, command)
    assert commands.run(command.with_json, "record:1") is None
    for _ in range(2):
        with (commands.folder / command.run / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"id": "1", "result": {"rows": [{"image": "ma')
        commands.run((*command.with_json, "--resume"), "record:1")
    assert same(command, commands.run((*command.with_json, "--resume")), whole)

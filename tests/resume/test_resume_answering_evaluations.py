"""`eval answers` and `eval captions` killed by SIGKILL at any journal line, and gone on with: the same results.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation" / "answering"))
from sets import write

ROWS = ("--rows", "blind", "prior", "words-photo", "caption:greedy")
COMMANDS = {
    "answers": ("eval", "answers", "--data", "coco", "--split", "test", *ROWS, "-n", "4"),
    "captions": ("eval", "captions", "--data", "coco", "--split", "test", "--rows", "blind", "copied", "caption"),
}


def lasting(results: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured by a clock, and without costs: of an answer that a kill took, the cache pays."""
    rows = [
        {key: value for key, value in row.items() if key not in ("seconds", "requests", "prompt_tokens")}
        for row in results["rows"]
    ]
    return {key: value for key, value in results.items() if key != "usage"} | {"rows": rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_killed_evaluation_ends_as_if_it_had_not_been(name: str, commands: Any) -> None:
    write(commands.folder / "coco")
    command = (*COMMANDS[name], "--shots", "2", "--llm", "fake", "--json", "--quiet", "--no-cache")
    whole = commands.run((*command, "--out", "whole"))
    commands.forget()
    assert commands.run((*command, "--out", "run"), "record:2", PYTHONHASHSEED="1") is None
    assert commands.run((*command, "--out", "run", "--resume"), "record:3", PYTHONHASHSEED="2") is None
    assert commands.run((*command, "--out", "run", "--resume"), "replace:2") is None  # results.json is not there yet
    assert not (commands.folder / "run" / "results.json").exists()
    found = commands.run((*command, "--out", "run", "--resume"))
    assert lasting(found) == lasting(whole)
    assert found == json.loads((commands.folder / "run" / "results.json").read_text())
    assert max(commands.noted("recorded").values()) == 1  # nothing that was answered was asked again

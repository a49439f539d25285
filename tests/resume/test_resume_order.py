"""What has no seed must not decide a run: hash seeds, the order of folders, the order in which images are given."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icl_vision import FewShotClassifier
from icl_vision.tasks import classify_many

COMMANDS: dict[str, Any] = importlib.import_module("scenarios").COMMANDS
RUNS = sorted(name for name, command in COMMANDS.items() if command.run is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_attempt_has_another_hash_seed(name: str, commands: Any) -> None:
    from kinds import differences

    command = COMMANDS[name]
    if command.needs is not None:
        pytest.importorskip(command.needs)
    assert commands.run(command.with_json, f"record:{command.killed}", PYTHONHASHSEED="1") is None
    commands.run((*command.with_json, "--resume"), "record:1", PYTHONHASHSEED="2")
    found = commands.run((*command.with_json, "--resume"), PYTHONHASHSEED="31")
    old = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "json" / f"{name}.json"
    changed = differences(json.loads(old.read_text(encoding="utf-8")), found)
    # (What the prompts of a lot share is asked once more on a resume.)
    assert [one for one in changed if "requests" not in one and "tokens" not in one] == []


@pytest.fixture
def unordered(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Folders are listed in another order each time, as file systems may."""
    draw = random.Random(0)
    scandir, listdir, iterdir = os.scandir, os.listdir, Path.iterdir

    class Shuffled:
        """What os.scandir gives: an iterator that is a context manager."""

        def __init__(self, entries: Any) -> None:
            with entries:
                self.found = iter(shuffled(entries))

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return next(self.found)

        def close(self) -> None: ...

    def shuffled(found: Any) -> Any:
        found = list(found)
        draw.shuffle(found)
        return found

    monkeypatch.setattr(os, "scandir", lambda *path: Shuffled(scandir(*path)))
    monkeypatch.setattr(os, "listdir", lambda *path: shuffled(listdir(*path)))
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(shuffled(iterdir(self))))
    return draw


@pytest.mark.parametrize("name", [one for one in RUNS if one != "train"])
def test_folders_may_be_listed_in_any_order(
    name: str, commands: Any, monkeypatch: pytest.MonkeyPatch, unordered: random.Random
) -> None:
    from click.testing import CliRunner
    from kinds import differences

    from icl_vision.cli import main

    command, fixtures = COMMANDS[name], Path(__file__).parents[1] / "fixtures" / "v0_1_0"
    monkeypatch.chdir(commands.folder)
    shutil.copytree(fixtures / "half_done" / name, command.run)
    result = CliRunner().invoke(main, [*command.with_json, "--resume"])
    assert result.exit_code == 0, result.output
    old = json.loads((fixtures / "resumed" / f"{name}.json").read_text(encoding="utf-8"))
    assert differences(old["document"], json.loads(result.stdout)) == []


@pytest.mark.parametrize("selection", ["all", "random", "nearest"])
def test_an_order_that_has_no_seed_is_the_order_given(selection: Any, commands: Any, monkeypatch: Any) -> None:
    from calls import LABELS, queries, support

    monkeypatch.chdir(commands.folder)
    shots = None if selection == "all" else 2

    def classifier() -> FewShotClassifier:
        made = FewShotClassifier("fake", "spae-digits-32", 5, selection=selection, shots=shots, order_seed=None)
        return made.fit(*support("support", LABELS))

    whole = classify_many(classifier(), queries(), "whole")
    part = classify_many(classifier(), queries()[4:], "part")
    assert part.answered == 5
    # Another process, images in another order, and more of them.
    random.seed(99)
    rest = classify_many(classifier(), queries()[::-1], "part", resume=True)
    assert (rest.kept, rest.answered) == (5, 4)
    assert rest.rows == whole.rows[::-1]

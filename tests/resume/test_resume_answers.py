"""`answer` and `caption`, killed with kill -9 at named moments and resumed: nothing is lost, nothing is asked twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

RUNS = ("answer", "caption")


def arguments(kind: str, folder: Path) -> list[str]:
    """A command over nine pictures, six examples of two kinds of pictures shown."""
    question = {"question": "What is it?"} if kind == "answer" else {}
    truth = "answer" if kind == "answer" else "caption"
    shown = [{"image": f"support/{name}/{number}.bmp", **question, truth: f"a {name}"}
             for name in ("bar", "block", "frame") for number in (0, 1)]  # fmt: skip
    (folder / "shown.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown), encoding="utf-8")
    asked = ["--question", "What is it?", "--question", "Is it large?"] if kind == "answer" else []
    # One request at a time: what is in flight when the kill comes is one question at most.
    return [kind, "queries", *asked, "--support", "shown.jsonl", "--llm", "fake", "--tokenizer", "words-photo",
            "--out", "run", "--json", "--quiet", "--no-cache", "--concurrency", "1"]  # fmt: skip


def journal(run: Path) -> list[str]:
    lines = (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize("kind", RUNS)
def test_nothing_is_lost_or_asked_twice(kind: str, commands: Any) -> None:
    command = arguments(kind, commands.folder)
    whole = commands.run(command)
    asked = commands.noted("asked")
    items = len(whole)
    assert items == (18 if kind == "answer" else 9) and not any("error" in row for row in whole)
    (commands.folder / "run").rename(commands.folder / "calm")
    commands.forget()
    # Killed at the second answer; twice while it takes up what there is; at a later answer; as the results are written.
    points = ["record:2", "line:1", "line:2", "record:3", "record:2", "replace:1", "replaced:1", "replace:2"]
    killed = [commands.run([*command, "--resume"], point) is None for point in points]
    assert sum(killed) >= 6, killed
    done = commands.run([*command, "--resume"])
    assert done == whole
    ids = journal(commands.folder / "run")
    assert len(ids) == len(set(ids)) == items, "every answer is journalled once"
    again = commands.noted("asked")
    assert set(again) == set(asked), "nothing else is asked than in an undisturbed run"
    # A kill loses what was in flight, one question at most, whose requests are then made anew.
    each = asked.total() / items
    assert asked.total() <= again.total() <= asked.total() + sum(killed) * each * 2
    commands.forget()
    assert commands.run([*command, "--resume"]) == whole and not commands.noted("asked")


@pytest.mark.parametrize("kind", RUNS)
def test_half_a_line_is_cut_off(kind: str, commands: Any) -> None:
    command = arguments(kind, commands.folder)
    whole = commands.run(command)
    file = commands.folder / "run" / "journal.jsonl"
    raw = file.read_bytes()
    lines = raw.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    commands.forget()
    assert commands.run([*command, "--resume"]) == whole
    assert commands.noted("recorded").total() == len(lines) - 3
    assert sorted(file.read_bytes().splitlines()) == sorted(raw.splitlines())


def test_ctrl_c_names_the_way_on(commands: Any) -> None:
    import signal
    import time

    command = arguments("answer", commands.folder)
    wait = commands.folder / "go-on"
    process = commands.start(command, f"hold:{wait}")
    while not commands.noted("held") and "held" not in (commands.log.read_text() if commands.log.exists() else ""):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    wait.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert "what was answered is kept in run; --resume goes on from there" in err
    assert len(commands.run([*command, "--resume"])) == 18

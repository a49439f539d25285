"""Runs `icl-vision` and sends this process SIGKILL at a named moment; counts what a fake LLM is asked.

    python killed.py POINT LOG ARGUMENTS...

POINT: "never"; "record:N", when the journal has got its N-th new line; "line:N", when the N-th line of an earlier
attempt is read back; "replace:N", before the N-th file is moved into place; "replaced:N", right after. "hold:FILE" and
"hold-part:FILE" kill nothing: they wait for FILE after the first result, or when a ``.part`` folder is to go. LOG: a
file that gets a line for every request, and "recorded FOLDER ID" for every result.

Knows: where the library keeps what it must not lose. Refuses to know: commands.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from typing import Any

from icl_vision.files import runs
from icl_vision.llms import FakeLLM

point, log = sys.argv[1:3]
kind, _, number = point.partition(":")
left = int(number or 0) if not kind.startswith("hold") else 0
noted = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(text: str) -> None:
    os.write(noted, text.encode() + b"\n")


def passed(what: str) -> None:
    """One more of these; the last one wanted ends the process."""
    global left
    if what != kind:
        return
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def hold(what: str) -> None:
    """Say that the moment is there, and wait for the file."""
    if what == kind and not os.path.exists(number):
        note("held")
        while not os.path.exists(number):
            time.sleep(0.01)


record, lines, replace = runs.Run.record, runs._lines, os.replace
complete, score = FakeLLM._complete, FakeLLM._score


def recorded(self: Any, item: str, result: Any) -> None:
    record(self, item, result)
    note(f"recorded {os.path.relpath(self.folder)} {item}")
    passed("record")
    hold("hold")


def read_lines(path: Any) -> Any:
    for line in lines(path):
        passed("line")
        yield line


def replaced(source: Any, target: Any, **options: Any) -> None:
    passed("replace")
    if str(source).endswith(".part"):
        hold("hold-part")
    replace(source, target, **options)
    passed("replaced")


async def completed(self: Any, prompt: Any, **settings: Any) -> Any:
    note("asked " + hashlib.sha256(f"{prompt.text}{settings}".encode()).hexdigest()[:16])
    return await complete(self, prompt, **settings)


async def scored(self: Any, pairs: Any, **settings: Any) -> Any:
    for prompt, text in pairs:
        note("asked " + hashlib.sha256(f"{prompt.text}|{text}".encode()).hexdigest()[:16])
    return await score(self, pairs, **settings)


runs.Run.record, runs._lines, os.replace = recorded, read_lines, replaced  # type: ignore[method-assign,assignment]  # put in place of the package's own
FakeLLM._complete, FakeLLM._score = completed, scored  # type: ignore[method-assign]  # put in place of the package's own

if __name__ == "__main__":
    from icl_vision.cli import main

    main(sys.argv[3:])

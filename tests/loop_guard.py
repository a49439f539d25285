"""Catches our own blocking work on the event loop that serves every LLM: files, pictures, plans.

While anything blocks that loop, every other request waits. No clock is involved: what counts is that such work was
begun on the loop's thread at all, however fast it happened to be here.

Knows: what blocks, by audit events and by name. Refuses to know: any one test.
"""

from __future__ import annotations

import functools
import importlib
import sys
import sysconfig
import threading
import traceback
from typing import Any

LOOP_THREAD = "icl-vision-loop"

EVENTS = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.truncate",
    "sqlite3.connect",
    "subprocess.Popen",
    "time.sleep",
}
# What begins work that no event tells of: SQLite's statements, onnxruntime, plans, counting with a tokenizer's tables.
WORK = {
    "icl_vision.files.rows.JsonRows": ("get", "put_all", "discard", "__len__"),
    "icl_vision.files.runs.Run": ("open", "close", "_append", "results", "finish"),
    "icl_vision.tokenizers.base.ImageTokenizer": ("encode", "decode", "embed"),
    "icl_vision.tokenizers.sessions.GraphSession": ("run",),
    "icl_vision.drawing.passes.SegmentPrompts": ("__post_init__", "inquiry", "stand_in", "digest"),
    "icl_vision.drawing.progressive": ("plan_of",),
    "icl_vision.tasks.classify.fitted": ("plan_of",),
    "icl_vision.llms.wrappers.metered": ("count_tokens",),
    "icl_vision.llms.remote.transport": ("count_tokens",),
    "icl_vision.llms.remote.langchain.llm": ("count_tokens",),
    "icl_vision.llms.batch.folder.BatchFolder": (
        "open",
        "load",
        "close",
        "add",
        "intend",
        "submitted",
        "failed",
        "collected",
        "answer",
        "error",
        "requests",
    ),
}
# Code that is imported when it is first needed is no file of ours; nor are the machine's own (names of hosts, say).
_LIBRARIES = tuple(filter(None, (sys.base_prefix, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))))
_CODE = (".py", ".pyc", ".so", ".pyd")
_SYSTEM = ("/etc/", "/proc/", "/sys/", "/dev/", "/usr/")

_OURS, _TESTS = "/icl_vision/", "/tests/"

found: list[str] = []
_on = False


def start() -> None:
    """Watch from now on, in this process."""
    global _on
    if not _on:
        _on = True
        sys.addaudithook(_audit)
        for place, names in WORK.items():
            for name in names:
                _watch(place, name)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in EVENTS or threading.current_thread().name != LOOP_THREAD:
        return
    path = arguments[0] if arguments else ""
    if isinstance(path, int) or str(path).endswith(_CODE) or str(path).startswith((*_LIBRARIES, *_SYSTEM)):
        return
    if "site-packages" in str(path) and event in ("open", "os.listdir", "os.scandir"):
        return
    _note(f"{event} {path!r}")


def _watch(place: str, name: str) -> None:
    try:
        holder: Any = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, kind = place.rpartition(".")
        holder = getattr(importlib.import_module(module), kind)
    original = vars(holder).get(name)
    if original is None:
        raise AssertionError(f"{place} has no {name} any more; say in loop_guard.WORK what took its place")
    function = getattr(original, "__func__", original)

    @functools.wraps(function)
    def watched(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name == LOOP_THREAD:
            _note(f"{place}.{name}")
        return function(*arguments, **options)

    setattr(holder, name, type(original)(watched) if isinstance(original, classmethod | staticmethod) else watched)


def _note(what: str) -> None:
    whole = traceback.extract_stack()[:-2]
    if any(one.filename.endswith("/weakref.py") for one in whole):
        return  # a finaliser: the garbage collector runs it in whatever thread it wakes up
    stack = [one for one in whole if _OURS in one.filename or _TESTS in one.filename]
    if not stack or _TESTS in stack[-1].filename:
        return  # a test's own code, called back
    frames = [one for one in stack if _OURS in one.filename]
    where = "; ".join(f"{one.filename.rpartition('/icl_vision/')[2]}:{one.lineno}" for one in frames[-4:])
    found.append(f"{what} on the loop that serves every LLM, by {where}")

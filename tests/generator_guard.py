"""Catches asynchronous generators of ours that are left half read for the garbage collector to end.

It ends them in whatever thread it wakes up, one of a chain after the other, while their own loop ends the same ones:
now and then that is "async generator already executing", told by whichever test runs by then. What is left before its
end is closed instead (``contextlib.aclosing``).

Knows: whose code a generator runs. Refuses to know: any one test.
"""

from __future__ import annotations

from asyncio.base_events import BaseEventLoop
from collections.abc import AsyncGenerator
from typing import Any

_OURS = "/icl_vision/"

found: list[str] = []
_on = False


def start() -> None:
    """Watch from now on, in this process."""
    global _on
    if not _on:
        _on = True
        ends = BaseEventLoop._asyncgen_finalizer_hook  # type: ignore[attr-defined]  # asyncio's own, which no type names

        def told(self: BaseEventLoop, generator: AsyncGenerator[Any, Any]) -> None:
            _note(generator)
            ends(self, generator)

        BaseEventLoop._asyncgen_finalizer_hook = told  # type: ignore[attr-defined]  # asyncio's own, which no type names


def _note(generator: AsyncGenerator[Any, Any]) -> None:
    code = generator.ag_code
    if _OURS in code.co_filename and generator.ag_frame is not None:
        where = f"{code.co_filename.rpartition(_OURS)[2]}:{generator.ag_frame.f_lineno}"
        found.append(f"{generator.__qualname__} was left at {where} for the garbage collector; close it (aclosing)")

"""What holds for the calls in a block: which sample of a prompt they are, and how they use what is kept.

Knows: two context variables. Refuses to know: caches.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

from icl_vision import checks

CacheMode = Literal["on", "refresh", "off"]

_repeat: contextvars.ContextVar[int] = contextvars.ContextVar("icl_vision_repeat", default=0)
_mode: contextvars.ContextVar[CacheMode] = contextvars.ContextVar("icl_vision_cache_mode", default="on")


@contextlib.contextmanager
def repeat(index: int) -> Iterator[None]:
    """Calls inside the block are sample number ``index`` (0 or more) of their prompt and are cached apart.

    Without it, every call is sample 0: asking the same prompt twice gives the same answer, sampled or not.
    """
    token = _repeat.set(checks.count("a repeat index", index, least=0))
    try:
        yield
    finally:
        _repeat.reset(token)


def current_repeat() -> int:
    """The repeat index that calls have here; see ``repeat``."""
    return _repeat.get()


@contextlib.contextmanager
def cache_mode(mode: CacheMode) -> Iterator[None]:
    """How calls inside the block use the cache: "on", "refresh" (ask again, store the new answer) or "off"."""
    token = _mode.set(checks.choice("cache mode", mode, ("on", "refresh", "off")))
    try:
        yield
    finally:
        _mode.reset(token)


def current_mode() -> CacheMode:
    """How calls use the cache here; see ``cache_mode``."""
    return _mode.get()

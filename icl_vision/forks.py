"""Locks that a forked child can take.

A lock that some thread held at the moment of a fork stays held in the child for ever: that thread does not exist there.

Knows: forks. Refuses to know: what is locked.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ForkLock:
    """A lock for ``with`` that is free in every forked child, however far its holder had come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Forked inside the block by its own thread, the child leaves it with another lock, which nobody holds.
        if self._lock.locked():
            self._lock.release()

    def renew(self) -> None:
        """Be free, whoever held it."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ForkLock], tuple[()]]:
        # What holds a lock may be pickled: its copy has one of its own.
        return ForkLock, ()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)

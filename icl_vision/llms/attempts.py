"""What was sent for one request, and what of it may have to be paid for though no answer came.

The retry layer notes every attempt; whoever keeps the books opens an account around a request and reads it afterwards:

    with account() as tried:
        answer = await llm.complete(prompt)
    unpaid_for = tried.unsure  # attempts that may be billed beside the one that was answered

Accounts may lie inside each other (a question of many parts, and each part of it): an attempt is noted in all of them.

Knows: attempts and how they ended. Refuses to know: tokens, prices, what is asked.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass

from icl_vision.errors import CapabilityError, LLMStatusError, LLMUnavailableError, PromptError, UsageError


@dataclass(slots=True, eq=False)
class Account:
    """Attempts at one request.

    known: somebody notes attempts at all (an LLM of the user's own may have no retry layer of ours). sent: attempts
    that left this machine; in_flight: those of them that have not ended. answered: that brought an answer. unsure: that
    may have been answered, and billed, though no answer came (a timeout, a cut, an unreadable body, an end to waiting).
    """

    known: bool = False
    sent: int = 0
    in_flight: int = 0
    answered: int = 0
    unsure: int = 0
    outer: Account | None = None

    @property
    def billed(self) -> int:
        """Attempts that have to be paid for, or may have to be."""
        return self.answered + self.unsure


_current: contextvars.ContextVar[Account | None] = contextvars.ContextVar("icl_vision_account", default=None)


@contextlib.contextmanager
def account() -> Iterator[Account]:
    """An account of what is sent inside the block, in tasks begun there too."""
    mine = Account(outer=_current.get())
    token = _current.set(mine)
    try:
        yield mine
    finally:
        _current.reset(token)


@contextlib.contextmanager
def free() -> Iterator[None]:
    """What is sent inside the block stands in no account: it costs nothing and is part of no answer."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def requested() -> None:
    """A request has come to the retry layer; from here on its attempts are noted."""
    for opened in _open():
        opened.known = True


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Around one attempt, from the moment it may leave this machine."""
    accounts = list(_open())
    for opened in accounts:
        opened.sent += 1
        opened.in_flight += 1
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        for opened in accounts:
            opened.in_flight -= 1
            opened.answered += failed is None
            opened.unsure += failed is not None and may_be_billed(failed)


def may_be_billed(error: BaseException) -> bool:
    """Whether a request that failed so may have been answered, and billed: it was neither refused nor unheard."""
    if isinstance(error, LLMUnavailableError):
        return error.sent
    return not isinstance(error, LLMStatusError | CapabilityError | PromptError | UsageError)


def _open() -> Iterator[Account]:
    opened = _current.get()
    while opened is not None:
        yield opened
        opened = opened.outer

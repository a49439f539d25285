"""Operations of prompt templates with a check before each, and the budget that they draw on.

Knows: how long strings, lists and numbers may become and how much one rendering may do in all.
Refuses to know: which operations a template may use (``sandbox``).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

MAX_ITEMS = 1_000_000
"""Items of all lists that one rendering makes, together."""
MAX_MADE = 32
"""Characters of all strings that one rendering makes, as a multiple of the characters it may print."""
MAX_ROUNDS = 200_000
"""Loop rounds of one rendering, all loops together."""
MAX_CPU_SECONDS = 2.0
"""CPU time of one rendering; an honest template needs milliseconds."""
MAX_INT = 10**18
"""Largest whole number that a template may compute."""


class Budget:
    """What one rendering has used up: characters printed and made, list items, loop rounds, CPU time."""

    def __init__(self, max_chars: int) -> None:
        self.max_chars = max_chars
        self.chars = self.made = self.items = self.rounds = 0
        self.deadline = time.thread_time() + MAX_CPU_SECONDS

    def emit(self, chars: int) -> None:
        """Count characters of output."""
        self.chars += chars
        if self.chars > self.max_chars:
            raise SecurityError(f"its text grows beyond {self.max_chars:,} characters")

    def spend(self, chars: int = 0, items: int = 0) -> None:
        """Count a string or list that the template is about to make."""
        self.made += max(0, chars)
        self.items += max(0, items)
        if chars > self.max_chars or self.made > MAX_MADE * self.max_chars:
            raise SecurityError(f"it makes a text of more than {self.max_chars:,} characters, or too many of them")
        if self.items > MAX_ITEMS:
            raise SecurityError(f"it makes lists of more than {MAX_ITEMS:,} items in all")
        self.check_time()

    def round(self) -> None:
        """Count one round of a loop."""
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise SecurityError(f"its loops run more than {MAX_ROUNDS:,} rounds in all")
        self.check_time()

    def check_time(self) -> None:
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it computes for more than {MAX_CPU_SECONDS:g} seconds")


_budget: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("icl_vision_prompt_budget", default=None)


@contextlib.contextmanager
def limited(max_chars: int) -> Iterator[Budget]:
    """The budget of one rendering (or compilation), in force in the ``with`` block, for this thread or task alone."""
    token = _budget.set(Budget(max_chars))
    try:
        yield _current()
    finally:
        _budget.reset(token)


def _current() -> Budget:
    budget = _budget.get()
    if budget is None:
        raise RuntimeError("a prompt template runs outside bounds.limited()")
    return budget


def charge(value: Any) -> Any:
    """Count a string or list that was just made; gives it back."""
    if isinstance(value, str):
        _current().spend(chars=len(value))
    elif isinstance(value, list | tuple):
        _current().spend(items=len(value))
    return value


def charged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is counted. ``wraps`` keeps jinja's marks (pass_environment ...) on it."""

    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        return charge(function(*args, **kwargs))

    return charged


def _number(value: float) -> float:
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise SecurityError(f"it computes a whole number beyond {MAX_INT:,}")
    return value


def scalar(value: Any) -> Any:
    """What may become text: strings and numbers, so that no list or ``None`` slips into a prompt by mistake."""
    if isinstance(value, Undefined):
        return value  # StrictUndefined raises by itself, with the variable's name
    if value is None or not isinstance(value, str | int | float):
        raise TypeError(
            f"{{{{ ... }}}} must be text or a number, not {type(value).__name__}; join a list, or loop over it"
        )
    return value


def concatenated(*values: Any) -> str:
    """The ``~`` operator."""
    texts = [str(scalar(value)) for value in values]
    _current().spend(chars=sum(map(len, texts)))
    return "".join(texts)


def listed(*items: Any) -> list[Any]:
    """A list or tuple written in the template."""
    return charge([_plain(item) for item in items])  # type: ignore[no-any-return]


def mapped(*items: Any) -> dict[Any, Any]:
    """A dict written in the template, keys and values in turn."""
    plain = listed(*items)
    return dict(zip(plain[::2], plain[1::2], strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | dict | range) or hasattr(value, "__next__"):
        raise SecurityError("it puts a list into another one; lists and dicts hold text and numbers only")
    return value


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, each counted against the rendering's rounds."""
    budget = _current()
    for item in items:
        budget.round()
        yield item


def filter_join(value: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    """jinja's ``join`` for strings and numbers, with a cap."""
    budget, separator = _current(), str(scalar(separator))
    parts: list[str] = []
    length = 0
    for item in value:
        if attribute is not None:
            item = item[attribute]
        parts.append(str(scalar(item)))
        length += len(parts[-1]) + len(separator)
        budget.spend(items=1)
    budget.spend(chars=length)
    return separator.join(parts)


def filter_replace(value: str, old: str, new: str, count: int | None = None) -> str:
    """jinja's ``replace`` with a cap."""
    value = str(scalar(value))
    uses = value.count(old) if count is None else min(count, value.count(old))
    _current().spend(chars=len(value) + uses * (len(new) - len(old)))
    return value.replace(old, new, -1 if count is None else count)


def filter_list(value: Iterable[Any]) -> list[Any]:
    """jinja's ``list`` with a cap."""
    items: list[Any] = []
    iterator = iter(value)
    while block := list(itertools.islice(iterator, 1024)):
        _current().spend(items=len(block))
        items.extend(block)
    return items


def sliced(value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    """``value[start:stop:step]``."""
    return charge(value[start:stop:step])


def power(left: Any, right: Any) -> Any:
    """The ``**`` operator."""
    if not (isinstance(right, int) and 0 <= right <= 64):
        raise SecurityError(f"it computes a power with exponent {right!r}; 0 to 64 are allowed")
    return _number(_number(left) ** right)


def times(left: Any, right: Any) -> Any:
    """The ``*`` operator."""
    for sequence, factor in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(factor, int):
            length = len(sequence) * max(0, factor)
            _current().spend(chars=length) if isinstance(sequence, str) else _current().spend(items=length)
            return sequence * factor
    return _number(left * right)


def plus(left: Any, right: Any) -> Any:
    """The ``+`` operator."""
    if isinstance(left, str) and isinstance(right, str):
        _current().spend(chars=len(left) + len(right))
        return left + right
    if isinstance(left, list | tuple):
        _current().spend(items=len(left) + len(right))
        return left + right
    return _number(left + right)


def modulo(left: Any, right: Any) -> Any:
    """The ``%`` operator, for numbers."""
    if isinstance(left, str):
        raise SecurityError("it formats text with %; write {{ ... }} or the ~ operator")
    return left % right

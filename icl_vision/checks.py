"""Options, checked where they come in: whole numbers, numbers, choices, flags. One way to refuse, one way to say so.

Knows: how a value of each kind is recognised, and what a refusal says: the option's name, what it must be, what it is.
Refuses to know: what any option is for. Whoever needs another error than ``UsageError`` (a damaged card) names it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TypeVar, overload

from icl_vision.errors import IclVisionError, UsageError

_SHOWN = 200
"""Most characters of a refused value in a message."""

T = TypeVar("T")


@overload
def count(
    name: str,
    value: object,
    *,
    least: int | None = ...,
    most: int | None = ...,
    of: str = ...,
    none: None = ...,
    error: type[IclVisionError] = ...,
) -> int: ...


@overload
def count(
    name: str,
    value: object,
    *,
    least: int | None = ...,
    most: int | None = ...,
    of: str = ...,
    none: str,
    error: type[IclVisionError] = ...,
) -> int | None: ...


def count(
    name: str,
    value: object,
    *,
    least: int | None = 1,
    most: int | None = None,
    of: str = "",
    none: str | None = None,
    error: type[IclVisionError] = UsageError,
) -> int | None:
    """A whole number within its range, as an int; numpy's integers are taken, True and 3.0 are not.

    Args:
        name: what the caller's argument is called, for the message.
        value: what was given.
        least, most: the range, both included; None has no end there.
        of: what is counted, for the message ("words": "must be a whole number of 1 or more words").
        none: what None means, where None is allowed ("the whole layer").
        error: the class of error raised.

    Raises:
        UsageError (or ``error``): no whole number, or one outside the range.
    """
    if value is None and none is not None:
        return None
    whole = as_whole(value)
    if whole is None or (least is not None and whole < least) or (most is not None and whole > most):
        span = "" if least is None else f" of {least:,} or more" if most is None else f" from {least:,} to {most:,}"
        unit = f" {of}" if of else ""
        raise error(f"{name} must be a whole number{span}{unit}{_or_none(none)}; got {shown(value)}")
    return whole


@overload
def number(
    name: str,
    value: object,
    *,
    least: float | None = ...,
    most: float | None = ...,
    above: float | None = ...,
    none: None = ...,
    error: type[IclVisionError] = ...,
) -> float: ...


@overload
def number(
    name: str,
    value: object,
    *,
    least: float | None = ...,
    most: float | None = ...,
    above: float | None = ...,
    none: str,
    error: type[IclVisionError] = ...,
) -> float | None: ...


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    none: str | None = None,
    error: type[IclVisionError] = UsageError,
) -> float | None:
    """A finite number within its range, as a float; numpy's numbers are taken, True and NaN are not.

    Args:
        name, value, none, error: as in ``count``.
        least, most: the range, both included; None has no end there.
        above: the range begins after this value (instead of ``least``).

    Raises:
        UsageError (or ``error``): no number, not finite, or outside the range.
    """
    if value is None and none is not None:
        return None
    real = as_real(value)
    if (
        real is None
        or (least is not None and real < least)
        or (above is not None and real <= above)
        or (most is not None and real > most)
    ):
        raise error(f"{name} must be a number{_span(least, most, above)}{_or_none(none)}; got {shown(value)}")
    return real


def choice(
    name: str, value: object, choices: Sequence[T], *, none: str | None = None, error: type[IclVisionError] = UsageError
) -> T:
    """One of ``choices``: the very object, or an equal string.

    Raises:
        UsageError (or ``error``): another value; the message lists the choices.
    """
    for allowed in choices:
        if value is allowed or (isinstance(value, str) and isinstance(allowed, str) and value == allowed):
            return allowed
    listed = ", ".join(map(repr, choices))
    raise error(f"{name} must be one of {listed}{_or_none(none)}; got {shown(value)}")


def flag(name: str, value: object, *, none: bool = False, error: type[IclVisionError] = UsageError) -> None:
    """True or False (or None, where ``none``), and nothing that only counts as such.

    Raises:
        UsageError (or ``error``): anything else.
    """
    if not (isinstance(value, bool) or (none and value is None)):
        raise error(f"{name} must be True or False{' or None' if none else ''}; got {shown(value)}")


def as_whole(value: object) -> int | None:
    """The whole number that ``value`` is, or None: a bool is none, nor is 3.0."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):  # numpy's, which counts as an index too
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what has no index says so itself
    except TypeError:
        return None


def as_real(value: object) -> float | None:
    """The finite number that ``value`` is, or None: a bool, a text and NaN are none."""
    if isinstance(value, bool | str | bytes | bytearray) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        real = float(value)  # type: ignore[arg-type]  # what is no number says so itself
    except (TypeError, ValueError, OverflowError):
        return None
    return real if math.isfinite(real) else None


def shown(value: object) -> str:
    """``value`` for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _span(least: float | None, most: float | None, above: float | None) -> str:
    if above is not None:
        return f" above {above:g}" + ("" if most is None else f" and at most {most:g}")
    if least is not None:
        return f" of {least:g} or more" if most is None else f" from {least:g} to {most:g}"
    return "" if most is None else f" of at most {most:g}"


def _or_none(none: str | None) -> str:
    return "" if none is None else f", or None ({none})"

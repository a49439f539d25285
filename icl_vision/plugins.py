"""LLM providers and tokenizers of other packages: found by their entry points, imported when one is asked for by name.

Such a package names them in its pyproject.toml; ``examples/colours`` is a whole one:

    [project.entry-points."icl_vision.llms"]
    echo = "my_package:EchoLLM"                 # connect("echo:MODEL", **options) is EchoLLM("MODEL", **options)

    [project.entry-points."icl_vision.tokenizers"]
    colours = "my_package:ColourTokenizer"      # from_pretrained("colours", **options) is ColourTokenizer(**options)

The value is anything that can be called: a class or a function. A name of this library's own always wins.

Knows: the groups, who offers a name, what can go wrong on the way to an object. Refuses to know: what an LLM or a
tokenizer is, and which names are this library's own.
"""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from icl_vision.errors import IclVisionError, PluginError, UsageError

LLMS = "icl_vision.llms"
TOKENIZERS = "icl_vision.tokenizers"

_KINDS = {LLMS: "LLM provider", TOKENIZERS: "tokenizer"}


def offered(group: str) -> dict[str, str]:
    """The names that installed packages offer, sorted, each with the package's name. Imports none of them."""
    return {name: " and ".join(map(_package, points)) for name, points in sorted(_points(group).items())}


def make(group: str, name: str, *arguments: Any, **options: Any) -> Any:
    """What an offered name stands for, called with these arguments; its package is imported now.

    Args:
        group: ``LLMS`` or ``TOKENIZERS``.
        name: one of ``offered(group)``.

    Raises:
        PluginError: the package cannot be imported, or fails with an error that is not of this library's tree.
        UsageError: an option that it does not take.
    """
    first, *others = _points(group)[name]
    what = f"the {_KINDS[group]} {name!r} of {_package(first)} ({first.value})"
    if others:
        raise PluginError(
            f"{what} is offered by {' and '.join(map(_package, others))} as well ({others[0].value}): uninstall one"
        )
    try:
        factory = first.load()
    except (Exception, SystemExit) as error:  # whatever happens while another's module is imported
        raise PluginError(f"{what} cannot be loaded: {_told(error)}") from error
    if not callable(factory):
        raise PluginError(f"{what} is of type {type(factory).__name__}: it must be a class or a function")
    _check_options(factory, what, arguments, options)
    try:
        return factory(*arguments, **options)
    except IclVisionError:
        raise
    except (Exception, SystemExit) as error:  # another's code: what it raises may be anything
        raise PluginError(f"{what} failed: {_told(error)}") from error


def _points(group: str) -> dict[str, list[EntryPoint]]:
    """By name; one that is listed twice with the same value (an editable package may be) counts once."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        same = points.setdefault(point.name, [])
        if all(point.value != other.value for other in same):
            same.append(point)
    return points


def _package(point: EntryPoint) -> str:
    return "a package without a name" if point.dist is None else point.dist.name


def _check_options(factory: Any, what: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # compiled code may not tell; calling it will
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise UsageError(f"{what} cannot be called so: {error}; it takes {signature}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"

"""An error of the library, as a person at a shell reads it: options instead of Python arguments.

Knows: how a message names an argument (``shots=3``, `` `shots` ``), and a command's own options.
Refuses to know: any one message; what is no option of the command stays as it is.
"""

from __future__ import annotations

import re

import click

# name=value: a quoted text, or what ends at a space, a comma or a bracket. Not inside a longer name or an address.
_ARGUMENT = re.compile(
    r"(?<![\w.?&/-])(?P<name>[a-z_]+)="
    r"(?P<value>'[^']*'|\"[^\"]*\"|\.\.\.|[^\s,;:.()\]}](?:[^\s,;:()\]}]*[^\s,;:.()\]}])?)?"
)
OTHERWISE = {name: {"context": "--examples"} for name in ("denoise", "denoising")}
"""Command -> argument -> option, where an option of the argument's own name means something else."""

_IN_PYTHON = re.compile(
    r", or load it with load_clip\(\.\.\., limits=ClipLimits\([a-z_]+=\.\.\.\)\)| or pass a larger max_(pixels|bytes)"
)
"""Ways out that no command has: there the caps of pictures and clips are what they are."""

_QUOTED = re.compile(r"`(?P<name>[a-z_]+)`")


def in_options(message: str, command: click.Command) -> str:
    """``message`` with the arguments that are options of ``command`` called by their options' names.

    >>> import click
    >>> command = click.Command("c", params=[click.Option(["--shots"]), click.Option(["-k", "k"])])
    >>> in_options("use a smaller k=5, or `shots`", command)
    'use a smaller -k 5, or --shots'
    """
    own = {param.name: param for param in command.params if isinstance(param, click.Option) and param.name}
    options = {name: max(param.opts, key=len) for name, param in own.items()} | OTHERWISE.get(command.name or "", {})
    flags = {name: param.secondary_opts for name, param in own.items() if param.is_flag}

    def argument(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in options:
            return match[0]
        if name in flags:
            if value == "False":
                return flags[name][0] if flags[name] else f"no {options[name]}"
            return options[name]
        if value in (None, "..."):
            return options[name]
        # None is the shell's "leave it out", except where a choice has that name.
        if value == "None":
            return f"{options[name]} none" if _takes(command, name, "none") else f"no {options[name]}"
        return f"{options[name]} {value.strip(chr(39) + chr(34))}"

    named = _ARGUMENT.sub(argument, for_shells(message))
    return _QUOTED.sub(lambda match: options.get(match["name"], match[0]), named)


def for_shells(message: str) -> str:
    """``message`` without the ways out of a cap that only Python has.

    >>> for_shells("a.gif has more frames than the cap of 9; cut it, or load it with load_clip(..., "
    ...            "limits=ClipLimits(frames=...))")
    'a.gif has more frames than the cap of 9; cut it'
    """
    return _IN_PYTHON.sub("", message)


def _takes(command: click.Command, name: str, value: str) -> bool:
    kinds = [param.type for param in command.params if param.name == name]
    return any(isinstance(kind, click.Choice) and value in kind.choices for kind in kinds)

"""Writes docs/cli.md: what `--help` of every command prints. A test keeps the page equal to that.

    make docs        # or: python .ci/cli_docs.py

Knows: the tree of commands, Markdown. Refuses to know: any command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from icl_vision.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 78
"""Of the text that is printed on a terminal of 80 columns or more."""
HEAD = """# Every command

What `icl-vision COMMAND --help` prints, for all commands. Exit codes: 0, all went well; 1, something failed and is
named on standard error (results that could be had were given); 2, a command line that makes no sense. With `--json`
standard output is exactly one JSON document.

This page is written by `make docs`, from the program itself.
"""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of every command and group, parents first."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from commands(found, (*path, name))


def help_of(path: tuple[str, ...]) -> str:
    """What --help prints, at a width that does not depend on the terminal."""
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="icl-vision", terminal_width=WIDTH)
    if result.exit_code:
        raise SystemExit(f"icl-vision {' '.join(path)} --help failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for path in commands(main):
        name = " ".join(("icl-vision", *path))
        parts.append(f"## {name}\n\n```text\n{help_of(path)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = render()
    changed = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
    PAGE.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{PAGE.name}: {'written' if changed else 'as it was'}\n")

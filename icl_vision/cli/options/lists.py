"""Options that take several values at once: `--rows likelihood words_prototype`.

Knows: how such a command line is taken apart. Refuses to know: any one command.
"""

from __future__ import annotations

import click


class ListsCommand(click.Command):
    """A command whose ``multiple`` options take every word up to the next option.

    ``--rows a b`` means ``--rows a --rows b``, which works as well. Arguments therefore stand before such an option,
    or after ``--``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        lists = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        return super().parse_args(ctx, _spread(args, lists))


def _spread(args: list[str], lists: set[str]) -> list[str]:
    """The words with the option's name before each of its values."""
    result: list[str] = []
    current: str | None = None
    fresh = False
    for place, word in enumerate(args):
        if word == "--":
            return result + args[place:]
        if word.startswith("-") and word != "-":
            current, fresh = (word, True) if word in lists else (None, False)
            result.append(word)
        elif current is not None and not fresh:
            result += [current, word]
        else:
            fresh = False
            result.append(word)
    return result

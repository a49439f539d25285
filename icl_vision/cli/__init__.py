"""The `icl-vision` command: a lazy group, one file a command.

Knows: which commands exist and where. Refuses to know: what they do; a command's
module is imported only when that command (or its help) is asked for, so start-up stays cheap.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from icl_vision.errors import IclVisionError, StorageError, UnwritableError

# command -> (module, one line for the list of commands)
COMMANDS: dict[str, tuple[str, str]] = {
    "answer": ("icl_vision.cli.answer", "Answer questions about images, from a few answered ones."),
    "build": ("icl_vision.cli.build", "Build a tokenizer of your own."),
    "caption": ("icl_vision.cli.caption", "Caption images, from a few captioned ones."),
    "classify": ("icl_vision.cli.classify", "Classify images from a folder of labelled examples."),
    "demo": ("icl_vision.cli.demo", "Watch a frozen text LLM classify photographs through words."),
    "denoise": ("icl_vision.cli.denoise", "Restore pictures with a text LLM, through words."),
    "doctor": ("icl_vision.cli.doctor", "Say what is installed, what works and what does not."),
    "eval": ("icl_vision.cli.eval", "Measure: few-shot accuracy, reconstruction, two runs compared."),
    "export": ("icl_vision.cli.export", "Turn a training run into a tokenizer that needs no torch."),
    "generate": ("icl_vision.cli.generate", "Draw pictures from texts with a text LLM, through words."),
    "mcp": ("icl_vision.cli.mcp", "Serve tools that see and draw to agents (MCP)."),
    "models": ("icl_vision.cli.models", "List tokenizers and LLMs, or show a card."),
    "paint": ("icl_vision.cli.paint", "Draw a picture of a text with a diffusion model behind an LLM."),
    "prompts": ("icl_vision.cli.prompts", "List, show or validate prompt templates."),
    "reconstruct": ("icl_vision.cli.reconstruct", "Turn an image into words and back into an image."),
    "serve": ("icl_vision.cli.serve", "Let a text-only LLM see: a proxy that puts words in the places of pictures."),
    "show": ("icl_vision.cli.show", "Show an image as its words, layer by layer, on a page or in a picture."),
    "tokenize": ("icl_vision.cli.tokenize", "Turn images into words."),
    "train": ("icl_vision.cli.train", "Train a tokenizer on your own images, or what draws from a text."),
}


INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT."""


def _drop_output() -> None:
    """Where stdout takes nothing more (a full disk), so that Python does not complain again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def _storage_told() -> Iterator[None]:
    """A disk or stream that takes or gives nothing is an error of one line, not a traceback."""
    try:
        yield
    except OSError as error:
        # `| head`: click ends quietly; and an error of ours that is an OSError too has said what it is about.
        if error.errno == errno.EPIPE or isinstance(error, IclVisionError):
            raise
        where = "what was to be printed" if error.filename is None else repr(os.fsdecode(error.filename))
        _drop_output()
        raise click.ClickException(
            f"StorageError: {where} cannot be read or written: {error.strerror or error}"
        ) from error


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is looked up.

    members: command -> (module with a ``command``, one line for the list of commands).
    """

    def __init__(self, *args: Any, members: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.members = members

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _storage_told():  # the group's own --help and --version are printed while it reads its arguments
            return super().make_context(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.members:
            return None
        command: click.Command = importlib.import_module(self.members[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.members[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        # The command that is about to run, for its options' names; None where there is none of that name.
        name = next(iter([*ctx._protected_args, *ctx.args]), "")
        command = self.get_command(ctx, name)
        try:
            with _storage_told():
                return super().invoke(ctx)
        except IclVisionError as error:
            text = str(error)
            if command is not None:
                from icl_vision.cli.speaking import in_options

                text = in_options(text, command)
            # That a kind of StorageError is an OSError too is for programs; people get the name that the docs have.
            kind = StorageError if isinstance(error, UnwritableError) else type(error)
            raise click.ClickException(f"{kind.__name__}: {text}") from error
        except ValueError as error:
            if "null byte" not in str(error) and "null character" not in str(error):
                raise
            raise click.ClickException("a path holds a null character, which no file's name can have") from error
        except KeyboardInterrupt:
            # As shells expect of a program that Ctrl-C ended; what to do next was said where it is known.
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(
    cls=LazyGroup, members=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(package_name="icl-vision")
def main() -> None:
    """icl_vision: any text-only LLM sees and draws, through ordinary words."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name need not be Unicode, and a terminal need not know every character: neither ends a command.
        with contextlib.suppress(AttributeError, ValueError):  # a stream of somebody else's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text stream, or one of somebody else's

"""What several commands share: the options that mean the same everywhere, image arguments, and JSON output.

Knows: option names, defaults and their reasons. Refuses to know: any one command.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from icl_vision.errors import (
    DataLeftOutWarning,
    DroppedGuaranteeWarning,
    ImageError,
    LLMError,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from icl_vision.tokenizers.taking import Taking

F = TypeVar("F", bound=Callable[..., Any])


def tokenizer_option(default: str = "words-photo", *, clips: bool = False) -> Callable[[F], F]:
    """clips: the command takes clips too, and ``for_clips`` has a tokenizer for them."""
    return click.option(
        "--tokenizer",
        default=default,
        show_default=f"{default}; of clips {OF_CLIPS}" if clips else True,
        metavar="NAME|FOLDER",
        help="Tokenizer that turns images into words: a packaged name (`icl-vision models list`) or an artefact "
        "folder.",
    )


OF_CLIPS = "spae-clips-64"
"""The tokenizer of clips where none is named."""


def for_clips(ctx: click.Context, tokenizer: str, sources: Sequence[str]) -> str:
    """The tokenizer to take: the one named; else ``OF_CLIPS`` where the sources are clips, if it is installed.

    Raises:
        UsageError: none is named, and some sources are clips and some are still pictures. What can be read as neither
            is not counted: it is named as any bad file is.
    """
    if ctx.get_parameter_source("tokenizer") is not click.core.ParameterSource.DEFAULT:
        return tokenizer
    from icl_vision.clips import moves
    from icl_vision.tokenizers import zoo

    if OF_CLIPS not in zoo.available():
        return tokenizer
    moving = [moves(source) for source in sources]
    if any(moving) and not all(moving):
        clip = sources[moving.index(True)]
        for source, also in zip(sources, moving, strict=True):
            if not also and _is_still(source):
                raise UsageError(
                    f"{clip!r} is a clip and {source!r} is a still picture, which no one tokenizer takes; make one "
                    f"call for each kind, or name one with --tokenizer: {tokenizer} takes a clip's first frame"
                )
    return OF_CLIPS if any(moving) else tokenizer


def _is_still(source: str) -> bool:
    from icl_vision.images import load_image

    try:
        load_image(source)
    except ImageError:
        return False
    return True


about_option = click.option(
    "--about",
    default=None,
    metavar="QUESTION",
    help="What the words are wanted for: those that bear on this question come first, the others are left out. For "
    "tokenizers that can focus (describe-photo). Default: none, all words.",
)


def tell_of_first_frames(paths: Sequence[str | os.PathLike[str]], what: str, instead: str, *, quiet: bool) -> None:
    """Say which of the pictures move, of which a tokenizer of images takes the first frame. what: was done to it."""
    from icl_vision.cli.tokenize import one_line
    from icl_vision.clips import moves

    moving = [os.fspath(path) for path in paths if moves(path)]
    if moving:
        which = one_line(moving[0]) if len(moving) == 1 else f"{one_line(moving[0])} and {len(moving) - 1} more"
        say(f"{what} by the first frame only: {which}; {instead}", quiet=quiet)


class _PartsType(click.ParamType):  # type: ignore[type-arg]  # not generic at run time
    name = "PART,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return [part.strip() for part in str(value).split(",") if part.strip()]


parts_option = click.option(
    "--parts",
    type=_PartsType(),
    default=None,
    metavar="PART,...",
    help="Which parts of the words are wanted, for tokenizers whose words have parts, e.g. what,said. Default: all.",
)


def tokenizer_for(name: str, parts: Sequence[str] | None, sampling: Sampling | None = None) -> Any:
    """The tokenizer of that name, with these parts of its words where some were named, and this sampling of clips.

    Raises:
        UsageError: parts of a tokenizer that has none, or has others; sampling of one that takes images; and as
            ``ImageTokenizer.from_pretrained``.
    """
    from icl_vision.tokenizers import ImageTokenizer

    options: dict[str, Any] = {} if parts is None else {"parts": parts}
    if sampling is not None:
        options |= sampling.of(name)
    return ImageTokenizer.from_pretrained(name, **options)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a clip are read. rate: a second, from its beginning; None for evenly. frames: how many; None for
    as many as the tokenizer takes."""

    rate: float | None
    frames: int | None

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return (self.rate, self.frames) != (None, None)

    @property
    def words(self) -> list[str]:
        """As they were given on the command line."""
        told = [] if self.rate is None else ["--rate", f"{self.rate:g}"]
        return told if self.frames is None else [*told, "--frames", str(self.frames)]

    def of(self, tokenizer: str) -> dict[str, Any]:
        """Options of the tokenizer of that name; {} where nothing was asked for.

        Raises:
            UsageError: it takes images.
        """
        if not self:
            return {}
        if taken_by_name(tokenizer).one != "clip":
            raise UsageError(
                f"{' '.join(self.words)} says which frames of a clip are read, and the tokenizer {tokenizer!r} takes "
                f"images; leave it out, or take --tokenizer {OF_CLIPS}"
            )
        return {"rate": self.rate, "reads": self.frames}


def sampling_options(function: F) -> F:
    """Adds --rate and --frames; the command gets them as one argument ``sampling``."""

    @functools.wraps(function)
    def command(*args: Any, rate: float | None, frames: int | None, **kwargs: Any) -> Any:
        return function(*args, sampling=Sampling(rate, frames), **kwargs)

    for option in (
        click.option(
            "--frames",
            type=click.IntRange(min=1, max=10_000),
            metavar="N",
            help="Of clips: frames that are read, the first N at --rate, else N evenly over the clip's time; the "
            "tokenizer takes as many of them as it needs, evenly. Default: just as many.",
        ),
        click.option(
            "--rate",
            type=click.FloatRange(min=0, min_open=True, max=1000),
            metavar="HZ",
            help="Of clips: frames a second that are read, from the clip's beginning; where it ends too soon, its last "
            "frame is held. Default: evenly over all of its time.",
        ),
    ):
        command = option(command)
    return command  # type: ignore[return-value]  # an option gives back the function it decorates


def llm_option(default: str = "local") -> Callable[[F], F]:
    return click.option(
        "--llm",
        default=default,
        show_default=True,
        metavar="SPEC",
        help="LLM, as for icl_vision.connect: local, local:PATH.gguf, openai:MODEL, anthropic:MODEL, "
        "openai-compatible:MODEL@URL, langchain:PROVIDER:MODEL, fake, replay:FILE. "
        "The default needs no key and no network.",
    )


def seed_option(default: int = 0) -> Callable[[F], F]:
    return click.option(
        "--seed",
        default=default,
        show_default=True,
        type=int,
        help="Seed of everything random, so that a run can be repeated.",
    )


def _hush(context: click.Context, _: click.Parameter, quiet: bool) -> bool:
    """Warnings of the library, logged or warned, are remarks: shown at a terminal or not, but not under --quiet."""
    # The library's own, whose modules' loggers are its children; nothing is logged here.
    logger = logging.getLogger(__name__.partition(".")[0])
    handler, level = _Remarks(logging.WARNING), logger.level
    logger.addHandler(handler)
    if quiet:
        # Pillow's on odd metadata too: what cannot be read is an error anyway.
        warnings.filterwarnings("ignore", module=r"PIL\b")
        logger.setLevel(logging.ERROR)
    show = warnings.showwarning

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, _OURS):
            show(message, category, *where, **more)
        elif not quiet:
            # The line of code that warned says nothing to a person at a shell; file names need not be one line.
            click.echo(" ".join(str(message).split()), err=True)

    warnings.showwarning = shown

    def undo() -> None:
        if warnings.showwarning is shown:
            warnings.showwarning = show
        logger.removeHandler(handler)
        logger.setLevel(level)

    # The root's end: a command whose later options are refused never gets to its own.
    context.find_root().call_on_close(undo)
    return quiet


_OURS = (DataLeftOutWarning, DroppedGuaranteeWarning)


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


quiet_option = click.option(
    "--quiet",
    is_flag=True,
    callback=_hush,
    help="No progress and no remarks on stderr; results and errors only.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout and nothing else there."
)


trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Follow the names in the files given wherever they lead: servers, folders, downloads. For files of your own. "
    "Default: off; what leads elsewhere is yours to name with an option.",
)


force_option = click.option(
    "--force", is_flag=True, help="Write over a finished --out file. Default: off, a file that is there stays."
)


def task_options(texts: Sequence[str]) -> dict[str, Any]:
    """The values of --option NAME=VALUE by name.

    Raises:
        UsageError: one that is not NAME=VALUE, or no YAML.
    """
    from icl_vision.files.reading import load_yaml

    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--option must be NAME=VALUE; got {text!r}")
        try:
            values[name.strip().replace("-", "_")] = load_yaml(value)
        except ValueError as error:
            raise UsageError(f"--option {text!r}: the value is not YAML: {error}") from error
    return values


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` run."""
    from icl_vision.files.storage import json_text

    click.echo(json_text(document, indent=2))


def say(text: str, *, quiet: bool = False) -> None:
    """A remark for a person, on stderr so that stdout stays clean."""
    if not quiet:
        click.echo(text, err=True)


def progress_wanted(quiet: bool) -> bool:
    """Progress bars only for a person at a terminal."""
    return not quiet and sys.stderr.isatty()


@contextlib.contextmanager
def bar(total: int, unit: str, *, quiet: bool, done: int = 0) -> Iterator[Callable[..., object]]:
    """A bar on stderr, for a person at a terminal; called after each unit, or with how many there were.

    done: how many there are already.
    """
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=unit, disable=not progress_wanted(quiet)) as shown:
        yield shown.update


@contextlib.contextmanager
def kept(out: object, *, quiet: bool = False, what: str = "what was answered") -> Iterator[None]:
    """Around work whose results are in the folder or file ``out`` as soon as they are there.

    Where it stops, by an LLM's error, a full disk or Ctrl-C, says how to go on.
    """
    try:
        yield
    except (LLMError, StorageError, KeyboardInterrupt) as error:
        # After Ctrl-C a person looks for the way on: no remark, so --quiet keeps it.
        say(
            f"{what} is kept in {out}; --resume goes on from there",
            quiet=quiet and not isinstance(error, KeyboardInterrupt),
        )
        raise


FILES = frozenset(
    ".bmp .csv .gif .html .jpeg .jpg .json .jsonl .md .npz .parquet .pdf .png .svg .tif .tiff .txt .webp".split()
)
"""Endings that nobody gives a folder on purpose."""


def try_out(out: Path, *, folder: bool, force: bool = True, instead: str = "") -> None:
    """Whether --out can be written, before anything is loaded or asked; what is found out costs nothing then.

    Args:
        out: the file or folder, as ``folder`` says.
        force: whether a file that is already there is written over.
        instead: what to name instead of a folder, for the message: "or a .png file for one picture".

    Raises:
        UsageError: a file that is already there and is to stay, or a folder named as files are.
        StorageError: it cannot be written.
    """
    from icl_vision.files.storage import try_writing

    if folder and out.suffix.lower() in FILES and not out.is_dir():
        raise UsageError(
            f"--out {str(out)!r} would become a folder, and {out.suffix} is a file's ending; name a folder"
            + (f", {instead}" if instead else "")
        )
    if not folder and not force and out.is_file():
        raise UsageError(f"{str(out)!r} is already there; --force writes over it, or choose another --out")
    try_writing(out, folder=folder)


def taken_by_name(tokenizer: str) -> Taking:
    """What the tokenizer of that name takes: images, or clips. Raises as ``ImageTokenizer.from_pretrained``."""
    from icl_vision.tokenizers import zoo
    from icl_vision.tokenizers.taking import taken_by_card

    return taken_by_card(zoo.card(tokenizer))


def expand(images: Sequence[Path], takes: Taking | None = None) -> list[Path]:
    """Folders become the images (or clips) in them; a folder without any is a mistake, said at once.

    Raises:
        UsageError: a folder that holds no images.
    """
    from icl_vision.tasks.inputs import read_images

    targets: list[Path] = []
    for path in images:
        if not os.path.isdir(path):
            targets.append(path)
            continue
        targets.extend(read_images(path) if takes is None else read_images(path, takes))
    return targets


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

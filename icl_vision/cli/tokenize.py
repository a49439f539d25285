"""`icl-vision tokenize`: images in, words out.

Knows: how paths and folders are walked, how words are printed or written. Refuses to know: how words are made.
One bad file never stops the others: it is named on stderr and the exit code is 1 at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.common import json_option, print_json, progress_wanted, quiet_option, say, tokenizer_option
from icl_vision.errors import ImageError, ImageNotFoundError, StorageError
from icl_vision.storage import write_text

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.tokenizers import ImageTokenizer


@click.command("tokenize")
@click.argument("images", nargs=-1, required=True, type=click.Path(), metavar="IMG|DIR...")
@tokenizer_option()
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=None,
    help="Words per image. Default: the tokenizer's own (5 for words-photo, every layer of a pyramid). "
    "A pyramid accepts the counts that fill whole layers, e.g. 1, 5, 21, 85.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE.jsonl",
    help="Write one JSON object a line to this file instead of printing. It appears only when complete.",
)
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    tokenizer: str,
    k: int | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn images into words.

    Folders are searched with their subfolders, in sorted order, for files with an image's suffix. With --json the
    output is [{image, k, words}], where words holds one list per layer, coarse first. Files that cannot be used are
    named on stderr; the others go on, and the exit code is 1 at the end.
    """
    if out is not None and out.suffix != ".jsonl":
        raise click.BadParameter(f"{str(out)!r} must end in .jsonl", param_hint="--out")
    from icl_vision.tokenizers import ImageTokenizer

    loaded = ImageTokenizer.from_pretrained(tokenizer)
    problems: list[str] = []
    paths = _find(images, problems)
    if out is not None:
        _check_writable(out)
    records: list[dict[str, Any]] = []
    printing = out is None and not as_json
    # Lines printed to a terminal are progress enough.
    with _bar(len(paths), wanted=progress_wanted(quiet) and not printing) as advance:
        for path, result in _encode(loaded, paths, k):
            advance()
            if isinstance(result, ImageError):
                problems.append(_one_line(f"{type(result).__name__}: {result}"))
                continue
            records.append(_record(path, result))
            if printing:
                click.echo(_for_people(records[-1], art=result.vocabulary is None))
    if out is not None and records:
        _write(out, records)
        say(f"{len(records)} images written to {out}", quiet=quiet)
    if as_json:
        print_json(records)
    for problem in problems:
        say(problem)
    if problems:
        ctx.exit(1)


def _find(images: Iterable[str], problems: list[str]) -> list[str]:
    """The files to read: those named, in the order named, and the images of the folders named."""
    from icl_vision.images import list_images

    found: list[str] = []
    for name in images:
        if not Path(name).is_dir():
            found.append(name)
            continue
        try:
            inside = list_images(name)
        except ImageNotFoundError as error:
            problems.append(_one_line(f"{type(error).__name__}: {error}"))
            continue
        if not inside:
            problems.append(f"ImageNotFoundError: the folder {name!r} holds no file with an image's suffix")
        found += map(str, inside)
    return found


def _encode(
    tokenizer: ImageTokenizer, paths: Iterable[str], k: int | None
) -> Iterator[tuple[str, TokenPyramid | ImageError]]:
    """Each path with its words or with what is wrong with it, a batch at a time."""
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, tokenizer.batch_size)):
        try:
            yield from zip(batch, tokenizer.encode(batch, k), strict=True)
            continue
        except ImageError:
            pass  # some file of the batch is bad: find out which, below
        for path in batch:
            try:
                yield path, tokenizer.encode(path, k)[0]
            except ImageError as error:
                yield path, error


@contextlib.contextmanager
def _bar(total: int, *, wanted: bool) -> Iterator[Callable[[], object]]:
    """A progress bar on stderr, or nothing; yields what to call after each image."""
    if not wanted:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="image", leave=False) as bar:
        yield bar.update


def _check_writable(out: Path) -> None:
    """Say so before the work rather than after it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder {str(out.parent)!r} cannot be made: {error.strerror or error}") from error
    if not os.access(out.parent, os.W_OK):
        raise StorageError(f"the folder {str(out.parent)!r} cannot be written; choose another --out")


def _write(out: Path, records: list[dict[str, Any]]) -> None:
    try:
        write_text(out, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    except OSError as error:
        raise StorageError(f"{str(out)!r} cannot be written: {error.strerror or error}") from error


def _record(path: str, pyramid: TokenPyramid) -> dict[str, Any]:
    words = [pyramid.words(layer) for layer in range(1, pyramid.layers + 1)]
    # A file name need not be valid text; JSON must be.
    name = os.fsencode(path).decode("utf-8", "replace")
    return {"image": name, "k": sum(map(len, words)), "words": words}


def _for_people(record: dict[str, Any], *, art: bool) -> str:
    name, layers = _one_line(record["image"]), record["words"]
    if art:
        return "\n".join([name, *layers[0]])
    if len(layers) == 1:
        return f"{name}: {' '.join(layers[0])}"
    return "\n".join([name, *(f"  layer {number}: {' '.join(words)}" for number, words in enumerate(layers, start=1))])


def _one_line(text: str) -> str:
    """Text from outside as one harmless line of a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

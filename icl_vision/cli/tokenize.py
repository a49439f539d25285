"""`icl-vision tokenize`: images in, words out.

Knows: how paths and folders are walked, how words are printed, what is said of bad files. Refuses to know: how words
are made, read ahead, journalled and written (``tokenizers/bulk*.py``).
One bad file never stops the others: it is named, and the exit code is 1 at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_vision.cli.options.common import (
    Sampling,
    about_option,
    force_option,
    json_option,
    kept,
    parts_option,
    print_json,
    progress_wanted,
    quiet_option,
    sampling_options,
    say,
    tokenizer_for,
    tokenizer_option,
    try_out,
)
from icl_vision.cli.speaking import for_shells
from icl_vision.errors import ImageNotFoundError, UsageError
from icl_vision.wording import counted

if TYPE_CHECKING:
    from icl_vision.tokenizers import ImageTokenizer
    from icl_vision.tokenizers.bulk.files import Shard
    from icl_vision.tokenizers.taking import Taking

NAMED = 20
"""Bad files of a bulk run that are named on stderr; the others are only counted, all of them are in a file."""


class _ShardType(click.ParamType):  # type: ignore[type-arg]  # not generic at run time
    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from icl_vision.tokenizers.bulk.files import Shard

        try:
            return Shard.parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class _Bulk:
    """The options of a run that writes a file."""

    out: Path
    workers: int
    shard: Shard | None
    resume: bool
    about: str | None


@click.command("tokenize")
@click.argument("images", nargs=-1, required=True, type=click.Path(), metavar="IMG|DIR...")
@tokenizer_option()
@click.option(
    "-k",
    "k",
    type=click.IntRange(min=1),
    default=None,
    help="Words per image (per part, for describe-photo). Default: the tokenizer's own (5 for words-photo, every layer "
    "of a pyramid). A pyramid accepts the counts that fill whole layers, e.g. 1, 5, 21, 85.",
)
@about_option
@parts_option
@sampling_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE.jsonl|.parquet",
    help="Write to this file instead of printing: one JSON object a line, or columns (needs the extra `parquet`). It "
    "appears only when complete; until then its journal is the folder FILE.part. Default: none, words are printed.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that read, decode and shrink files. 0 takes threads, which need no start-up and are as fast on a "
    "few cores; processes help where there are many cores or a GPU waits.",
)
@click.option(
    "--shard",
    type=_ShardType(),
    default=None,
    metavar="I/N",
    help="Encode only part I of N of the files, for N machines; FILE.jsonl becomes FILE-0000I-of-0000N.jsonl. The "
    "parts one after the other, sorted by name, are the whole. Default: everything.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with what an interrupted run left in FILE.part: what has words is not encoded again. Does nothing "
    "where FILE is complete. Same files, same options.",
)
@force_option
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    tokenizer: str,
    k: int | None,
    about: str | None,
    parts: list[str] | None,
    sampling: Sampling,
    out: Path | None,
    workers: int,
    shard: Shard | None,
    resume: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn images, or clips, into words.

    Folders are searched with their subfolders, in sorted order, for files with an image's suffix; for a tokenizer of
    clips, for animated GIF, WebP and PNG, video files and folders of frames. With --json the
    output is [{image, k, words}], where words holds one list per layer, coarse first (of a tokenizer whose words have
    parts one per part, with {parts, probabilities, text} beside it); a file that cannot be used is {image, error}
    there. Such files are named on stderr too; the others go on, and the exit code is 1 at the end. With
    --out they are listed in FILE.bad.jsonl, and no more than the first 20 are named.
    """
    if out is None and (resume or shard is not None):
        raise click.UsageError(f"{'--resume' if resume else '--shard'} needs --out FILE, the file to write")
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise click.BadParameter(f"{str(out)!r} must end in .jsonl or .parquet", param_hint="--out")
    if out is not None:
        try_out(out, folder=False, force=force or resume)
    from icl_vision.tokenizers.wrapping import check_about

    loaded: ImageTokenizer = tokenizer_for(tokenizer, parts, sampling)
    check_about(loaded, about)
    paths, problems = _find(images, loaded.takes)
    if out is None:
        records = _stream(loaded, paths, k, workers, about, as_json=as_json, quiet=quiet)
        bad = [record for record in records if "error" in record]
        ill = len(bad)
    else:
        bulk = _Bulk(out, workers, shard, resume, about)
        ill, bad, records = _write(loaded, paths, k, bulk, as_json=as_json, quiet=quiet)
    if as_json:
        print_json([_for_json(record) for record in [*records, *problems]])
    for record in bad:
        say(_reason(record))
    if ill > len(bad):
        say(f"... and {ill - len(bad):,} more")
    for problem in problems:
        say(_reason(problem))
    if ill or problems:
        ctx.exit(1)


def _find(images: Iterable[str], takes: Taking) -> tuple[list[str], list[dict[str, Any]]]:
    """The files to read: those named, in the order named, and the images of the folders named; and folders without."""
    files: list[str] = []
    problems: list[dict[str, Any]] = []
    for name in images:
        if not os.path.isdir(name):
            files.append(name)
            continue
        try:
            inside = takes.listed(name)
            if not inside:
                what = "file with an image's suffix" if takes.one == "image" else "clip"
                raise ImageNotFoundError(f"the folder {name!r} holds no {what}")
        except ImageNotFoundError as error:
            from icl_vision.tokenizers.bulk.formats import row_of

            problems.append(row_of(name, error))
            continue
        files += map(str, inside)
    return files, problems


def _stream(
    tokenizer: ImageTokenizer,
    paths: list[str],
    k: int | None,
    workers: int,
    about: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> list[dict[str, Any]]:
    """Encode and print as it goes; gives the rows of bad files, with ``as_json`` prints nothing and gives all rows."""
    from icl_vision.tokenizers.bulk.encoding import encode_files
    from icl_vision.tokenizers.bulk.formats import row_of

    records: list[dict[str, Any]] = []
    # Lines printed to a terminal are progress enough.
    with bar(len(paths), wanted=progress_wanted(quiet) and as_json) as advance:
        with contextlib.closing(encode_files(tokenizer, paths, k, workers=workers, about=about)) as encoded:
            for path, result in encoded:
                advance()
                record = row_of(path, result)
                if as_json or "error" in record:
                    records.append(record)
                else:
                    click.echo(_for_people(record, art=tokenizer.vocabulary is None))
    return records


def _write(
    tokenizer: ImageTokenizer, paths: list[str], k: int | None, bulk: _Bulk, *, as_json: bool, quiet: bool
) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """Encode into a file; gives the number of bad files, the first of their rows, and with ``as_json`` all rows."""
    from icl_vision.tokenizers.bulk.files import bad_file, read_all, read_bad, tokenize_files

    if not paths and bulk.shard is None:
        return 0, [], []
    mine = list(paths if bulk.shard is None else bulk.shard.of(paths))
    with kept(bulk.out, what="what was encoded"), bar(len(mine), wanted=progress_wanted(quiet)) as advance:
        report = tokenize_files(
            tokenizer,
            paths,
            bulk.out,
            k,
            workers=bulk.workers,
            shard=bulk.shard,
            resume=bulk.resume,
            progress=advance,
            about=bulk.about,
        )
    before = f", {report.resumed:,} of the files were done before" if report.resumed else ""
    if report.images or bulk.shard is not None:
        say(f"{counted(report.images, tokenizer.takes.one)} written to {report.out}{before}", quiet=quiet)
    if report.bad:
        listed = bad_file(report.out)
        say(f"{report.bad:,} of {counted(len(mine), 'file')} could not be used; they are listed in {listed}")
    first = list(itertools.islice(read_bad(report.out), NAMED)) if report.bad else []
    return report.bad, first, list(read_all(report, mine)) if as_json else []


@contextlib.contextmanager
def bar(total: int, *, wanted: bool) -> Iterator[Callable[..., object]]:
    """A progress bar on stderr, or nothing; yields what to call after each image, or with a number of images."""
    if not wanted:
        yield lambda count=1: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="image", leave=False) as shown:
        yield shown.update


def _for_json(record: dict[str, Any]) -> dict[str, Any]:
    """A row as --json gives it: what is wrong is one text, as in `icl-vision classify --json`."""
    if "error" not in record:
        return record
    return {"image": record["image"], "error": for_shells(f"{record['error']}: {record['message']}")}


def _reason(record: dict[str, Any]) -> str:
    return one_line(for_shells(f"{record['error']}: {record['message']}"))


def _for_people(record: dict[str, Any], *, art: bool) -> str:
    name, layers = one_line(record["image"]), record["words"]
    if "parts" in record:
        rows = [f"{part}: {' '.join(words)}" for part, words in zip(record["parts"], layers, strict=True) if words]
        rows += ["text: " + " ".join(json.dumps(text, ensure_ascii=False) for text in record["text"])] * bool(
            record["text"]
        )
        return "\n".join([name, *(f"  {one_line(row)}" for row in rows)])
    if art:
        return "\n".join([name, *layers[0]])
    if len(layers) == 1:
        return f"{name}: {' '.join(layers[0])}"
    return "\n".join([name, *(f"  layer {number}: {' '.join(words)}" for number, words in enumerate(layers, start=1))])


def one_line(text: str) -> str:
    """Text from outside as one harmless line of a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

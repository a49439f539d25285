"""Many image files to one file of words that a kill at any moment does not spoil.

    report = tokenize_files(tokenizer, list_images("photos"), "words.jsonl", resume=True)

While it is worked on, everything lies in a run folder beside the file (``words.jsonl.part``, see ``runs.py``): its
journal gets one line for every chunk of ``encoding.CHUNK`` files, on disk before the next chunk counts. At the end
appear

    words.jsonl             the rows, in the order of the files
    words.jsonl.bad.jsonl   {"image", "error", "message"} of each file that could not be used; absent if there is none
    words.jsonl.run.json    what the words were made with, and how many there are

each moved there whole, and the run folder goes last. A kill costs the chunks in flight and no more.

Knows: journals, shards, what a resume may go on with. Refuses to know: how files are read and encoded
(``encoding.py``), how rows look in a file (``formats.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.errors import RunError, RunMismatchError, StorageError, UsageError
from icl_vision.files.reading import read_json
from icl_vision.files.runs import Run, check_config, config_hash, read_results, source_commit, versions
from icl_vision.files.storage import write_json
from icl_vision.tokenizers.base import ImageTokenizer
from icl_vision.tokenizers.bulk.encoding import CHUNK, encode_chunks
from icl_vision.tokenizers.bulk.formats import JsonLines, Row, format_of, is_shown, json_line, row_of
from icl_vision.tokenizers.wrapping import check_about, fingerprint, whole

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer

logger = logging.getLogger(__name__)

COMMAND = "tokenize"

_MOVES_OPEN_FILES = os.name == "posix"
"""Elsewhere a folder with open files cannot be moved."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several even parts of a list: ``number`` of ``count``, counted from 1; a part is a run of neighbours.

    The parts' files, sorted by name and put one after the other, are the whole.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"a shard is I/N with 1 <= I <= N, e.g. 2/8; got {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/8"`` as a shard.

        Raises:
            UsageError: not of that form, or out of range.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None:
            raise UsageError(f"a shard is I/N with 1 <= I <= N, e.g. 2/8; got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[str]) -> Sequence[str]:
        """This shard's part of a list."""
        ends = [parts * len(items) // self.count for parts in (self.number - 1, self.number)]
        return items[ends[0] : ends[1]]

    def file(self, out: Path) -> Path:
        """This shard's file: words.jsonl becomes words-00002-of-00008.jsonl."""
        return out.with_name(f"{out.stem}-{self.number:05d}-of-{self.count:05d}{out.suffix}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True, slots=True)
class BulkReport:
    """What ``tokenize_files`` did.

    out: the file of words; for a shard, its own. images: rows in it. bad: files that could not be used. resumed: files
    whose result, good or bad, was there from before.
    """

    out: Path
    images: int
    bad: int
    resumed: int


def tokenize_files(
    tokenizer: Tokenizer,
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    k: int | None = None,
    *,
    workers: int = 0,
    shard: Shard | None = None,
    resume: bool = False,
    progress: Callable[[int], object] | None = None,
    about: str | None = None,
) -> BulkReport:
    """Encode files into a file of words, .jsonl or .parquet, journalled so that it can be resumed.

    Args:
        tokenizer: the one that encodes.
        paths: image files; their order is that of the rows.
        out: the file to write; it appears, or is replaced, when it is complete.
        k: words per image, as for ``ImageTokenizer.encode``.
        workers: processes that read the files; 0 takes threads.
        shard: encode this part of ``paths`` only, into a file named after it. Every machine must give the same paths.
        resume: go on with what an interrupted run left, or do nothing where the same run is complete.
        progress: called with a number of files, each time that so many more have their result.
        about: what the words are wanted for, as for ``ImageTokenizer.encode``; one text for all files.

    Raises:
        RunMismatchError: an unfinished run of another tokenizer, k, about, list of files or shard lies there, or one of
            the same and ``resume`` is off.
        RunLockedError: another process is at it.
        UsageError, PyramidError, StorageError, MissingExtraError: an option that cannot be, no such ``k``, a file that
            cannot be written, .parquet without pyarrow.
    """
    target = Path(out)
    format_of(target)  # a suffix or a package that is missing is told before the work
    if shard is not None:
        target = shard.file(target)
    files = [os.fspath(path) for path in paths]
    files = list(files if shard is None else shard.of(files))
    config = _config(tokenizer, files, k, shard, about)
    tell = progress if progress is not None else lambda count: None
    folder = unfinished(target)
    if resume and not folder.exists() and (report := _finished(target, config)) is not None:
        tell(len(files))
        return report
    try:
        with _storing(target, folder):
            opened = Run.open(folder, COMMAND, config, resume=resume)
        with opened as run:
            if resume and not run.done and (report := _finished(target, config)) is not None:
                # Another process has finished it since we looked.
                if _MOVES_OPEN_FILES:
                    with _storing(target, folder):
                        _remove(folder)
                tell(len(files))
                return report
            todo = _todo(run, len(files))
            resumed = len(files) - sum(len(_chunk(files, number)) for number in todo)
            tell(resumed)
            chunks = (_chunk(files, number) for number in todo)
            # A context of its own: an error or Ctrl-C here must stop the readers at once, not when memory is cleared.
            with contextlib.closing(encode_chunks(tokenizer, chunks, k, workers=workers, about=about)) as encoded:
                for number, (chunk, results) in zip(todo, encoded, strict=True):
                    rows = [row_of(path, result) for path, result in zip(chunk, results, strict=True)]
                    with _storing(target, folder):
                        run.record(str(number), {"rows": rows})
                    tell(len(chunk))
            with _storing(target, folder):
                images, bad = _write_all(_rows(folder, len(files)), target, folder, tokenizer, run.info)
                if _MOVES_OPEN_FILES:
                    # While it is locked: whoever waits for this run must not begin to go on with what is being removed.
                    _remove(folder)
    except RunMismatchError as error:
        raise RunMismatchError(f"{error} (or delete {str(folder)!r})") from None
    if not _MOVES_OPEN_FILES:
        with _storing(target, folder):
            _remove(folder)
    return BulkReport(target, images, bad, resumed)


@contextlib.contextmanager
def _storing(target: Path, folder: Path) -> Iterator[None]:
    """Around what we write, and nothing else: what a tokenizer or who is told of progress raises is no fault of a disk.

    Raises StorageError, which names the file and says what is kept.
    """
    try:
        yield
    except OSError as error:
        kept = f"; what is done is kept in {str(folder)!r}, go on with --resume" if folder.is_dir() else ""
        raise StorageError(f"{str(target)!r} cannot be written: {error.strerror or error}{kept}") from error


def write_rows(
    tokenizer: Tokenizer,
    files: Sequence[str],
    out: str | os.PathLike[str],
    rows: Iterable[Row],
    k: int | None = None,
    *,
    about: str | None = None,
) -> BulkReport:
    """Write rows that were made elsewhere, one for each of ``files`` and in their order, as ``tokenize_files`` does.

    Args:
        tokenizer, k, about: what they were made with.
        files: what they were made from.
        out: as for ``tokenize_files``; there is no journal.
        rows: as ``formats.row_of`` gives them, good and bad; an iterator is read as it goes.

    Raises:
        RunError: more or fewer rows than files; nothing is written then.
        UsageError, PyramidError, StorageError, MissingExtraError: as for ``tokenize_files``.
    """
    target = Path(out)
    format_of(target)
    config = _config(tokenizer, files, k, None, about)
    info: dict[str, Any] = {"command": COMMAND, "config": config, "config_hash": config_hash(COMMAND, config)}
    info |= {"versions": versions(), "commit": source_commit()}
    foreign: list[OSError] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".tmp-{target.name}-", dir=target.parent) as scratch:
            images, bad = _write_all(_counted(rows, len(files), foreign), target, Path(scratch), tokenizer, info)
    except OSError as error:
        if error in foreign:
            raise
        raise StorageError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    return BulkReport(target, images, bad, 0)


def _counted(rows: Iterable[Row], wanted: int, foreign: list[OSError]) -> Iterator[Row]:
    """The rows, and RunError where there are not so many. ``foreign`` gets an OSError of whoever makes them."""
    count, remaining = 0, iter(rows)
    while True:
        try:
            row = next(remaining)
        except StopIteration:
            break
        except OSError as error:
            foreign.append(error)
            raise
        count += 1
        yield row
    if count != wanted:
        raise RunError(f"{count:,} rows came back for {wanted:,} files; nothing is written, encode them again")


def unfinished(out: Path) -> Path:
    """The run folder in which a file of words is made."""
    return out.with_name(out.name + ".part")


def bad_file(out: Path) -> Path:
    """The list of the files that could not be used, beside a file of words."""
    return out.with_name(out.name + ".bad.jsonl")


def manifest(out: Path) -> Path:
    """What a file of words was made with, beside it."""
    return out.with_name(out.name + ".run.json")


def read_bad(out: Path) -> Iterator[Row]:
    """The files that could not be used: image, error, message."""
    if bad_file(out).exists():
        yield from JsonLines().read(bad_file(out))


def read_all(report: BulkReport, paths: Sequence[str]) -> Iterator[Row]:
    """Good and bad rows of a complete file in the order of ``paths``, the files that it was made from."""
    good = format_of(report.out).read(report.out) if report.images else iter(())
    bad = read_bad(report.out)
    held = next(good, None)
    for path in paths:
        if held is not None and is_shown(held["image"], path):
            yield held
            held = next(good, None)
        else:
            yield next(bad)


def _config(
    tokenizer: Tokenizer, files: Sequence[str], k: int | None, shard: Shard | None, about: str | None
) -> dict[str, Any]:
    """What decides the rows."""
    check_about(tokenizer, about)
    parts = whole(tokenizer).parts
    layout = tokenizer.layout
    if k is not None:
        layout = whole(tokenizer).layout_for(ImageTokenizer._checked_k(k))
    names = hashlib.sha256()
    for path in files:
        names.update(os.fsencode(path) + b"\0")
    return {
        "tokenizer": tokenizer.name,
        "tokenizer_hash": fingerprint(tokenizer),
        "k": layout.cumulative[-1],
        "files": len(files),
        "files_hash": names.hexdigest(),
        "shard": None if shard is None else str(shard),
        "chunk": CHUNK,
        **({"parts": list(parts)} if parts else {}),
        **({} if about is None else {"about": about}),
    }


def _chunk(files: Sequence[str], number: int) -> Sequence[str]:
    return files[number * CHUNK : (number + 1) * CHUNK]


def _todo(run: Run, files: int) -> list[int]:
    return [number for number in range(-(-files // CHUNK)) if str(number) not in run.done]


def _rows(folder: Path, files: int) -> Iterator[Row]:
    """The rows of a complete journal, good and bad, in the order of the files.

    Chunks lie in the journal in order, except where a damaged line made one be done again at its end: what follows it
    is then read in another pass, so that memory stays flat.
    """
    wanted, total = 0, -(-files // CHUNK)
    while wanted < total:
        before = wanted
        for item, result in read_results(folder):
            if item == str(wanted):
                yield from result["rows"]
                wanted += 1
        if wanted == before:
            raise RunError(f"the journal in {str(folder)!r} lost chunk {wanted}; resume once more, it is done again")


def _write_all(
    rows: Iterable[Row], target: Path, scratch: Path, tokenizer: Tokenizer, info: Mapping[str, Any]
) -> tuple[int, int]:
    """Make the three files from good and bad rows in order; gives the numbers of good and bad ones.

    Each file is made in ``scratch``, a folder on the same disk, and then moved; the file of words last, so that where
    it is, all is there. No good row at all leaves the file of an earlier run alone, but a shard's file may be empty:
    its neighbours need it.
    """
    about = {key: info[key] for key in ("command", "config", "config_hash", "versions", "commit")}
    bad = 0
    with (scratch / "bad").open("w", encoding="utf-8", newline="\n") as handle:

        def good() -> Iterator[Row]:
            nonlocal bad
            for row in rows:
                if "error" not in row:
                    yield row
                    continue
                handle.write(json_line(row))
                bad += 1

        images = format_of(target).write(scratch / "rows", good(), tokenizer.vocabulary, about["config"])
    if bad:
        os.replace(scratch / "bad", bad_file(target))
    else:
        bad_file(target).unlink(missing_ok=True)
    if images or about["config"]["shard"] is not None:
        write_json(manifest(target), {"format_version": 1, **about, "results": {"images": images, "bad": bad}})
        os.replace(scratch / "rows", target)
    return images, bad


def _finished(target: Path, config: dict[str, Any]) -> BulkReport | None:
    """The report of a complete run with this configuration; None where none is known.

    Raises RunMismatchError where the file there is complete and of another configuration.
    """
    if not target.exists() or not manifest(target).exists():
        return None
    try:
        info = read_json(manifest(target))
        images, bad = int(info["results"]["images"]), int(info["results"]["bad"])
        check_config(info, COMMAND, config, target)
    except RunMismatchError as error:
        raise RunMismatchError(f"{error} (or leave --resume off: the file is complete, and is replaced)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read (%s); %s is made anew", manifest(target), error, target)
        return None
    return BulkReport(target, images, bad, images + bad)


def _remove(folder: Path) -> None:
    """Remove a run folder; a kill meanwhile leaves nothing that could be taken for one."""
    gone = Path(tempfile.mkdtemp(prefix=f".tmp-{folder.name}-", dir=folder.parent))
    os.replace(folder, gone / folder.name)
    shutil.rmtree(gone)

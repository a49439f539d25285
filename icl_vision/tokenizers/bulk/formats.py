"""Rows of words in files: .jsonl and .parquet, written a few rows at a time.

A row of .jsonl is ``{"image": str, "k": int, "words": [[str, ...], ...]}``, words as a list per layer, coarse first. A
.parquet file has the columns of ``arrow_schema``: the same three and ``ids``. Of a tokenizer whose words have parts, a
row holds more: ``"parts": [str, ...]``, and then words (and ids) are a list per part; ``"probabilities"``, in the same
form, or null; ``"text": [str, ...]``, what was read in the image.

Knows: the two formats. Refuses to know: how words are made, which files failed and why.
"""

from __future__ import annotations

import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision.errors import ImageError, MissingExtraError, UsageError
from icl_vision.files.storage import json_text, readable
from icl_vision.image_words import ImageWords

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.vocabulary import Vocabulary

Row = dict[str, Any]

SUFFIXES = (".jsonl", ".parquet")
ROW_GROUP = 1024
METADATA_KEY = b"icl_vision"


def shown(path: str | os.PathLike[str]) -> str:
    """A file's name as text: a name need not be valid Unicode, JSON and parquet must be. See ``storage.readable``."""
    return readable(path)


def is_shown(text: str, path: str) -> bool:
    """Whether a row's name is that of this file; version 0.1.0 wrote U+FFFD for bytes that are no UTF-8."""
    return text in (readable(path), os.fsencode(path).decode("utf-8", "replace"))


def row_of(path: str, result: TokenPyramid | ImageError) -> Row:
    """One file's row: its words, or ``{"image", "error", "message"}``."""
    if isinstance(result, ImageError):
        return {"image": shown(path), "error": type(result).__name__, "message": _plain(str(result))}
    if isinstance(result, ImageWords):
        parts = [result.words(name) for name in result.names]
        chances = None if result.probabilities is None else [list(result.chances(name)) for name in result.names]
        more = {"parts": list(result.names), "probabilities": chances, "text": list(result.text)}
        return {"image": shown(path), "k": result.k, "words": parts, **more}
    words = [result.words(layer) for layer in range(1, result.layers + 1)]
    return {"image": shown(path), "k": sum(map(len, words)), "words": words}


def format_of(out: Path) -> RowFormat:
    """The format that a file's suffix names.

    Raises:
        UsageError: another suffix.
        MissingExtraError: .parquet without pyarrow.
    """
    if out.suffix == ".jsonl":
        return JsonLines()
    if out.suffix == ".parquet":
        return Parquet()
    raise UsageError(f"{str(out)!r} must end in {' or '.join(SUFFIXES)}")


class RowFormat(ABC):
    """How rows of words are kept in a file."""

    @abstractmethod
    def write(self, target: Path, rows: Iterable[Row], vocabulary: Vocabulary | None, about: Mapping[str, Any]) -> int:
        """Write rows to a file and give their number.

        Args:
            target: the file; replaced.
            rows: as ``row_of`` makes them, without the bad ones.
            vocabulary: for the ids of the words, where the format keeps them; None for character art.
            about: what the words were made with, where the format has a place for it.
        """

    @abstractmethod
    def read(self, source: Path) -> Iterator[Row]:
        """The rows of a file that ``write`` wrote: image, k, words."""


class JsonLines(RowFormat):
    """One JSON object a line, UTF-8."""

    def write(self, target: Path, rows: Iterable[Row], vocabulary: Vocabulary | None, about: Mapping[str, Any]) -> int:
        count = 0
        with target.open("w", encoding="utf-8", newline="\n") as handle:
            for row in rows:
                handle.write(json_line(row))
                count += 1
        return count

    def read(self, source: Path) -> Iterator[Row]:
        with source.open(encoding="utf-8", newline="\n") as handle:
            yield from map(json.loads, handle)


class Parquet(RowFormat):
    """Columns through pyarrow, ``ROW_GROUP`` rows to a row group, compressed with zstd."""

    def __init__(self) -> None:
        self._arrow, self._parquet = _pyarrow()

    def write(self, target: Path, rows: Iterable[Row], vocabulary: Vocabulary | None, about: Mapping[str, Any]) -> int:
        schema = arrow_schema(parts="parts" in about).with_metadata(
            {METADATA_KEY: json.dumps(about, ensure_ascii=False).encode()}
        )
        count = 0
        remaining = iter(rows)
        with self._parquet.ParquetWriter(target, schema, compression="zstd") as writer:
            while group := list(itertools.islice(remaining, ROW_GROUP)):
                full = [{**row, "ids": ids_of(row, vocabulary)} for row in group]
                writer.write_table(self._arrow.Table.from_pylist(full, schema=schema))
                count += len(group)
        return count

    def read(self, source: Path) -> Iterator[Row]:
        with self._parquet.ParquetFile(source) as file:
            columns = [name for name in file.schema_arrow.names if name != "ids"]
            for batch in file.iter_batches(ROW_GROUP, columns=columns):
                yield from batch.to_pylist()


def arrow_schema(*, parts: bool = False) -> Any:
    """The columns of a .parquet file: image string, k int32, words list<list<string>>, ids list<list<int32>> (the
    words' places in the tokenizer's vocabulary; null for character art).

    parts: of words with parts: also parts list<string>, probabilities list<list<double>>, text list<string>.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, _ = _pyarrow()
    columns = {"image": arrow.string(), "k": arrow.int32(), "words": arrow.list_(arrow.list_(arrow.string()))}
    columns["ids"] = arrow.list_(arrow.list_(arrow.int32()))
    if parts:
        strings = arrow.list_(arrow.string())
        columns |= {"parts": strings, "probabilities": arrow.list_(arrow.list_(arrow.float64())), "text": strings}
    return arrow.schema(columns)


def json_line(row: Row) -> str:
    """A row as a line of .jsonl."""
    return json_text(row) + "\n"


def ids_of(row: Row, vocabulary: Vocabulary | None) -> list[list[int]] | None:
    """The ids of a row's words, a list per layer; None where there is no vocabulary."""
    return None if vocabulary is None else [vocabulary.ids(words).tolist() for words in row["words"]]


def _plain(text: str) -> str:
    """A message as valid Unicode: it may hold a file's name."""
    return readable(text)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("a .parquet file (pyarrow)", "parquet") from error
    return pyarrow, pyarrow.parquet

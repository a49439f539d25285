"""Words of many images on a Ray cluster: a callable for ``map_batches``, and a function that writes the same files as
`icl-vision tokenize --out`.

Every process reads the image paths itself, so they must mean the same on every machine.

Knows: Ray Data's batches, actors and order. Refuses to know: how images are read and encoded, how rows look in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from icl_vision.errors import MissingExtraError, UsageError
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.bulk.encoding import CHUNK, encode_files
from icl_vision.tokenizers.bulk.files import BulkReport, write_rows
from icl_vision.tokenizers.bulk.formats import Row, arrow_schema, format_of, ids_of, row_of
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.wrapping import check_about

try:
    import pyarrow
    import ray
    import ray.data
except ImportError as error:
    raise MissingExtraError("encoding on a Ray cluster", "ray") from error

__all__ = ["EncodeImages", "tokenize_dataset"]
_BLOCK = 8 * CHUNK  # files that one process takes at a time, at most


class EncodeImages:
    """A pyarrow table with a column ``image`` of paths -> its rows: ``bulk_formats.arrow_schema`` and the text columns
    ``error`` and ``message``. A bad file has those two and no words; a good one has neither.

    Args:
        tokenizer: a name or folder that every process can load.
        k: words per image; None for the tokenizer's default.
        options: for ``ImageTokenizer.from_pretrained``, e.g. ``{"threads": 1}`` where each process has one core.
        about: what the words are wanted for (a question), where the tokenizer can focus.
    """

    def __init__(
        self, tokenizer: str, k: int | None = None, options: dict[str, Any] | None = None, about: str | None = None
    ) -> None:
        self.tokenizer = ImageTokenizer.from_pretrained(tokenizer, **(options or {}))
        check_about(self.tokenizer, about)
        self.k, self.about = k, about
        columns = arrow_schema(parts=bool(self.tokenizer.parts))
        self.schema = pyarrow.schema([*columns, ("error", pyarrow.string()), ("message", pyarrow.string())])

    def __call__(self, table: Any) -> Any:
        paths = [os.fsdecode(path) for path in table["image"].to_pylist()]  # bytes, if they are not valid text
        rows = [row_of(path, result) for path, result in encode_files(self.tokenizer, paths, self.k, about=self.about)]
        full = [row if "error" in row else {**row, "ids": ids_of(row, self.tokenizer.vocabulary)} for row in rows]
        return pyarrow.Table.from_pylist(full, schema=self.schema)


def tokenize_dataset(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    tokenizer: str = "words-photo",
    k: int | None = None,
    *,
    processes: int = 2,
    cpus: int = 1,
    about: str | None = None,
) -> BulkReport:
    """Encode image files with ``processes`` Ray actors of ``cpus`` cores into one file on this machine.

    The rows and their order are those of ``bulk.tokenize_files``, and so are the files beside it. There is no
    journal: Ray repeats what a lost process was at, but a driver that is stopped begins anew.

    Raises:
        UsageError: ``processes`` or ``cpus`` below 1, another suffix, ``about`` where it cannot be.
        PyramidError: no such ``k``.
    """
    if min(processes, cpus) < 1:
        raise UsageError(f"processes and cpus must be 1 or more; got {processes} and {cpus}")
    format_of(Path(out))
    loaded = ImageTokenizer.from_pretrained(tokenizer)
    _ = None if k is None else loaded.layout_for(k)  # a k that cannot be is told here, not by a process
    check_about(loaded, about)
    options = {"threads": cpus} if isinstance(loaded, OnnxTokenizer) else {}
    files = [os.fspath(path) for path in paths]
    settings = ray.data.DataContext.get_current().execution_options
    before, settings.preserve_order = settings.preserve_order, True
    try:
        # One block a table: splitting later would be a task, and wait for ever where the actors hold every core.
        names = pyarrow.table({"image": pyarrow.array(map(os.fsencode, files), pyarrow.binary())})
        size = min(_BLOCK, max(1, -(-len(files) // processes)))
        blocks = [names.slice(start, size) for start in range(0, max(1, len(files)), size)]
        how: dict[str, Any] = {"compute": ray.data.ActorPoolStrategy(size=processes), "num_cpus": cpus}
        how |= {"batch_format": "pyarrow", "batch_size": CHUNK, "fn_constructor_args": (tokenizer, k, options, about)}
        encoded = ray.data.from_arrow(blocks).map_batches(EncodeImages, **how)
        return write_rows(loaded, files, out, _rows(encoded), k, about=about)
    finally:
        settings.preserve_order = before


def _rows(encoded: Any) -> Iterator[Row]:
    for batch in encoded.iter_batches(batch_size=_BLOCK, batch_format="pyarrow"):
        for row in batch.to_pylist():
            good = ("image", "k", "words", *(key for key in ("parts", "probabilities", "text") if key in row))
            yield {key: row[key] for key in (("image", "error", "message") if row["error"] else good)}

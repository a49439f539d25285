"""tokenize_folder: the pictures of a folder into a file of words.

Folders are read below the roots, the file is written into the one folder named at start, under a new name. Every
picture is opened as the other tools open it (``serving.roots``): a link that leads out of a root is passed over.

Knows: walking a folder within caps, rows, progress, stopping between two pictures. Refuses to know: how pictures become
words, how rows look in a file (``tokenizers.bulk``).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.from_thread

from icl_vision.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    PyramidError,
    RequestRefusedError,
    UsageError,
)
from icl_vision.files.reading import checked_path
from icl_vision.images import load_image
from icl_vision.images.folders import is_picture
from icl_vision.serving.mcp.given import in_thread
from icl_vision.serving.mcp.tool import Argument, Call, McpTool, Told, shown
from icl_vision.tokenizers.bulk.files import write_rows
from icl_vision.tokenizers.bulk.formats import Row, row_of
from icl_vision.wording import counted

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import TokenPyramid
    from icl_vision.serving.pictures import Limits
    from icl_vision.serving.roots import Roots

MOST_FILES = 1000
"""Pictures of one call, unless told otherwise."""

_MOST_ENTRIES = 100_000
"""Names that are looked at in a folder and below it, pictures or not: a walk through a whole disk is no call."""

_TOGETHER = 8
"""Pictures that are encoded at once; between two such lots a call can be stopped."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.jsonl")


@dataclass(frozen=True, kw_only=True)
class FolderTool:
    """The tool's parts. tokenizer: what makes words. out: the folder that is written to. k: words of a picture unless a
    call says otherwise. most: pictures of one call."""

    tokenizer: Tokenizer
    out: Path
    k: int | None = None
    most: int = MOST_FILES
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tool(self) -> McpTool:
        """As the server offers it."""
        return McpTool(
            name="tokenize_folder",
            title="Turn a folder of pictures into words",
            description=f"Turns up to {self.most:,} pictures of a folder, subfolders included, into a file of words: a "
            "JSON object a line, with the picture's path, its words and their probabilities. The words name what a "
            "picture shows and read no pages or screens. The file lies in the server's output folder; a name that is "
            "taken there is refused. Pictures that cannot be used are listed in a second file. Reports progress and "
            "can be cancelled: nothing is written then.",
            arguments=(
                Argument(
                    name="folder",
                    text="The folder, by its path below one of the folders that this server may read; '.' for all.",
                    required=True,
                ),
                Argument(
                    name="out",
                    text="Name of the file to write: letters, digits, '-' and '_', and the ending .jsonl.",
                    required=True,
                    longest=106,
                ),
                Argument(
                    name="k",
                    text="Most words of a picture (of each part). Default: the tokenizer's own.",
                    kind="integer",
                    most=512,
                ),
            ),
            output={
                "file": {"type": "string", "description": "The file's name in the output folder."},
                "images": {"type": "integer", "description": "Pictures in it."},
                "bad": {"type": "integer", "description": "Pictures that could not be used."},
                "left_out": {"type": "integer", "description": "Links out of the folders that may be read."},
                "tokenizer": {"type": "string"},
            },
            run=self._run,
            writes=True,
            names=frozenset({"folder"}),
        )

    async def _run(self, call: Call, given: Mapping[str, Any]) -> Told:
        name = given["out"]
        if not _NAME.fullmatch(name):
            raise RequestRefusedError(f"out must be letters, digits, '-' and '_' and end in .jsonl; got {shown(name)}")
        with self._claimed(name):
            found = await in_thread(self._found, call.pictures.roots, given["folder"])
            report = await in_thread(self._written, call, found, name, given.get("k", self.k))
        data = {
            "file": name,
            "images": report.images,
            "bad": report.bad,
            "left_out": found.left_out,
            "tokenizer": self.tokenizer.name,
        }
        text = f"{counted(report.images, 'picture')} turned into words, in {name}" if report.images else "no file made"
        if report.bad:
            text += f"; {counted(report.bad, 'picture')} could not be used, listed in {name}.bad.jsonl"
        if found.left_out:
            text += f"; {counted(found.left_out, 'link')} out of the folder left out"
        return Told(text=text, data=data)

    @contextlib.contextmanager
    def _claimed(self, name: str) -> Iterator[None]:
        """The name and the work, for one call alone: a folder keeps the processor busy for minutes."""
        if not self._lock.acquire(blocking=False):
            raise RequestRefusedError("another folder is being turned into words; try again when it is done", 429)
        try:
            endings = ("", ".bad.jsonl", ".run.json")
            if any(os.path.lexists(self.out / f"{name}{ending}") for ending in endings):
                raise RequestRefusedError(f"out: there is a file {name} already; choose another name")
            yield
        finally:
            self._lock.release()

    def _found(self, roots: Roots, name: str) -> _Found:
        """The pictures of the folder of that name. Raises RequestRefusedError. Runs in a thread."""
        root, folder = _inside(roots, name)
        found = _Found(root, [])
        for seen, (place, _, files) in enumerate(_walk(folder)):
            if seen % 100 == 0:
                anyio.from_thread.check_cancelled()
            for file in sorted(files):
                if not is_picture(file) or file.startswith("."):
                    continue
                path = place / file
                if not Path(os.path.realpath(path)).is_relative_to(root):
                    found.left_out += 1
                    continue
                found.files.append(path)
                if len(found.files) > self.most:
                    raise RequestRefusedError(
                        f"folder: it holds more than the {self.most:,} pictures of one call; name a folder in it"
                    )
        if not found.files:
            raise RequestRefusedError("folder: it holds no file with a picture's ending")
        found.files.sort()
        return found

    def _written(self, call: Call, found: _Found, name: str, k: int | None) -> Any:
        """The file, made. Runs in a thread; who is cancelled stops it between two lots, and no file is left."""
        names = [path.relative_to(found.root).as_posix() for path in found.files]

        def tell(done: int) -> None:
            anyio.from_thread.check_cancelled()
            anyio.from_thread.run(call.progress, done, len(names), f"{done:,} of {len(names):,} pictures")

        rows = _rows(self.tokenizer, found, names, k, call.pictures.limits, tell)
        try:
            return write_rows(self.tokenizer, names, self.out / name, rows, k)
        except PyramidError as error:  # about k, before anything is read
            raise RequestRefusedError(f"k: {error}") from error


@dataclass
class _Found:
    """root: the root it lies under. files: pictures, in order. left_out: links that lead out of the root."""

    root: Path
    files: list[Path]
    left_out: int = 0


def _inside(roots: Roots, name: str) -> tuple[Path, Path]:
    """The folder of that name below a root, links followed, and the root."""
    for root in roots.folders:
        with contextlib.suppress(OSError, ValueError):
            real = Path(os.path.realpath(checked_path(root / name), strict=True))
            if real.is_relative_to(root) and real.is_dir():
                return root, real
    raise RequestRefusedError("folder: there is no folder that may be read under that name")


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders with their files, linked and hidden folders left out. Raises RequestRefusedError where it is too much."""
    entries = 0
    for place, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        if entries > _MOST_ENTRIES:
            raise RequestRefusedError(f"folder: it holds more than {_MOST_ENTRIES:,} names; name a folder in it")
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        yield Path(place), folders, files


def _rows(
    tokenizer: Tokenizer, found: _Found, names: list[str], k: int | None, limits: Limits, tell: Callable[[int], None]
) -> Iterator[Row]:
    """The rows of all pictures, good and bad, in order; ``tell`` is called between two lots and may raise."""
    from icl_vision.serving.roots import Roots

    roots = Roots([found.root])
    for start in range(0, len(names), _TOGETHER):
        tell(start)
        lot = names[start : start + _TOGETHER]
        opened = [_opened(roots, name, limits) for name in lot]
        good = [image for image in opened if not isinstance(image, ImageError)]
        encoded = iter(_encoded(tokenizer, good, k))
        for name, image in zip(lot, opened, strict=True):
            yield row_of(name, image if isinstance(image, ImageError) else next(encoded))
    tell(len(names))


def _opened(roots: Roots, name: str, limits: Limits) -> Image.Image | ImageError:
    data = roots.read(name, limits.bytes)
    if data is None:
        return ImageNotFoundError("it cannot be read")
    try:
        if len(data) > limits.bytes:
            raise ImageTooLargeError(f"it has more than the {limits.bytes:,} bytes that a picture may have")
        return load_image(data, max_pixels=limits.pixels, max_bytes=limits.bytes)
    except ImageError as error:
        error.__traceback__ = None  # it would hold the file's bytes
        return error


def _encoded(tokenizer: Tokenizer, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
    return list(tokenizer.encode(images, k)) if images else []


def out_folder(path: str | os.PathLike[str]) -> Path:
    """The folder that is written to, made where it is not there; links followed now, not later.

    Raises:
        UsageError: it cannot be made, or is no folder.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        real = Path(os.path.realpath(folder, strict=True))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"out must be a folder that can be written to; got {os.fspath(path)!r} ({why})") from error
    if not real.is_dir() or not os.access(real, os.W_OK):
        raise UsageError(f"out must be a folder that can be written to; got {os.fspath(path)!r}")
    return real

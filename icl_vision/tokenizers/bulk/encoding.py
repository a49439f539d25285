"""Many image files to words: read ahead, in batches, in order, with memory that does not grow with their number.

Files are read, decoded and shrunk by threads (Pillow lets go of the interpreter's lock while it works) or by processes,
a few chunks ahead of the graph, which runs in the caller's thread. What is held at any time is those chunks, shrunk,
and one full-size image for each reader.

Knows: reading ahead, telling the bad files of a chunk from the good ones. Refuses to know: where results are kept
(``files.py``) and in which form (``formats.py``).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from icl_vision import checks
from icl_vision.cores import usable_cores
from icl_vision.errors import ImageError, StorageError, UsageError
from icl_vision.tokenizers.base import ImageTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer
from icl_vision.tokenizers.taking import IMAGES, Taking, taken_by
from icl_vision.tokenizers.wrapping import check_about

if TYPE_CHECKING:
    from PIL import Image

    from icl_vision.contracts import Tokenizer
    from icl_vision.pyramid import TokenPyramid

logger = logging.getLogger(__name__)

CHUNK = 32
"""Files that are encoded, and journalled, together."""
AHEAD = 3
"""Chunks that are read while one is encoded: a large file among small ones then does not keep the graph waiting."""
_PART = 8  # files a reader takes at a time: few enough to share a chunk, enough to make up for a process's overhead
_MOST_THREADS = 8

Shrink = Callable[["Image.Image"], "Image.Image"]
Loaded = Any
"""An RGB image, or the frames of a clip, shrunk."""


def encode_files(
    tokenizer: Tokenizer, paths: Iterable[str], k: int | None = None, *, workers: int = 0, about: str | None = None
) -> Generator[tuple[str, TokenPyramid | ImageError], None, None]:
    """Each file with its words, or with what is wrong with it; in the order given, a bad file stops nothing.

    Args:
        tokenizer: the one that encodes; its ``batch_size`` bounds what the graph takes at once. A wrapper (a cache of
            words, say) is given the files themselves, and nothing is read ahead for it.
        paths: image files; read lazily, so that an iterator of millions is as good as a list.
        k: words per image, as for ``ImageTokenizer.encode``.
        workers: processes that read and shrink; 0 takes threads of this process, which is as fast unless there are many
            cores. With processes a script needs the usual ``if __name__ == "__main__":`` guard.
        about: what the words are wanted for, as for ``ImageTokenizer.encode``; one text for all files.

    Raises:
        PyramidError: this tokenizer has no such ``k``.
        UsageError: ``workers`` below 0, or ``about`` where it cannot be.
        StorageError: a reading process died.
    """
    remaining = iter(paths)
    chunks = iter(lambda: list(itertools.islice(remaining, CHUNK)), [])
    for chunk, results in encode_chunks(tokenizer, chunks, k, workers=workers, about=about):
        yield from zip(chunk, results, strict=True)


def encode_chunks(
    tokenizer: Tokenizer,
    chunks: Iterable[Sequence[str]],
    k: int | None = None,
    *,
    workers: int = 0,
    about: str | None = None,
) -> Generator[tuple[Sequence[str], list[TokenPyramid | ImageError]], None, None]:
    """``encode_files`` by chunks: each chunk of files with a result for each, in order."""
    check_about(tokenizer, about)
    if not isinstance(tokenizer, ImageTokenizer):  # a wrapper, which wants the files themselves
        _check_workers(workers)
        for chunk in chunks:
            yield chunk, _encoded_by(tokenizer, chunk, k, about)
        return
    if about is not None and k is not None:
        tokenizer.layout_for(tokenizer._checked_k(k))
    widest = 0
    with _readers(workers) as readers:
        for chunk, images in _read_ahead(readers, chunks, tokenizer.takes, _shrinking(tokenizer)):
            widest = max(widest, len(chunk))
            results = _encoded(tokenizer, images, k if about is None else tokenizer.focus_from, widest)
            yield chunk, results if about is None else [_focused(tokenizer, result, about, k) for result in results]


def _shrinking(tokenizer: ImageTokenizer) -> Shrink:
    """The tokenizer's ``_shrink``, bound to as little as can be: another process may have to be sent it."""
    if isinstance(tokenizer, OnnxTokenizer):
        return tokenizer._shrinking
    return _unchanged if type(tokenizer)._shrink is ImageTokenizer._shrink else tokenizer._shrink


def _unchanged(image: Image.Image) -> Image.Image:
    return image


def _encoded(
    tokenizer: ImageTokenizer, images: list[Loaded | ImageError], k: int | None, widest: int
) -> list[TokenPyramid | ImageError]:
    good = [image for image in images if not isinstance(image, ImageError)]
    # What a few bad files, or the end of the list, leave of a batch is filled up: for every other size of a batch
    # onnxruntime takes memory.
    size = tokenizer._checked_batch_size()
    few = 4 * (len(images) - len(good)) <= len(images)
    whole = good + good[:1] * (min(widest, -(-len(good) // size) * size) - len(good) if few else 0)
    batches = [whole[start : start + size] for start in range(0, len(whole), size)]
    results: Iterator[TokenPyramid | ImageError]
    try:
        results = iter(tokenizer._encode_batches(batches, k))
    except ImageError:
        # A tokenizer of a user's may refuse an image that could be read: find out which.
        results = iter([_alone(tokenizer, image, k) for image in good])
    return [image if isinstance(image, ImageError) else next(results) for image in images]


def _focused(
    tokenizer: ImageTokenizer, result: TokenPyramid | ImageError, about: str, k: int | None
) -> TokenPyramid | ImageError:
    return result if isinstance(result, ImageError) else tokenizer.focus(result, about, k)


def _encoded_by(
    tokenizer: Tokenizer, paths: Sequence[str], k: int | None, about: str | None
) -> list[TokenPyramid | ImageError]:
    """A chunk's results from a tokenizer that reads for itself: all at once, one by one where a file is bad."""
    asked: dict[str, Any] = {} if about is None else {"about": about}  # a user's own tokenizer need not know of it
    try:
        return [*tokenizer.encode(paths, k, **asked)]
    except ImageError:
        results: list[TokenPyramid | ImageError] = []
        for path in paths:
            try:
                results += tokenizer.encode([path], k, **asked)
            except ImageError as error:
                plain = type(error)(str(error).removeprefix(f"{taken_by(tokenizer).several}[0]: "))
                results.append(plain)
        return results


def _alone(tokenizer: ImageTokenizer, image: Loaded, k: int | None) -> TokenPyramid | ImageError:
    try:
        return tokenizer._encode_batches([[image]], k)[0]
    except ImageError as error:
        return error


# Reading ahead


def _read_ahead(
    readers: Executor, chunks: Iterable[Sequence[str]], takes: Taking, shrink: Shrink
) -> Iterator[tuple[Sequence[str], list[Loaded | ImageError]]]:
    """Chunks with their images, in order; ``AHEAD`` of them are being read when one is given out."""
    task = functools.partial(read_part, shrink=shrink, takes=takes)
    waiting: deque[tuple[Sequence[str], list[Future[list[Loaded | ImageError]]]]] = deque()
    remaining = iter(chunks)
    while True:
        for chunk in itertools.islice(remaining, AHEAD + 1 - len(waiting)):
            parts = [chunk[start : start + _PART] for start in range(0, len(chunk), _PART)]
            with _readers_alive(starting=True):
                waiting.append((chunk, [readers.submit(task, part) for part in parts]))
        if not waiting:
            return
        chunk, futures = waiting.popleft()
        with _readers_alive():
            images = [image for future in futures for image in future.result()]
        yield chunk, images


@contextlib.contextmanager
def _readers_alive(*, starting: bool = False) -> Iterator[None]:
    """A reader's death as an error of ours, wherever it shows: when work is given to it, or when its result is due."""
    try:
        yield
    except BrokenExecutor as error:
        raise StorageError(
            "a process that reads images died (no memory left, killed, or a script without the "
            'if __name__ == "__main__": guard); go on with --resume, with fewer --workers or without'
        ) from error
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise UsageError(
            f"the tokenizer cannot be sent to the processes that read images ({error}); use workers=0, which takes "
            "threads of this process"
        ) from error
    except (OSError, RuntimeError) as error:
        if not starting:  # what the tokenizer's own code raised in a reader
            raise
        raise StorageError(
            f"no more readers of images can be started ({error}); go on with --resume, with fewer --workers or without"
        ) from error


def read_part(paths: Sequence[str], *, shrink: Shrink, takes: Taking = IMAGES) -> list[Loaded | ImageError]:
    """A few files as shrunk RGB images, or what is wrong with them. Runs in a reader, maybe in another process.

    takes: what the tokenizer takes: images, or clips.
    """
    images: list[Loaded | ImageError] = []
    for path in paths:
        try:
            images.append(takes.load(path, shrink))
        except ImageError as error:
            error.__traceback__ = error.__cause__ = error.__context__ = None  # they would hold the file's bytes
            images.append(error)
    return images


def _check_workers(workers: int) -> None:
    checks.count("workers", workers, least=0, of="processes")


@contextlib.contextmanager
def _readers(workers: int) -> Iterator[Executor]:
    """Threads or processes that read; what they have not begun is dropped when the block is left."""
    _check_workers(workers)
    executor: Executor
    if workers:
        # Not fork: onnxruntime's threads may hold locks at that moment.
        context = multiprocessing.get_context("spawn")
        with _readers_alive(starting=True):  # it takes semaphores and pipes, of which a system has only so many
            executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker)
    else:
        executor = ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS), thread_name_prefix="icl-vision-read")
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _quiet_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, even by a kill that lets it tell nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module=r"PIL\b")  # remarks on odd metadata, from nobody knows which file
    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

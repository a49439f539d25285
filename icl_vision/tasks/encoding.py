"""Many images into words, a batch at a time, so that one bad image is named and costs only itself.

Knows: batches and errors. Refuses to know: how an image becomes words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from icl_vision.contracts import Tokenizer
from icl_vision.errors import ImageError
from icl_vision.images import ImageSource, load_image

if TYPE_CHECKING:
    from icl_vision.pyramid import TokenPyramid

logger = logging.getLogger(__name__)


def encode(
    tokenizer: Tokenizer,
    sources: Sequence[ImageSource],
    k: int | None,
    *,
    batch_size: int,
    keep_errors: bool,
    done: Callable[[int], None],
) -> list[TokenPyramid | Exception]:
    """The words of each image.

    Args:
        keep_errors: put an image's exception in its place; otherwise the first one is raised, with the image's index.
        done: told how many images were finished.
    """
    words: list[TokenPyramid | Exception] = []
    for start in range(0, len(sources), batch_size):
        batch = [rereadable(source) for source in sources[start : start + batch_size]]
        try:
            words.extend(tokenizer.encode(batch, k))
        except Exception as error:
            if not (keep_errors or isinstance(error, ImageError)):
                raise
            logger.debug("images %d to %d failed together (%s); one by one", start, start + len(batch) - 1, error)
            words.extend(_one_by_one(tokenizer, batch, k, start, keep_errors))
        done(len(batch))
    return words


def _one_by_one(
    tokenizer: Tokenizer, batch: Sequence[ImageSource], k: int | None, start: int, keep_errors: bool
) -> list[TokenPyramid | Exception]:
    words: list[TokenPyramid | Exception] = []
    for place, source in enumerate(batch, start):
        try:
            # Loaded here, so that a message has no index of its own ("images[0]") that counts within this batch of one.
            words.extend(tokenizer.encode([load_image(source)], k))
        except Exception as error:
            if keep_errors:
                words.append(error)
            elif isinstance(error, ImageError):
                raise type(error)(f"images[{place}]: {error}") from error
            else:
                raise
    return words


def rereadable(source: ImageSource) -> ImageSource:
    """A stream that can be read only once is read now: a failed batch is read again, image by image."""
    read, seekable = getattr(source, "read", None), getattr(source, "seekable", None)
    if not callable(read) or (callable(seekable) and seekable()):
        return source
    try:
        return bytes(read())
    except Exception as error:
        logger.debug("a stream cannot be read: %s", error)
        return source  # reading it again, as an image, gives the proper message

"""Words of images on disk: an image that was encoded once is not encoded again, in this process or another.

    tokenizer = CachedTokenizer(ImageTokenizer.from_pretrained("words-photo"))
    clf = FewShotClassifier("local", tokenizer)

The key is the sha256 of the image's bytes (of its pixels, where it is no file), of what decides the tokenizer's words,
and k: a file may be renamed, copied or touched and is still known; one byte more and it is encoded again. A file must
not change while it is being encoded. (``about`` chooses among stored words, so it is no part of the key.)

Knows: keys, rows, which images are missing. Refuses to know: how words are made, and vectors (``embed`` is not cached).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import sqlite3
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_vision._version import __version__
from icl_vision.errors import IclVisionError, ImageError, ImageNotFoundError, StorageError, UsageError
from icl_vision.files.rows import JsonRows
from icl_vision.files.storage import cache_dir, sha256_file
from icl_vision.images import MAX_BYTES
from icl_vision.pyramid import TokenPyramid
from icl_vision.tokenizers.base import check_several
from icl_vision.tokenizers.taking import IMAGES, Taking
from icl_vision.tokenizers.wrapping import WrappedTokenizer, fingerprint

if TYPE_CHECKING:
    from icl_vision.contracts import Tokenizer

logger = logging.getLogger(__name__)

FORMAT = 1


class WordsCache(JsonRows):
    """The SQLite file of words. path: the file; default ``words.sqlite`` in the user's cache folder."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(cache_dir() / "words.sqlite" if path is None else path, table="words", what="the words cache")


class CachedTokenizer(WrappedTokenizer):
    """Any tokenizer behind a WordsCache.

    Args:
        inner: the tokenizer that encodes what is not stored yet.
        cache: where words are kept; None is the user's own.

    Raises:
        UsageError: a tokenizer whose card does not say which files it is made of. Its words may change without its name
            changing, and old ones would be served. Give such a card the key ``files`` ({name: sha256}), or ``version``.
    """

    def __init__(self, inner: Tokenizer, cache: WordsCache | None = None) -> None:
        super().__init__(inner)
        if not can_be_cached(inner):
            raise UsageError(
                f"the words of the tokenizer {inner.name!r} cannot be cached: its card names neither files nor a "
                "version, so nothing would tell when its words change"
            )
        self.cache = WordsCache() if cache is None else cache  # (an empty one is false)
        self._warned = False
        # The whole card, preprocessing and options among it: better encoded once too often than once too seldom.
        card = json.dumps(dict(inner.card), sort_keys=True, default=str)
        self._identity = hashlib.sha256(f"{FORMAT}/{__version__}/{fingerprint(inner)}/{card}".encode()).hexdigest()

    def _encode_words(self, images: Any, k: int | None) -> list[TokenPyramid]:
        """As the wrapped tokenizer's; only images that are not stored are encoded, a batch at a time.

        Raises:
            ImageError: an image cannot be used; the message begins with its index where several were given.
        """
        takes = self.takes
        if takes.is_source(images):
            return self._encode_batch([images], k)
        check_several(images, takes)
        pyramids: list[TokenPyramid] = []
        remaining = iter(images)
        while batch := list(itertools.islice(remaining, self.batch_size)):
            try:
                pyramids.extend(self._encode_batch(batch, k))
            except ImageError:
                # Which one it is: found out by asking one by one, so that its index counts among all.
                for source in batch:
                    try:
                        pyramids.extend(self._encode_batch([source], k))
                    except ImageError as error:
                        raise type(error)(f"{takes.several}[{len(pyramids)}]: {error}") from error
        return pyramids

    def _encode_batch(self, batch: list[Any], k: int | None) -> list[TokenPyramid]:
        digests = []
        for index, source in enumerate(batch):
            digest, batch[index] = digest_of(source, self.takes)
            digests.append(digest)
        keys = [hashlib.sha256(f"{self._identity}/{k}/{digest}".encode()).hexdigest() for digest in digests]
        known, usable = self._stored(dict.fromkeys(keys))
        new = {key: batch[keys.index(key)] for key, pyramid in known.items() if pyramid is None}
        if new:
            # A single image is given as one: its message then has no index.
            given: Any = next(iter(new.values())) if len(batch) == 1 else list(new.values())
            encoded = dict(zip(new, self.inner.encode(given, k), strict=True))
            if usable:
                self._keep({key: pyramid.to_dict() for key, pyramid in encoded.items()})
            known |= encoded
        return [pyramid for pyramid in (known[key] for key in keys) if pyramid is not None]

    def _stored(self, keys: Iterable[str]) -> tuple[dict[str, TokenPyramid | None], bool]:
        """What is stored under each key, and whether the cache can be used at all for now."""
        stored: dict[str, TokenPyramid | None] = dict.fromkeys(keys)
        try:
            for key in stored:
                body = self.cache.get(key)
                if body is None:
                    continue
                try:
                    stored[key] = TokenPyramid.from_dict(body, self.vocabulary)
                except (IclVisionError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                    self.cache.damaged(key, error)
        except StorageError as error:
            self._without_cache(error)
            return stored, False
        return stored, True

    def _keep(self, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        try:
            self.cache.put_all(bodies)
        except StorageError as error:
            self._without_cache(error)

    def _without_cache(self, error: StorageError) -> None:
        """Go on without a cache that has no room or cannot be reached; it may be back for the next batch.

        A file that is no cache is another matter: whoever named it is told.
        """
        cause = error.__cause__
        if isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError):
            raise error
        if not self._warned:
            self._warned = True
            logger.warning("words are encoded without their cache: %s", error)


def can_be_cached(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer's card tells when its words change: it lists its files, or has a version."""
    return bool(tokenizer.card.get("files") or tokenizer.card.get("version"))


def digest_of(source: Any, takes: Taking = IMAGES) -> tuple[str, Any]:
    """A digest of an image (or clip), and the image: as it was, or loaded where reading it may have used it up.

    Raises:
        ImageError: it cannot be read. (That a file holds no image is found out by whoever opens it.)
    """
    if isinstance(source, str | os.PathLike):
        try:
            status = os.stat(source)
            # Opening a pipe may never return; a file over the cap is refused unread.
            if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
                return f"file:{sha256_file(Path(source))}", source
        except (OSError, ValueError) as error:
            logger.debug("%r has no digest: %s", source, error)
        loaded = takes.load(source)  # says what is wrong with it
        if os.path.isdir(source):  # the frames of a clip
            return f"frames:{takes.digest(loaded)}", loaded
        raise ImageNotFoundError(f"{os.fspath(source)!r} could not be read at first and then could; try again")
    if isinstance(source, bytes | bytearray | memoryview):
        return f"file:{hashlib.sha256(source).hexdigest()}", source
    loaded = takes.load(source)
    return f"pixels:{takes.digest(loaded)}", loaded

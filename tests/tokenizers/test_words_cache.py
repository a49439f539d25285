"""Words on disk: the same image is not encoded twice, and nothing stale or damaged is ever served."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icl_vision.errors import ImageFormatError, ImageNotFoundError, StorageError, UsageError
from icl_vision.tokenizers import AsciiTokenizer
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache, can_be_cached


class Counting(AsciiTokenizer):
    """ASCII art with a version, that counts what it encodes."""

    def __init__(self, version: str = "1") -> None:
        super().__init__(4, 4)
        self.version = version
        self.encoded = 0

    @property
    def card(self) -> Mapping[str, Any]:
        return {**super().card, "version": self.version}

    def _encode(self, images: Any, k: Any) -> Any:
        self.encoded += len(images)
        return super()._encode(images, k)


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def cache(tmp_path: Path) -> WordsCache:
    return WordsCache(tmp_path / "cache" / "words.sqlite")


@pytest.fixture
def tokenizer(inner: Counting, cache: WordsCache) -> CachedTokenizer:
    return CachedTokenizer(inner, cache)


@pytest.fixture
def paths(class_folder: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(class_folder, tmp_path / "images")
    return sorted((tmp_path / "images").rglob("*.png"))


def test_the_second_time_nothing_is_encoded(tokenizer: CachedTokenizer, inner: Counting, paths: list[Path]) -> None:
    plain = AsciiTokenizer(4, 4).encode(paths)
    assert tokenizer.encode(paths) == plain
    assert inner.encoded == len(paths)
    assert tokenizer.encode(paths) == plain
    assert tokenizer.encode(paths[3]) == plain[3:4]
    assert inner.encoded == len(paths)
    other = Counting()
    assert CachedTokenizer(other, WordsCache(tokenizer.cache.path)).encode(paths) == plain
    assert other.encoded == 0


def test_what_counts_is_the_content(tokenizer: CachedTokenizer, inner: Counting, paths: list[Path]) -> None:
    tokenizer.encode(paths[:2])
    copy = paths[0].with_name("copy.png")
    shutil.copy(paths[0], copy)
    tokenizer.encode([copy, paths[0].read_bytes(), paths[0]])
    assert inner.encoded == 2
    shutil.copy(paths[1], paths[0])
    assert tokenizer.encode([paths[0]]) == inner.encode([paths[1]])
    assert inner.encoded == 3  # only the comparison's


def test_the_same_image_twice_in_one_call_is_encoded_once(
    tokenizer: CachedTokenizer, inner: Counting, paths: list[Path]
) -> None:
    found = tokenizer.encode([paths[0], paths[5], paths[0]])
    assert found[0] == found[2] != found[1]
    assert inner.encoded == 2


def test_k_and_the_card_are_in_the_key(cache: WordsCache, paths: list[Path]) -> None:
    first = Counting()
    CachedTokenizer(first, cache).encode(paths[:1])
    CachedTokenizer(first, cache).encode(paths[:1], 4)
    assert first.encoded == 2
    second = Counting("2")
    CachedTokenizer(second, cache).encode(paths[:1])
    assert second.encoded == 1


def test_images_in_memory(tokenizer: CachedTokenizer, inner: Counting, photo: np.ndarray, paths: list[Path]) -> None:
    picture = Image.fromarray(photo)
    first = tokenizer.encode([photo])
    assert tokenizer.encode([picture]) == first == tokenizer.encode(photo)
    assert inner.encoded == 1
    stream = io.BytesIO(paths[0].read_bytes())
    assert tokenizer.encode([stream]) == inner.encode(paths[:1])
    assert tokenizer.encode(np.stack([photo, photo])) == first * 2


def test_batches_bound_memory_and_keep_the_order(inner: Counting, cache: WordsCache, paths: list[Path]) -> None:
    inner.batch_size = 3
    tokenizer = CachedTokenizer(inner, cache)
    tokenizer.encode(paths[4:6])
    assert tokenizer.encode(iter(paths)) == AsciiTokenizer(4, 4).encode(paths)
    assert inner.encoded == len(paths)


def test_bad_images_are_named_by_their_place(tokenizer: CachedTokenizer, paths: list[Path], tmp_path: Path) -> None:
    tokenizer.encode(paths[:1])
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"junk")
    with pytest.raises(ImageFormatError, match=r"^images\[2\]: '.*junk.png' is not an image"):
        tokenizer.encode([paths[0], paths[1], junk])
    with pytest.raises(ImageNotFoundError, match=r"^images\[1\]: .*missing.png"):
        tokenizer.encode([paths[0], tmp_path / "missing.png"])
    with pytest.raises(ImageNotFoundError, match=r"^[^\[]*missing.png"):
        tokenizer.encode(tmp_path / "missing.png")
    with pytest.raises(UsageError, match="a sequence of images; got set"):
        tokenizer.encode({"a", "b"})


@pytest.mark.parametrize("body", ["{", "[1]", "{}", '{"layout": 3}', '{"ids": "x", "layout": {}}', "3" * 5000])
def test_a_damaged_row_is_a_miss(
    tokenizer: CachedTokenizer, inner: Counting, paths: list[Path], body: str, caplog: pytest.LogCaptureFixture
) -> None:
    right = tokenizer.encode(paths[:1])
    tokenizer.cache.close()
    connection = sqlite3.connect(tokenizer.cache.path)
    with connection:
        connection.execute("UPDATE words SET body = ?", (body,))
    connection.close()
    assert tokenizer.encode(paths[:1]) == right
    assert inner.encoded == 2 and "deleted" in caplog.text
    assert tokenizer.cache.hits == 0 and tokenizer.cache.misses == 2
    assert tokenizer.encode(paths[:1]) == right
    assert inner.encoded == 2


def test_a_file_that_is_no_database(tmp_path: Path, inner: Counting, paths: list[Path]) -> None:
    path = tmp_path / "words.sqlite"
    path.write_text("no database at all, but long enough to look like one" * 20)
    with pytest.raises(StorageError, match="the words cache .* delete the file"):
        CachedTokenizer(inner, WordsCache(path)).encode(paths[:1])


@pytest.mark.parametrize("broken", ["put_all", "get", "damaged"])
def test_without_room_for_the_cache_images_are_encoded_all_the_same(
    tokenizer: CachedTokenizer,
    inner: Counting,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    right = AsciiTokenizer(4, 4).encode(paths)

    def full(*anything: object) -> None:
        raise StorageError("the words cache cannot be used: disk is full") from sqlite3.OperationalError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer.cache, broken, full)
        if broken == "damaged":
            patch.setattr(tokenizer.cache, "get", lambda key: {"no": "words"})
        for _ in range(2):
            assert tokenizer.encode(paths) == right
    assert inner.encoded == 2 * len(paths)
    assert caplog.text.count("without their cache") == 1
    assert tokenizer.encode(paths) == right  # there is room again
    tokenizer.encode(paths)
    assert inner.encoded == 3 * len(paths)


def test_a_disk_that_is_really_full(inner: Counting, paths: list[Path], tmp_path: Path) -> None:
    cache = WordsCache(tmp_path / "words.sqlite")
    tokenizer = CachedTokenizer(inner, cache)
    tokenizer.encode(paths[:1])
    cache._open().execute(f"PRAGMA max_page_count = {cache._open().execute('PRAGMA page_count').fetchone()[0]}")
    assert tokenizer.encode(paths * 9) == AsciiTokenizer(4, 4).encode(paths * 9)
    cache.close()


def test_a_tokenizer_that_does_not_say_what_it_is_made_of(cache: WordsCache) -> None:
    plain = AsciiTokenizer()
    assert not can_be_cached(plain)
    with pytest.raises(UsageError, match="'ascii' cannot be cached: its card names neither files nor a version"):
        CachedTokenizer(plain, cache)


def test_everything_else_is_the_tokenizers_own(tokenizer: CachedTokenizer, inner: Counting, paths: list[Path]) -> None:
    (pyramid,) = tokenizer.encode(paths[:1])
    assert tokenizer.to_text(pyramid) == inner.to_text(pyramid)
    assert tokenizer.from_text(tokenizer.to_text(pyramid)) == pyramid
    assert tokenizer.layout == inner.layout and tokenizer.layout_for(4) == inner.layout_for(4)
    assert tokenizer.vocabulary is None and tokenizer.codebook is None
    assert (tokenizer.name, tokenizer.can_decode, tokenizer.can_embed) == ("ascii", False, False)
    assert tokenizer.card == inner.card
    assert repr(tokenizer).startswith("CachedTokenizer(Counting('ascii'")

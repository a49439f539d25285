"""Wrappers of tokenizers: everything is the inner one's, whatever the contract grows to."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from icl_vision.contracts import Tokenizer
from icl_vision.evaluation.few_shot.controls.controls import DealtTokenizer
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.tokenizers.bulk.encoding import encode_files
from icl_vision.tokenizers.bulk.files import tokenize_files
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache
from icl_vision.tokenizers.wrapping import WrappedTokenizer, fingerprint, unwrapped, whole

WRAPPERS: dict[str, Callable[[Tokenizer, Path], WrappedTokenizer]] = {
    "plain": lambda inner, folder: WrappedTokenizer(inner),
    "cached": lambda inner, folder: CachedTokenizer(inner, WordsCache(folder / "words.sqlite")),
    "remembering": lambda inner, folder: RememberingTokenizer(inner),
    "dealt": lambda inner, folder: DealtTokenizer(inner, {}),
    "twice": lambda inner, folder: RememberingTokenizer(CachedTokenizer(inner, WordsCache(folder / "words.sqlite"))),
}
INNER = ("words-photo", "spae-digits-32")


def members(*of: Any) -> Iterator[str]:
    yield from sorted({name for one in of for name in dir(one) if not name.startswith("_")})


@pytest.fixture(scope="module")
def inner() -> dict[str, ImageTokenizer]:
    return {name: ImageTokenizer.from_pretrained(name, providers="cpu") for name in INNER}


def same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, np.ndarray):
        return bool(np.array_equal(mine, theirs))
    return bool(mine == theirs)


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_member_is_the_inner_ones(
    wrapper: str, name: str, inner: dict[str, ImageTokenizer], tmp_path: Path, photo: np.ndarray[Any, Any]
) -> None:
    own = inner[name]
    made = WRAPPERS[wrapper](own, tmp_path)
    assert isinstance(made, Tokenizer)
    pyramid = own.encode(photo)[0]
    called: dict[str, tuple[Any, ...]] = {
        "encode": (photo,),
        "embed": (photo,),
        "decode": ([pyramid],),
        "to_text": (pyramid,),
        "from_text": (own.to_text(pyramid),),
        "layout_for": (own.layout.cumulative[-1],),
        "from_pretrained": ("ascii",),
    }
    checked = 0
    for member in members(ImageTokenizer, Tokenizer, own):  # whatever is added there is checked here
        mine, theirs = getattr(made, member), getattr(own, member)
        checked += 1
        if not callable(theirs):
            assert same(mine, theirs), member
            continue
        if (member == "decode" and not own.can_decode) or (member == "embed" and not own.can_embed):
            continue
        if member == "from_pretrained" or (member == "focus" and not own.can_focus):
            continue
        found = [getattr(one, member)(*called[member]) for one in (made, own)]  # a new method belongs into `called`
        if member == "decode":
            found = [[picture.tobytes() for picture in pictures] for pictures in found]
        assert same(*found), member
    assert checked >= 15


def test_what_is_added_to_a_tokenizer_is_seen_through_a_wrapper(tmp_path: Path) -> None:
    own = ImageTokenizer.from_pretrained("ascii")
    made = WrappedTokenizer(own)
    own.can_sing = True  # type: ignore[attr-defined]  # added on purpose
    assert made.can_sing
    own.can_focus = True
    assert made.can_focus
    with pytest.raises(AttributeError, match="can_dance"):
        _ = made.can_dance
    with pytest.raises(AttributeError, match="_hidden"):
        _ = made._hidden


class Bare:
    """A user's own object: what the contract names and nothing beside it."""

    name, can_decode, can_embed = "bare", False, False
    codebook = None
    card: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self._like = ImageTokenizer.from_pretrained("ascii", rows=4, columns=4)
        self.layout, self.vocabulary = self._like.layout, self._like.vocabulary
        self.encode, self.to_text, self.from_text = self._like.encode, self._like.to_text, self._like.from_text
        self.decode, self.embed = self._like.decode, self._like.embed


def test_an_object_of_the_bare_contract_gets_the_rest(photo: np.ndarray[Any, Any]) -> None:
    own = Bare()
    assert isinstance(own, Tokenizer) and not isinstance(own, ImageTokenizer)
    made = whole(own)  # type: ignore[arg-type]  # mypy knows the contract's methods, not attributes in their place
    assert (made.preprocessing, made.can_focus, made.batch_size) == (None, False, 32)
    assert made.layout_for(16).counts == (16,) and made.encode(photo) == own.encode(photo)
    assert len(made.identity) == 64 and made.identity == fingerprint(Bare())  # type: ignore[arg-type]  # as above: attributes in place of methods
    assert whole(made) is made


def test_what_decides_the_words_tells_tokenizers_apart() -> None:
    class Seeded(AsciiTokenizer):
        seed = 0

        @property
        def identity(self) -> str:
            return f"{super().identity}/{self.seed}"

    small, large = AsciiTokenizer(4, 4), AsciiTokenizer(8, 8)
    assert small.identity == AsciiTokenizer(4, 4).identity != large.identity
    first, second = Seeded(4, 4), Seeded(4, 4)
    second.seed = 1
    # A wrapper has the identity of what it wraps, also where that one has a say of its own.
    assert WrappedTokenizer(small).identity == small.identity
    assert fingerprint(WrappedTokenizer(WrappedTokenizer(first))) == first.identity != second.identity
    renamed = [WrappedTokenizer(tokenizer) for tokenizer in (small, first, second)]
    for wrapper in renamed:
        wrapper.name = "another"
    assert len({small.identity, *(wrapper.identity for wrapper in renamed)}) == 4


def test_the_batch_size_is_one_number(inner: dict[str, ImageTokenizer], tmp_path: Path) -> None:
    own = inner["words-photo"]
    made = CachedTokenizer(own, WordsCache(tmp_path / "words.sqlite"))
    before = own.batch_size
    made.batch_size = 3
    assert own.batch_size == made.batch_size == 3
    own.batch_size = before
    assert made.batch_size == before


def test_unwrapped(inner: dict[str, ImageTokenizer], tmp_path: Path) -> None:
    own = inner["words-photo"]
    assert unwrapped(WRAPPERS["twice"](own, tmp_path)) is own
    assert unwrapped(own) is own


def test_copies_and_pickles(tmp_path: Path, photo: np.ndarray[Any, Any]) -> None:
    own = ImageTokenizer.from_pretrained("words-photo", providers="cpu", batch_size=5)
    for made in (WrappedTokenizer(own), RememberingTokenizer(own), DealtTokenizer(own, {})):
        for other in (copy.copy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301  # our own bytes
            assert type(other) is type(made)
            assert other.encode(photo) == own.encode(photo)
            assert other.batch_size == 5


def test_denoising_takes_a_wrapped_tokenizer(tmp_path: Path, photo: np.ndarray[Any, Any]) -> None:
    from icl_vision.tasks.denoise.puzzles import pixels_of

    own = ImageTokenizer.from_pretrained("spae-digits-32", providers="cpu")
    for make in WRAPPERS.values():
        (found,) = pixels_of(make(own, tmp_path), [photo])
        assert np.array_equal(found, pixels_of(own, [photo])[0])


def test_bulk_takes_a_wrapped_tokenizer(inner: dict[str, ImageTokenizer], tmp_path: Path, class_folder: Path) -> None:
    own = inner["words-photo"]
    paths = [str(path) for path in sorted(class_folder.rglob("*.png"))[:3]] + [str(tmp_path / "none.png")]
    plain = list(encode_files(own, paths, 5))
    made = CachedTokenizer(own, WordsCache(tmp_path / "words.sqlite"))
    for _ in range(2):
        found = list(encode_files(made, paths, 5))
        assert found[:-1] == plain[:-1]
        assert [type(one) for _, one in found] == [type(one) for _, one in plain]
        assert str(found[-1][1]) == str(plain[-1][1])
    assert made.cache.hits >= 3
    report = tokenize_files(made, paths, tmp_path / "words.jsonl", 5)
    assert (report.images, report.bad) == (3, 1)

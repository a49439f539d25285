"""DescribePhoto on a tiny artefact: the contract, parts, probabilities, text, damage."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_describe
from PIL import Image

from icl_vision import ImageTokenizer, ImageWords
from icl_vision.codebook import Codebook
from icl_vision.errors import ArtefactDamagedError, ArtefactNotFoundError, PyramidError, UnknownWordError, UsageError
from icl_vision.testing import sample_images, tokenizer_checks
from icl_vision.tokenizers.base import ImageTokenizer as Base
from icl_vision.tokenizers.describe import colours, reading
from icl_vision.tokenizers.describe import tokenizer as module
from icl_vision.tokenizers.describe.tokenizer import DescribePhoto
from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache
from icl_vision.vocabulary import Vocabulary

WORDY = ("what", "said", "colours", "where")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_describe.make(tmp_path_factory.mktemp("tiny") / "tiny-describe")


@pytest.fixture
def load(folder: Path) -> Callable[..., DescribePhoto]:
    def loaded(**options: Any) -> DescribePhoto:
        return DescribePhoto.from_pretrained(str(folder), providers="cpu", threads=1, **options)

    return loaded


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    image = Image.new("RGB", (90, 60), (250, 250, 250))
    image.paste((30, 90, 200), (0, 0, 90, 26))
    image.paste((40, 150, 60), (0, 34, 90, 60))
    return image


class _Factory:
    def __init__(self, **options: Any) -> None:
        self.options = options
        self.folder: Path | None = None

    def __call__(self) -> ImageTokenizer:
        assert self.folder is not None
        return DescribePhoto(self.folder, providers="cpu", threads=1, **self.options)


FACTORIES = {
    "all": _Factory(parts=WORDY),
    "with text": _Factory(reader=tiny_describe.Reader("STOP", 'he said "hi"')),
    "colours": _Factory(parts=["colours"]),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES.keys())
@pytest.mark.parametrize("name", [check.name for check in tokenizer_checks(_Factory())])
def test_contract(factory: _Factory, name: str, folder: Path) -> None:
    factory.folder = folder
    (check,) = (check for check in tokenizer_checks(factory, ks=[1, 2, 3, 10, 64]) if check.name == name)
    check()


PACKAGED = {
    "without text": {"parts": WORDY},
    "with text": {"reader": tiny_describe.Reader("STOP", 'he said "hi"')},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", PACKAGED.values(), ids=PACKAGED.keys())
@pytest.mark.parametrize("name", [check.name for check in tokenizer_checks(_Factory())])
def test_the_packaged_one_keeps_the_contract(options: dict[str, Any], name: str) -> None:
    def factory() -> DescribePhoto:
        return DescribePhoto.from_pretrained("describe-photo", providers="cpu", threads=1, **options)

    (check,) = (check for check in tokenizer_checks(factory) if check.name == name)
    check()


def test_every_part_holds_what_it_is_for(load: Callable[..., DescribePhoto], picture: Image.Image) -> None:
    tokenizer = load(parts=WORDY)
    (words,) = tokenizer.encode(picture)
    assert isinstance(words, ImageWords) and words.names == tokenizer.parts == WORDY
    assert len(words.words("what")) == len(words.words("said")) == tokenizer.default_k == 10
    assert set(words.words("said")) <= set(tiny_describe.SAID)
    for part in ("said", "colours"):
        assert list(words.chances(part)) == sorted(words.chances(part), reverse=True)
    assert {"blue", "green"} <= set(words.words("colours")[:3]) and len(words.words("colours")) == 5
    where = words.words("where")
    assert where[:2] == ["top", "blue"] and where[3:5] == ["bottom", "green"] and len(where) == 15
    assert words.chances("where")[0] == 0.0 and 0 < words.chances("where")[1] < 1
    assert words.text == ()


def test_k_is_the_most_words_a_part(load: Callable[..., DescribePhoto], picture: Image.Image) -> None:
    tokenizer = load(parts=WORDY)
    for k, expected in (
        (1, (1, 1, 1, 10)),
        (2, (2, 2, 1, 15)),
        (7, (7, 7, 4, 15)),
        (64, (64, len(tiny_describe.SAID), 12, 15)),
    ):
        (words,) = tokenizer.encode(picture, k)
        assert tuple(count for _, count in words.parts) == expected  # type: ignore[attr-defined]  # its pictures are words by part
        assert tokenizer.layout_for(k).cumulative == (sum(expected),)
    with pytest.raises(PyramidError, match="'tiny-describe' gives 1 to 64 words a part; got k=65"):
        tokenizer.encode(picture, 65)


def test_parts_are_chosen_and_only_they_are_computed(
    load: Callable[..., DescribePhoto], picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(parts=WORDY).encode(picture)[0]
    tokenizer = load(parts=["said", "what"])
    assert tokenizer.parts == ("what", "said") and tokenizer.reader is None
    words = tokenizer.encode(picture)[0]
    assert words.words() == [*whole.words("what"), *whole.words("said")]  # type: ignore[arg-type]  # its pictures are words by part
    alone = load(parts=["colours"])
    monkeypatch.setattr(DescribePhoto, "_start", lambda *_: pytest.fail("the graph was started"))
    assert alone.encode(picture)[0].words() == whole.words("colours")  # type: ignore[arg-type]  # its pictures are words by part
    for bad, message in (
        (["where"], "at least one of what, said, colours; got where"),
        ([], "at least one of what, said, colours; got none"),
        (["what", "who"], "there is no part 'who'; the parts are what, said, colours, where, text"),
        ("what", r"must be a sequence of names, as \('what', 'said'\); got 'what'"),
    ):
        with pytest.raises(UsageError, match=message):
            load(parts=bad)


def test_black_and_white_come_from_colours_alone(load: Callable[..., DescribePhoto], folder: Path) -> None:
    tokenizer = load(parts=WORDY)
    ids = np.array([tokenizer.vocabulary.ids(["black", "dog", "white", "cat"])])
    assert [pair[0] for pair in tokenizer._what(ids, np.full((1, 4), 0.5), 4)[0]] == [ids[0, 1], ids[0, 3]]


def test_names_of_regions_and_colours_are_no_things(load: Callable[..., DescribePhoto], picture: Image.Image) -> None:
    tokenizer = load(parts=WORDY)
    ids = np.array([[tokenizer.vocabulary.ids(["left", "red", "dog", "cat", "top", "sun", "sea", "car"])] * 5])
    (row,) = tokenizer._where(colours.mean_shares([picture]), ids, np.full(ids.shape, 0.25), 2)
    words = [tokenizer.vocabulary.words[one] for one, _ in row]
    assert words[2::3] == ["dog"] * 5 and words[::3] == ["top", "bottom", "left", "right", "centre"]


def test_text_is_read_at_full_size_and_made_safe(load: Callable[..., DescribePhoto]) -> None:
    reader = tiny_describe.Reader("STOP", "ignore\nthe above\u202e", "\x00")
    tokenizer = load(reader=reader)
    photo = Image.new("RGB", (3000, 1000))
    (words,) = tokenizer.encode(photo)
    assert words.text == ("STOP", "ignore the above")  # type: ignore[attr-defined]  # its pictures are words by part
    assert reader.sizes == [(reading.MAX_SIDE, round(reading.MAX_SIDE / 3))]
    assert photo.size == (3000, 1000) and photo.info == {}
    assert 'text: "STOP" "ignore the above"' in tokenizer.to_text(words)
    assert not set("ignore the above".split()) & set(words.words())


def test_text_changes_no_word(load: Callable[..., DescribePhoto]) -> None:
    plain, reading_too = load(parts=WORDY), load(reader=tiny_describe.Reader("STOP"))
    for image in [*sample_images(), np.random.default_rng(0).integers(0, 255, (2300, 700, 3), np.uint8)]:
        assert plain.encode(image)[0].words() == reading_too.encode(image)[0].words()


def test_without_the_extra_there_is_no_text_and_that_is_said_once(
    load: Callable[..., DescribePhoto],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    picture: Image.Image,
) -> None:
    monkeypatch.setattr(reading, "can_read", lambda: False)
    monkeypatch.setattr(module, "_told", set())
    with caplog.at_level(logging.INFO, "icl_vision"):
        for _ in range(2):
            (words,) = load(parts=["what", "text"]).encode(picture)
            assert words.text == () and words.names == ("what",)  # type: ignore[attr-defined]  # its pictures are words by part
    assert [record.message for record in caplog.records] == [
        "no text is read in pictures: that needs rapidocr, pip install 'icl-vision[ocr]'"
    ]


def test_identity_tells_parts_and_readers_apart(load: Callable[..., DescribePhoto]) -> None:
    made = [
        load(parts=WORDY),
        load(parts=["what", "said"]),
        load(parts=["what", "where"]),
        load(reader=tiny_describe.Reader("a")),
        load(reader=tiny_describe.Reader("b")),
        load(parts=WORDY, withhold=["umbrella"]),
    ]
    assert len({tokenizer.identity for tokenizer in made}) == len(made)
    assert load(parts=list(WORDY[::-1])).identity == made[0].identity
    assert made[1].card["words_by_part"] == ["what", "said"] and "reader" not in made[1].card


def test_pickles_as_its_folder_and_options(load: Callable[..., DescribePhoto], picture: Image.Image) -> None:
    first = load(parts=["said", "colours", "text"], reader=tiny_describe.Reader("STOP"))
    data = pickle.dumps(first)
    assert len(data) < 1000
    second = pickle.loads(data)  # noqa: S301  # our own bytes, made two lines above
    assert second.encode(picture) == first.encode(picture) and second.identity == first.identity


def test_its_text_form_is_read_back_in_any_order_of_parts(
    load: Callable[..., DescribePhoto], picture: Image.Image
) -> None:
    tokenizer = load(parts=WORDY)
    (words,) = tokenizer.encode(picture, about="What colour is the ball?")
    assert isinstance(words, ImageWords) and words.names[0] == "colours"
    again = tokenizer.from_text(tokenizer.to_text(words))
    assert again.words() == words.words() and set(again.names) == set(WORDY)
    with pytest.raises(PyramidError, match="has the parts what, said, colours, where; got 'other'"):
        tokenizer.from_text("other: dog")
    with pytest.raises(UnknownWordError):
        tokenizer.from_text("what: qqqq")


def test_a_cache_keeps_words_probabilities_and_text(
    load: Callable[..., DescribePhoto], picture: Image.Image, tmp_path: Path
) -> None:
    cache = WordsCache(tmp_path / "words.sqlite")
    made = CachedTokenizer(load(reader=tiny_describe.Reader("STOP")), cache)
    (first,) = made.encode(picture)
    inner = load(reader=tiny_describe.Reader("STOP"))
    again = CachedTokenizer(inner, cache)
    inner._encode = lambda *_: pytest.fail("it was encoded again")  # type: ignore[method-assign]  # in place of its own
    (second,) = again.encode(picture)
    assert isinstance(first, ImageWords) and isinstance(second, ImageWords)
    assert second == first and second.probabilities == first.probabilities and second.text == ("STOP",)
    other = CachedTokenizer(load(reader=tiny_describe.Reader("GO")), cache)
    assert other.encode(picture)[0].text == ("GO",)  # type: ignore[attr-defined]  # its pictures are words by part


def edited(tmp_path: Path, **change: Any) -> Path:
    return tiny_describe.make(tmp_path / "edited", change=change)


def test_a_vocabulary_without_the_names_of_colours_and_regions(tmp_path: Path) -> None:
    whole = Codebook.load()
    kept = [word for word in whole.vocabulary.words if word not in ("tan", "centre")]
    vectors = whole.vectors[np.asarray(whole.vocabulary.ids(kept))]
    folder = tmp_path / "edited"
    small = Codebook(Vocabulary(kept, name="small"), vectors, name="small").save(folder / "small")
    own = {"vocabulary": small.vocabulary.hash, "codebook": {"name": "small", "hash": small.hash}}
    edited(tmp_path, **own)
    with pytest.raises(ArtefactDamagedError, match=r"lacks tan, centre, which the parts 'colours' and 'where' say"):
        DescribePhoto(folder)
    with pytest.raises(ArtefactDamagedError, match=r"lacks tan, which"):
        DescribePhoto(folder, parts=("what", "colours"))
    assert DescribePhoto(folder, parts=("what", "said")).parts == ("what", "said")


@pytest.mark.parametrize(("file", "options"), [("said.txt", {}), ("classes.txt", {"withhold": ["umbrella"]})])
def test_a_list_of_words_as_large_as_a_graph_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, options: dict[str, Any]
) -> None:
    folder = edited(tmp_path)
    (folder / file).write_bytes(b"dog\n" * 500)
    card = json.loads((folder / "card.json").read_text())
    card["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    for name in ("icl_vision.tokenizers.onnx", "icl_vision.tokenizers.describe.tokenizer"):
        monkeypatch.setattr(f"{name}.MOST_WORDS", 1000)
    with pytest.raises(ArtefactDamagedError, match=rf"{file} in .* cannot be read \(it has more than the 1,000 bytes"):
        DescribePhoto(folder, **options)


def test_damage_is_named(tmp_path: Path, load: Callable[..., DescribePhoto], picture: Image.Image) -> None:
    for change, message in (
        ({"said": None}, "must name the file of the words of 'said'; it says None"),
        ({"said": {"file": "other.txt"}}, "must name the file of the words of 'said'"),
        ({"k_max": 0}, "k_max = 0"),
        (
            {"regions": ["bottom", "top", "left", "right", "centre"]},
            "says the regions .'bottom', .* and they are .'top'",
        ),
        ({"regions": 5}, "says the regions 5, and they are"),
        ({"kind": "words"}, "its card is of kind 'words', this icl-vision reads 'describe'"),
    ):
        with pytest.raises(ArtefactDamagedError, match=message):
            DescribePhoto(edited(tmp_path, **change))
    tokenizer = load(parts=WORDY)
    good = tokenizer._graph_outputs([tokenizer._shrink(picture)])

    class Graph:
        def run(self, feeds: object, names: list[str]) -> list[Any]:
            return [self.given[name] for name in names]

        def __init__(self, **change: Any) -> None:
            self.given = good | change

    for wrong, message in (
        ({"what": good["what"].astype(np.float32)}, "gives what as float32"),
        ({"what": good["what"] + 10**6}, "ids from 1"),
        ({"regions": good["regions"][:, :4]}, "gives regions as int32"),
        ({"said_probabilities": good["said_probabilities"][:, 1:]}, "gives said_probabilities as float32"),
        ({"what_probabilities": good["what_probabilities"] + 1}, "gives what_probabilities from 1"),
        ({"said_probabilities": good["said_probabilities"] * np.nan}, "gives said_probabilities from nan"),
    ):
        tokenizer._graph = lambda _file, wrong=wrong: Graph(**wrong)  # type: ignore[assignment, misc]  # in place of its own; a default binds the loop's own
        with pytest.raises(ArtefactDamagedError, match=message):
            tokenizer.encode(picture)


def test_the_card_is_opened_by_its_kind(folder: Path, tmp_path: Path) -> None:
    loaded = Base.from_pretrained(str(folder), parts=["what"])
    assert type(loaded) is DescribePhoto and json.dumps(dict(loaded.card))
    with pytest.raises(UsageError, match="has no option partz; it has parts, reader, providers"):
        Base.from_pretrained(str(folder), partz=["what"])
    with pytest.raises(ArtefactNotFoundError):
        Base.from_pretrained(str(tmp_path / "none"))


def test_a_reader_must_be_one(load: Callable[..., DescribePhoto]) -> None:
    with pytest.raises(UsageError, match="reader must have read"):
        load(reader="tesseract")

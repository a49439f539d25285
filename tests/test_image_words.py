"""A picture's words by part: what they hold, how they read, and that whatever takes a pyramid takes them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

from icl_vision import ImageTokenizer, ImageWords, TokenPyramid, Vocabulary
from icl_vision.errors import PyramidError, UnknownWordError, UsageError, VocabularyError
from icl_vision.pyramid import PyramidLayout
from icl_vision.tokenizers.wrapping import WrappedTokenizer

WORDS = Vocabulary(["dog", "puppy", "man", "ball", "green", "white", "two"], name="seven")
PARTS = {"what": ["dog", "puppy"], "said": ["man", "ball", "two"], "colours": [], "where": ["green"]}
CHANCES = {"what": [0.9, 0.2], "said": [0.5, 0.4, 0.25], "colours": [], "where": [1.0]}


@pytest.fixture
def words() -> ImageWords:
    return ImageWords.of(PARTS, WORDS, probabilities=CHANCES, text=["STOP", 'say "hi" \\ now'])


def test_a_picture_in_parts_is_a_flat_pyramid_too(words: ImageWords) -> None:
    assert isinstance(words, TokenPyramid) and (words.k, words.layers) == (6, 1)
    assert words.words() == words.words(1) == ["dog", "puppy", "man", "ball", "two", "green"]
    assert words.words("said") == ["man", "ball", "two"] and words.words("colours") == []
    assert words.names == ("what", "said", "colours", "where") and words.chances("what") == (0.9, 0.2)
    assert words.weights() == dict(zip(words.words(), words.probabilities or (), strict=True))
    assert words.layout == PyramidLayout.flat(6) and words.truncate(1) is words
    with pytest.raises(PyramidError, match=r"no part 'text'; the parts are what, said, colours, where"):
        words.words("text")
    with pytest.raises(PyramidError, match="layers=2"):
        words.truncate(2)


def test_a_word_of_two_parts_has_the_higher_probability() -> None:
    words = ImageWords.of({"what": ["dog"], "said": ["dog"]}, WORDS, probabilities={"what": [0.2], "said": [0.6]})
    assert words.weights() == {"dog": 0.6}
    assert ImageWords.of({"what": ["dog"]}, WORDS).weights() == {}


def test_words_are_chosen_by_part(words: ImageWords) -> None:
    short = words.at_most(1)
    assert short.words() == ["dog", "man", "green"] and short.probabilities == (0.9, 0.5, 1.0)
    chosen = words.only({"said": [2, 0], "what": []}, text=[])
    assert chosen.to_text() == "said: two man" and chosen.chances("said") == (0.25, 0.5) and chosen.text == ()
    for places, message in (({"said": [3]}, "has 3 words"), ({"said": [-1]}, "has 3 words"), ({}, "at least one")):
        with pytest.raises(PyramidError, match=message):
            words.only(places)  # type: ignore[arg-type]  # one of them is empty, of no type
    with pytest.raises(PyramidError, match="k must be"):
        words.at_most(0)


def test_it_reads_as_one_line_and_back(words: ImageWords) -> None:
    line = words.to_text()
    assert line == r'what: dog puppy; said: man ball two; where: green; text: "STOP" "say \"hi\" \\ now"'
    assert ImageWords.from_text(f"  {line} ", WORDS, words.names) == words
    assert ImageWords.from_text("said: man", WORDS) == ImageWords.of({"said": ["man"]}, WORDS)
    for bad in ("dog", "what: dog; what: dog", "what: dog; text: STOP", 'what: dog; text: "a', 'text: "a"', "a: "):
        with pytest.raises(PyramidError):
            ImageWords.from_text(bad, WORDS)
    with pytest.raises(PyramidError, match="the parts are what, said, colours, where, in this order"):
        ImageWords.from_text("said: man; what: dog", WORDS, words.names)
    with pytest.raises(UnknownWordError):
        ImageWords.from_text("what: cat", WORDS)


@pytest.mark.parametrize("string", ["a;b: c", "text: x", '"', "\\", '\\"', "; what: dog", "日本 é", '" "'])
def test_any_text_that_is_read_in_a_picture_comes_back(string: str) -> None:
    words = ImageWords.of({"what": ["dog"]}, WORDS, text=[string, "end"])
    assert ImageWords.from_text(words.to_text(), WORDS).text == (string, "end")


def test_it_is_kept_as_json(words: ImageWords) -> None:
    document = json.loads(json.dumps(words.to_dict()))
    for reader in (ImageWords, TokenPyramid):
        again = reader.from_dict(document, WORDS)
        assert isinstance(again, ImageWords) and again == words and again.probabilities == words.probabilities
    for twin in (copy.deepcopy(words), pickle.loads(pickle.dumps(words))):  # noqa: S301 - our own bytes
        assert twin == words and hash(twin) == hash(words) and twin.probabilities == words.probabilities
    with pytest.raises(VocabularyError):
        TokenPyramid.from_dict(document, Vocabulary(["cat"], name="other"))
    for name, value in (("parts", [["what", 1]]), ("parts", 3), ("probabilities", [2] * 6), ("text", [3])):
        with pytest.raises(PyramidError):
            TokenPyramid.from_dict({**document, name: value}, WORDS)
    without = {name: value for name, value in document.items() if name != "text"}
    with pytest.raises(PyramidError, match="parts, probabilities and text"):
        TokenPyramid.from_dict(without, WORDS)


def test_equal_are_the_same_words_in_the_same_parts(words: ImageWords) -> None:
    assert words == ImageWords.of(PARTS, WORDS, text=words.text), "probabilities are what is thought of the words"
    assert words != ImageWords.of(PARTS, WORDS)
    flat = TokenPyramid(words.ids, words.layout, WORDS)
    assert words != flat and flat != words
    assert ImageWords.of({"what": ["dog", "man"]}, WORDS) != ImageWords.of({"what": ["dog"], "said": ["man"]}, WORDS)


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({"what": []}, {}, "at least one word"),
        ({"a b": ["dog"]}, {}, "one plain word"),
        ({"text": ["dog"]}, {}, "one plain word"),
        ({"what": ["dog"]}, {"probabilities": {"what": [0.5, 0.5]}}, "1 words and 2 probabilities"),
        ({"what": ["dog"]}, {"probabilities": {"what": [1.5]}}, "from 0 to 1; got 1.5"),
        ({"what": ["dog"]}, {"probabilities": {"what": [float("nan")]}}, "from 0 to 1; got nan"),
        ({"what": ["dog"]}, {"text": ["a\nb"]}, "each in one line"),
        ({"what": ["dog"]}, {"text": [""]}, "1 to 1,000 characters"),
        ({"what": ["dog"]}, {"text": ["a\u202eb"]}, "printable"),
        ({"what": ["dog"]}, {"text": ["a"] * 257}, "up to 256 strings"),
    ],
)
def test_what_cannot_be_is_refused(parts: dict[str, list[str]], options: dict[str, object], message: str) -> None:
    with pytest.raises(PyramidError, match=message):
        ImageWords.of(parts, WORDS, **options)  # type: ignore[arg-type]  # cases of several kinds


class Describing(ImageTokenizer):
    """What is light is a dog, what is dark a man; asked about something, only the parts it names."""

    name, parts, can_focus, focus_from = "describing", ("what", "said"), True, 3
    vocabulary, layout = WORDS, PyramidLayout.flat(6)  # type: ignore[assignment]  # in place of properties

    def layout_for(self, k: int) -> PyramidLayout:
        if k > 3:
            raise PyramidError(f"up to 3 words a part; got k={k}")
        return PyramidLayout.flat(2 * k)

    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        encoded: list[TokenPyramid] = []
        for image in images:
            what = ["dog", "puppy"] if np.asarray(image).mean() > 127 else ["man"]
            encoded.append(ImageWords.of({"what": what, "said": ["two", "ball", "green"]}, WORDS).at_most(k or 2))
        return encoded

    def _focus(self, words: TokenPyramid, about: str, k: int | None) -> TokenPyramid:
        assert isinstance(words, ImageWords)
        return words.only({name: range(count) for name, count in words.parts if name in about} or {"what": [0]})


LIGHT, DARK = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("tokenizer", [Describing(), WrappedTokenizer(Describing())], ids=["own", "wrapped"])
def test_a_tokenizer_with_parts_keeps_the_contract(tokenizer: ImageTokenizer) -> None:
    first, second = tokenizer.encode([LIGHT, DARK])
    assert tokenizer.to_text(first) == "what: dog puppy; said: two ball"
    assert tokenizer.to_text(second, 1) == "what: man; said: two" == tokenizer.to_text(tokenizer.encode(DARK, 1)[0])
    assert tokenizer.from_text(tokenizer.to_text(first)) == first and tokenizer.parts == ("what", "said")
    with pytest.raises(PyramidError, match="k=4"):
        tokenizer.encode(LIGHT, 4)
    other = ImageWords.of({"where": ["dog"]}, WORDS)
    with pytest.raises(PyramidError, match="has the parts where|have the parts where"):
        tokenizer.to_text(other)
    with pytest.raises(PyramidError, match="have the parts none"):
        tokenizer.to_text(TokenPyramid(other.ids, other.layout, WORDS))


@pytest.mark.parametrize("tokenizer", [Describing(), WrappedTokenizer(Describing())], ids=["own", "wrapped"])
def test_words_about_something(tokenizer: ImageTokenizer) -> None:
    def lines(about: str | Iterable[str]) -> list[str]:
        return [tokenizer.to_text(words) for words in tokenizer.encode([LIGHT, DARK], about=about)]

    assert tokenizer.can_focus and tokenizer.focus_from == 3
    assert lines("what is it?") == ["what: dog puppy", "what: man"]
    assert lines(iter(["what?", "as said?"])) == ["what: dog puppy", "said: two ball green"]
    with pytest.raises(UsageError, match="got 1 for 2 images"):
        lines(["what?"])
    for bad in ("", "  ", 3):
        with pytest.raises(UsageError, match="what the words are wanted for"):
            tokenizer.focus(tokenizer.encode(DARK)[0], bad)  # type: ignore[arg-type]  # refused
    for plain in (ImageTokenizer.from_pretrained("ascii"), WrappedTokenizer(ImageTokenizer.from_pretrained("ascii"))):
        with pytest.raises(UsageError, match="can_focus=False"):
            plain.encode(LIGHT, about="what?")


class Wrong(Describing):
    def _encode(self, images: list[Image.Image], k: int | None) -> list[TokenPyramid]:
        return [TokenPyramid((np.zeros((1, 1), np.int32),), PyramidLayout.flat(1), WORDS) for _ in images]


def test_a_tokenizer_that_gives_other_words_than_it_says_is_told() -> None:
    with pytest.raises(PyramidError, match="must give 1 ImageWords of the parts what, said"):
        Wrong().encode(LIGHT)

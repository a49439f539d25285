"""Rows by name, and what each puts in the place of a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from icl_vision.contracts import Tokenizer
from icl_vision.errors import CapabilityError, UsageError
from icl_vision.evaluation.answering.benches import question_bench
from icl_vision.evaluation.answering.readers import Picture, Question
from icl_vision.evaluation.answering.rows import ANSWERS, CAPTIONS, LADDER, WORDS, parse_rows
from icl_vision.evaluation.answering.words import PicturesInWords, likeliest
from icl_vision.image_words import ImageWords
from icl_vision.pyramid import PyramidLayout
from icl_vision.tasks.answer.pictures import Described
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer
from icl_vision.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))
from sets import questions

BENCH = question_bench(questions(), "test", shots=2)


def names(texts: list[str], task: Any = "answers", *, scores: bool = True) -> list[str]:
    return [row.name for row in parse_rows(texts, task, scores_text=scores)]


def test_rows_are_named_with_their_method() -> None:
    assert names(["blind", "prior", "describe", "describe:greedy"]) == [
        *("blind:fused", "prior", "describe:fused", "describe:greedy"),
    ]
    assert names(["blind", "describe", "describe:greedy"], scores=False) == ["blind:greedy", "describe:greedy"]
    assert names(["ascii"]) == ["ascii:greedy"]  # no words, so nothing can be weighed
    assert names(["describe", "copied"], "captions") == ["describe:greedy", "copied"]
    assert names(["ladder"]) == [name if ":" in name else f"{name}:fused" for name in LADDER]
    five = ["blind:greedy", "words-photo:greedy", "describe:greedy", "caption:greedy", "caption-shuffled:greedy"]
    assert names(["ladder"], scores=False) == names(["ladder"], "captions") == five
    assert len(names(["all"])) == len(ANSWERS) and len(names(["all"], "captions")) == len(CAPTIONS)
    assert names(["prior", "all"])[0] == "prior"
    assert not any(name.startswith("lqae") for name in names(["all"]))
    assert names(["lqae-64:greedy"]) == ["lqae-64:greedy"]
    assert all(row.meaning and "; " in row.meaning for row in parse_rows(["all"], "answers", scores_text=True)
               if row.method)  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "task", "message"),
    [
        (["describee"], "answers", "there is no row 'describee' of answers; there are blind, prior"),
        (["template"], "answers", "there is no row 'template' of answers"),
        (["prior"], "captions", "there is no row 'prior' of captions"),
        (["prior:fused"], "answers", "asks no LLM"),
        (["blind:fast"], "answers", "fused or greedy; got 'blind:fast'"),
        (["blind:fused"], "captions", "captions are written"),
        ([], "answers", "at least one row"),
    ],
)
def test_rows_that_there_are_not(texts: list[str], task: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rows(texts, task, scores_text=True)


class Counting(AsciiTokenizer):
    """Counts what it encodes."""

    encoded = 0

    def _encode(self, images: Any, k: Any) -> Any:
        self.encoded += len(images)
        return super()._encode(images, k)


def made(seed: int = 0, load: Any = None) -> PicturesInWords:
    return PicturesInWords((*BENCH.asked, *BENCH.pool), load or loaded, seed=seed)


def loaded(name: str) -> Tokenizer:
    return ImageTokenizer.from_pretrained("words-photo" if name == "describe-photo" else name, threads=1)


def test_what_stands_for_a_picture() -> None:
    words, item = made(), BENCH.asked[0]
    assert words.of(WORDS["blind"], item) == ()
    (caption,) = words.of(WORDS["caption"], item)
    assert isinstance(caption, Described) and caption.text == item.pictures[0].captions[0]
    (shuffled,) = words.of(WORDS["caption-shuffled"], item)
    assert isinstance(shuffled, Described) and sorted(shuffled.text.split()) == sorted(caption.text.rstrip(".").split())
    assert made().of(WORDS["caption-shuffled"], item) == (shuffled,)
    (photo,) = words.of(WORDS["words-photo"], item)
    assert photo == loaded("words-photo").encode([item.pictures[0].source], 60)[0]
    (coarse,) = words.of(WORDS["spae-5"], item)
    assert not isinstance(coarse, Described) and len(coarse.words()) == 5


def test_class_words_stand_in_where_nobody_wrote_of_a_picture() -> None:
    without = next(item for item in BENCH.pool if not item.pictures[0].captions)
    (said,) = made().of(WORDS["caption"], without)
    assert isinstance(said, Described) and len(said.text.split()) == 10
    caption = Question("c", without.pictures, None, ("a", "b"))
    with pytest.raises(CapabilityError, match="nobody wrote of this picture"):
        made().of(WORDS["caption"], caption)


def test_words_of_other_pictures_are_never_ones_own() -> None:
    words = made()
    others = {name: words._dealt[name] for name in words._dealt}
    assert sorted(others) == sorted(others.values()) and not any(name == other for name, other in others.items())
    assert made(seed=5)._dealt != others


def test_a_picture_is_encoded_once_whatever_is_asked_about_it() -> None:
    tokenizer = Counting()
    words = made(load=lambda name: tokenizer)
    for _ in range(2):
        for item in BENCH.asked:
            words.of(WORDS["ascii"], item)
    assert tokenizer.encoded == len({item.pictures[0].name for item in BENCH.asked})


class Focusing(ImageTokenizer):
    """Words in two parts, of which one bears on every question; whoever may choose encodes more of them."""

    name = "focusing"
    can_focus = True
    parts = ("what", "said")
    focus_from = 3
    vocabulary = Vocabulary([f"{part}{n}" for part in ("what", "said") for n in range(3)], name="numbered")
    layout = PyramidLayout.flat(2)

    def layout_for(self, k: int) -> PyramidLayout:
        return PyramidLayout.flat(2 * k)

    def _encode(self, images: Any, k: Any) -> Any:
        rows = {part: [f"{part}{n}" for n in range(k or 1)] for part in self.parts}
        chances = {part: [0.5] * len(row) for part, row in rows.items()}
        return [ImageWords.of(rows, self.vocabulary, probabilities=chances) for _ in images]

    def _focus(self, words: Any, about: str, k: Any) -> Any:
        return words.only({"said": range(1)})


def test_words_are_chosen_from_more_than_are_shown_and_only_where_something_is_asked() -> None:
    item = BENCH.asked[0]
    asking = made(load=lambda name: Focusing())
    (wide,) = asking.of(WORDS["describe"], item)
    assert isinstance(wide, ImageWords) and wide.words() == ["what0", "what1", "what2", "said0", "said1", "said2"]
    assert asking.reader(WORDS["describe"]).shown(wide, item.question).line == "said0"
    (default,) = asking.of(WORDS["describe-all"], item)
    assert isinstance(default, ImageWords) and default.words() == ["what0", "said0"]
    # Weighed are all words that could have been chosen, with an LLM and without, and for the control too.
    for name in ("describe", "vision", "other"):
        assert len(asking.chances(WORDS[name], item)) == 6
    captioning = PicturesInWords((*BENCH.asked, *BENCH.pool), lambda name: Focusing(), questions=False)
    assert captioning.of(WORDS["describe"], item) == (default,)


def test_sets_of_words_have_no_pictures_and_the_other_way_round() -> None:
    twin = Question("t", (Picture("p", text="two apples"),), "how many", ("2",))
    words = PicturesInWords((twin,), loaded)
    assert words.of(WORDS["given"], twin) == (Described("two apples"),)
    with pytest.raises(CapabilityError, match="not available: the set has words and no pictures"):
        words.of(WORDS["words-photo"], twin)
    with pytest.raises(CapabilityError, match="not available: the set has pictures"):
        made().of(WORDS["given"], BENCH.asked[0])


def test_the_likeliest_words_are_those_that_people_would_say() -> None:
    vocabulary = Vocabulary(["hound", "dog", "ball", "grass"], name="few")
    parts = {"what": ["hound"], "said": ["ball", "dog", "grass"]}
    seen = ImageWords.of(parts, vocabulary, probabilities={"what": [0.9], "said": [0.4, 0.8, 0.1]})
    assert likeliest([seen], 2) == ["dog", "ball"]
    silent = ImageWords.of({"what": ["hound"], "said": []}, vocabulary, probabilities={"what": [0.9], "said": []})
    assert likeliest([silent], 2) == ["hound"]
    assert likeliest([Described("a dog runs")], 2) == ["a", "dog"]

"""What is asked and what is shown before it: never the same picture, the same for every row, the nearest last."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icl_vision.errors import UsageError
from icl_vision.evaluation.answering.benches import caption_bench, question_bench
from icl_vision.evaluation.answering.items import Bench, names_of
from icl_vision.evaluation.answering.readers import Picture, QASet, Question
from icl_vision.tokenizers import AsciiTokenizer, ImageTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from sets import captions, png, questions


def bench(shots: int = 4, seed: int = 0) -> Bench:
    return question_bench(questions(), "test", shots=shots, seed=seed)


def test_no_example_is_of_the_picture_that_is_asked_about() -> None:
    asked = bench(shots=12)
    for item in asked.asked:
        for how in ("nearest", "random"):
            shown = asked.examples(item, how)
            assert len(shown) == 12  # all but the two questions of its own picture, where so many are wanted
            assert not any(names_of(item) & names_of(example) for example in shown)
        nearest = asked.nearest(item)
        assert nearest is not None and not names_of(item) & names_of(nearest)
        assert not any(names_of(item) & names_of(other) for other in asked.others(item))


def test_a_question_about_several_pictures_is_shown_none_of_them() -> None:
    first, second, third = (Picture(name, png("red")) for name in ("a", "b", "c"))
    pair = Question("pair", (first, second), "are they alike", ("yes",))
    pool = (
        Question("1", (first,), "are they alike", ("yes",)),
        Question("2", (second, third), "are they alike", ("no",)),
        Question("3", (third,), "what is it", ("red",)),
    )
    assert [one.id for one in Bench("pairs", (pair,), pool).examples(pair)] == ["3"]


def test_a_question_without_a_picture_is_not_its_own_example() -> None:
    pool = tuple(Question(str(number), (), f"what is {number} and one", (str(number + 1),)) for number in range(3))
    with pytest.raises(UsageError, match="0 pictures to choose from"):
        Bench("sums", pool, pool)
    seen = (*pool, Question("p", (Picture("p", png("red")),), "what", ("red",)))
    seen += (Question("q", (Picture("q", png("red")),), "what", ("red",)),)
    assert [one.id for one in Bench("sums", pool, seen, 4).examples(pool[0])] == ["q", "p", "2", "1"]


def test_the_nearest_question_stands_last() -> None:
    asked = bench()
    item = next(one for one in asked.asked if one.type == "number")
    assert [one.type for one in asked.examples(item)] == ["number"] * 4
    colour = next(one for one in asked.asked if one.type == "colour")
    shown = asked.examples(colour)
    assert shown[-1] is asked.nearest(colour) and {one.type for one in shown} == {"colour"}
    assert asked.examples(colour) == shown and bench(seed=7).examples(colour) == shown  # no draw decides it


def test_a_larger_number_of_items_begins_with_the_smaller_one() -> None:
    few, many = bench().first(3), bench().first(None)
    assert many[:3] == few and {one.id for one in many} == {one.id for one in bench().asked}
    assert bench(seed=1).first(None) != many


def test_the_test_is_shown_to_nothing_but_itself() -> None:
    tuning = question_bench(questions(), "tuning")
    assert {one.split for one in tuning.pool} == {"tuning"}
    assert {one.split for one in question_bench(questions(), "test").pool} == {"tuning", "test"}
    photo = ImageTokenizer.from_pretrained("words-photo", threads=1)
    data = captions()
    assert {one.split for one in caption_bench(data, "test", tokenizer=photo).pool} == {"training"}
    with pytest.raises(UsageError, match="0 pictures to choose from"):
        caption_bench(data, "training", tokenizer=photo)
    other = QASet("elsewhere", tuple(replace(one, split="") for one in captions(0, 3).questions))
    bench = caption_bench(data, "training", examples=[other], tokenizer=photo)
    assert len(bench.pool) == 3
    # Its pictures are called as those of the first set, and are others all the same.
    item = next(one for one in data.questions if one.id == "6")
    assert len(bench.examples(item)) == 3 and not names_of(item) & {n for one in bench.pool for n in names_of(one)}


def test_pictures_choose_the_examples_of_captions() -> None:
    photo = ImageTokenizer.from_pretrained("words-photo", threads=1)
    asked = caption_bench(captions(), "test", tokenizer=photo, shots=2)
    item = asked.asked[0]
    assert asked.vectors is not None
    near = {one.id: float(asked.vectors(one) @ asked.vectors(item)) for one in asked.pool}
    nearest = asked.nearest(item)
    assert nearest is not None and near[nearest.id] == pytest.approx(max(near.values()))
    assert asked.examples(item)[-1] is nearest
    assert float(np.linalg.norm(asked.vectors(item))) == pytest.approx(1)
    with pytest.raises(UsageError, match="'ascii' has no image vectors"):
        caption_bench(captions(), "test", tokenizer=AsciiTokenizer())


def test_a_set_may_bring_its_own_examples() -> None:
    given = tuple(
        Question(f"e{number}", (Picture(f"p{number}", text=str(number)),), "what", ("x",)) for number in "123"
    )
    item = Question("q", (Picture("p", text="4"),), "what", ("y",), examples=given)
    own = Bench("own", (item,), (), shots=2)
    assert own.examples(item) == list(given[:2]) and own.nearest(item) is None
    assert replace(own, shots=0).examples(item) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: replace(one, asked=()), "has nothing to ask"),
        (lambda one: replace(one, asked=one.asked[:1] * 2), "is there twice"),
        (lambda one: replace(one, pool=one.pool[:2]), "1 picture to choose from: give more, or use shots=0"),
    ],
)
def test_what_cannot_be_asked_is_refused(change: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        change(bench())  # type: ignore[operator]  # a function of the rows above
    assert replace(bench(), pool=(), shots=0).examples(bench().asked[0]) == []


def test_a_set_with_parts_needs_one_named() -> None:
    with pytest.raises(UsageError, match=r"'tuning' \(6\), 'test' \(10\)"):
        question_bench(questions())
    whole = questions(tuned=0)
    assert len(question_bench(whole).asked) == 16 and question_bench(whole).name == "squares"
    assert question_bench(questions(), "test").name == "squares test"

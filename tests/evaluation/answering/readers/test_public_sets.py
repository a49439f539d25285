"""VQAv2 and OK-VQA, Frozen's Fast-VQA, VL-ICL's sets with their text twins, and files of one's own, by their layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import DataLeftOutWarning, UsageError
from icl_vision.evaluation.answering.readers import read_captions, read_questions

from .conftest import pack, picture, write


def files(documents: Mapping[str, Any], pictures: tuple[str, ...] = ()) -> dict[str, bytes]:
    """JSON documents, and pictures."""
    written = {name: json.dumps(document).encode() for name, document in documents.items()}
    return {**written, **{name: picture("red") for name in pictures}}


# VQAv2 and OK-VQA -----------------------------------------------------------------------------------------------------

ASKED = "v2_OpenEnded_mscoco_val2014_questions.json"
ANSWERED = "v2_mscoco_val2014_annotations.json"
VQA: dict[str, Any] = {
    ASKED: {"data_subtype": "val2014", "questions": [
        {"image_id": 42, "question": "What color is it?", "question_id": 420},
        {"image_id": 42, "question": "Is it big?", "question_id": 421},
        {"image_id": 43, "question": "How many?", "question_id": 430},
    ]},
    ANSWERED: {"data_subtype": "val2014", "annotations": [
        {"question_id": 421, "answer_type": "yes/no", "question_type": "is it",
         "answers": [{"answer": "yes", "answer_confidence": "maybe", "answer_id": 1}] * 4 + [{"answer": "no"}] * 6},
        {"question_id": 420, "answer_type": "other", "answers": [{"answer": "red"}] * 10},
        {"question_id": 430, "answer_type": "number", "answers": [{"answer": "2"}] * 10},
    ]},
}  # fmt: skip
NAMES = ("COCO_val2014_000000000042.jpg", "000000000043.jpg")


@pytest.mark.parametrize("where", ["", "val2014/"])
def test_vqa_has_the_answers_of_ten_people(tmp_path: Path, where: str) -> None:
    data = read_questions(write(tmp_path / "vqa", files(VQA, tuple(where + name for name in NAMES))))
    assert data.metric == "vqa" and data.name == "v2_OpenEnded_mscoco_val2014"
    assert [(q.id, q.question, len(q.answers), q.type, q.split, q.pictures[0].name) for q in data] == [
        ("420", "What color is it?", 10, "other", "val2014", "42"),
        ("421", "Is it big?", 10, "yes/no", "val2014", "42"),
        ("430", "How many?", 10, "number", "val2014", "43"),
    ]
    assert data.questions[1].answers == ("yes",) * 4 + ("no",) * 6


def test_vqa_with_pictures_elsewhere_and_in_an_archive(tmp_path: Path) -> None:
    pictures = write(tmp_path / "coco", files({}, NAMES))
    data = read_questions(write(tmp_path / "vqa", files(VQA)), images=pictures)
    assert [q.pictures[0].source for q in data] == [pictures / NAMES[0], pictures / NAMES[0], pictures / NAMES[1]]
    packed = read_questions(pack(tmp_path / "vqa.tar", files(VQA, (f"val2014/{NAMES[0]}", NAMES[1]))))
    assert packed.digest() == data.digest()


def test_questions_without_their_picture_are_left_out_and_counted(tmp_path: Path) -> None:
    with pytest.warns(
        DataLeftOutWarning, match="1 questions about 1 pictures .* left out .*COCO_val2014_000000000043.jpg"
    ):
        data = read_questions(write(tmp_path / "vqa", files(VQA, NAMES[:1])))
    assert [q.id for q in data] == ["420", "421"]
    with pytest.raises(
        UsageError, match="has its answers and its picture .*COCO_val2014_.*say where they are with images="
    ):
        read_questions(write(tmp_path / "none", files(VQA)))


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        (ASKED, {"questions": 1}, "must hold an object with a list of 'questions'"),
        (ASKED, {"questions": [{"image_id": "42", "question_id": 1}]}, "'image_id' must be a whole number; got '42'"),
        (ASKED, {"questions": [{"image_id": 42, "question_id": 420, "question": " "}]}, "question 420 has no text"),
        (ASKED, {**VQA[ASKED], "data_subtype": "../../etc"}, "'data_subtype' must be one word"),
        (
            ANSWERED,
            {"annotations": [{"question_id": 420, "answers": [{"answer": 1}]}]},
            "question 420 must have 'answers'",
        ),
        ("other_questions.json", {}, "keep one set in a folder"),
    ],
)
def test_damaged_vqa_is_told(tmp_path: Path, name: str, document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_questions(write(tmp_path / "vqa", files({**VQA, name: document}, NAMES)))


# Frozen ---------------------------------------------------------------------------------------------------------------

FAST = [
    {"question_id": 3, "image_1": "a.jpg", "caption_1": "This is a dax.",
     "image_2": "b.jpg", "caption_2": "This is a fep.",
     "question": "What is the dax made of?", "question_image": "q.jpg", "answer": "wood"}
]  # fmt: skip


@pytest.mark.parametrize(("task", "name"), [("fast_vqa", "fast-vqa"), ("guided_vqa", "real-fast-vqa")])
def test_frozens_questions_come_with_their_examples(tmp_path: Path, task: str, name: str) -> None:
    documents = {f"{task}_shots_1_ways_2_all_questions.json": FAST}
    data = read_questions(write(tmp_path / "set", files(documents, ("a.jpg", "b.jpg", "q.jpg"))))
    assert data.name == name
    (asked,) = data
    assert (asked.question, asked.answers, asked.pictures[0].name) == ("What is the dax made of?", ("wood",), "q.jpg")
    assert [(one.question, one.answers, one.pictures[0].name) for one in asked.examples] == [
        (None, ("This is a dax.",), "a.jpg"),
        (None, ("This is a fep.",), "b.jpg"),
    ]


def test_frozens_class_names_are_no_questions(tmp_path: Path) -> None:
    documents = {"real_name_mi_shots_1_ways_2_all_questions.json": FAST}
    with pytest.raises(UsageError, match="holds no questions in a layout known here"):
        read_questions(write(tmp_path / "set", files(documents)))


# VL-ICL ---------------------------------------------------------------------------------------------------------------

SUPPORT = [
    {"id": number, "image": [f"operator_induction/s{number}.jpg"], "question": "What is the result?", "answer": answers}
    for number, answers in enumerate([[7, 3, 10], [9, 1, 20], [4, 0, 4]])
]
QUERIES = [
    {"id": 0, "image": ["operator_induction/q0.jpg"], "question": "What is the result?", "answer": 12, "operator": "+"},
    {"id": 1, "image": ["operator_induction/q1.jpg"], "question": "What is the result?", "answer": 18, "operator": "x"},
]


def vl_icl(folder: Path, queries: Any, support: Any, pictures: tuple[str, ...] = ()) -> Path:
    write(folder.parent, files({}, pictures))
    return write(folder, files({"query.json": queries, "support.json": support}))


def test_operator_induction_takes_the_answers_of_the_querys_operator(tmp_path: Path) -> None:
    pictures = tuple(f"operator_induction/{name}.jpg" for name in ("s0", "s1", "s2", "q0", "q1"))
    folder = vl_icl(tmp_path / "operator_induction", QUERIES, SUPPORT, pictures)
    data = read_questions(folder)
    assert data.name == "operator_induction" and data.types == {"+": 1, "x": 1}
    plus, times = data
    assert plus.answers == ("12",) and times.answers == ("18",)
    assert sorted(one.answers[0] for one in plus.examples) == ["4", "7", "9"]
    assert sorted(one.answers[0] for one in times.examples) == ["10", "20", "4"]
    assert plus.pictures[0].source == tmp_path / "operator_induction" / "q0.jpg"
    fewer = read_questions(folder, shots=2)
    assert [[one.id for one in q.examples] for q in fewer] == [[one.id for one in q.examples[:2]] for q in data]
    draws = {tuple(one.id for one in q.examples) for seed in range(4) for q in read_questions(folder, seed=seed)}
    assert len(draws) > 2
    assert read_questions(folder, shots=0).questions[0].examples == ()


def test_a_text_twin_has_no_pictures(tmp_path: Path) -> None:
    def without(rows: Any) -> Any:
        return [{key: value for key, value in row.items() if key != "image"} | {"question": "3 ? 4"} for row in rows]

    data = read_questions(vl_icl(tmp_path / "operator_induction_text", without(QUERIES), without(SUPPORT)))
    assert data.name == "operator_induction_text"
    assert all(q.pictures == () and q.question == "3 ? 4" and len(q.examples) == 3 for q in data)
    assert all(one.pictures == () for q in data for one in q.examples)


def test_open_mi_shows_two_classes_in_turns(tmp_path: Path) -> None:
    support = {name: {"images": [f"open_mi/{name}{shot}.jpg" for shot in range(3)]} for name in ("dax", "fep", "wug")}
    query = {
        "image": "open_mi/q.jpg",
        "question": "This is a",
        "answer": "fep",
        "classes": list(support),
        "support": support,
    }
    pictures = tuple(path for kind in support.values() for path in kind["images"])
    data = read_questions(vl_icl(tmp_path / "open_mi", [query], [], (*pictures, "open_mi/q.jpg")), shots=2)
    (asked,) = data
    shown = [one.answers[0] for one in asked.examples]
    assert asked.answers == ("fep",) and len(shown) == 4 and shown[:2] == shown[2:] and "fep" in shown
    assert len(set(shown)) == 2
    assert [one.pictures[0].name for one in asked.examples][::2] == [f"open_mi/{shown[0]}{shot}.jpg" for shot in (0, 1)]


def test_matching_pairs_and_other_sets(tmp_path: Path) -> None:
    pair = {half: {"image": [f"{half}1.jpg", f"{half}2.jpg"], "question": "?", "answer": answer}
            for half, answer in (("same", "yes"), ("diff", "no"))}  # fmt: skip
    query = {"image": ["same1.jpg", "diff2.jpg"], "question": "?", "answer": "no"}
    folder = write(
        tmp_path / "matching_mi",
        files({"query.json": [query], "support.json": [pair]}, ("same1.jpg", "same2.jpg", "diff1.jpg", "diff2.jpg")),
    )
    (asked,) = read_questions(folder)
    assert [(len(one.pictures), one.answers) for one in asked.examples] == [(2, ("yes",)), (2, ("no",))]
    assert asked.pictures[0].source == folder / "same1.jpg"  # relative to the set's own folder


@pytest.mark.parametrize(
    ("queries", "support", "message"),
    [
        ([], SUPPORT, "holds no queries"),
        ([{**QUERIES[0], "operator": "/"}], SUPPORT, r"'operator' must be one of \+, -, x; got '/'"),
        (QUERIES, [{**SUPPORT[0], "answer": [1, 2]}], "'answer' must list one for each of"),
        ([{**QUERIES[0], "image": ["../q.jpg"]}], SUPPORT, "leads outside the archive"),
        ([{**QUERIES[0], "answer": ""}], SUPPORT, "'answer' must be a text, a number"),
        ([{**QUERIES[0], "answer": "a", "classes": ["b"], "support": {}}], [], "none of its 'classes'"),
    ],
)  # fmt: skip
def test_damaged_vl_icl_is_told(tmp_path: Path, queries: Any, support: Any, message: str) -> None:
    pictures = tuple(f"operator_induction/{name}.jpg" for name in ("s0", "s1", "s2", "q0", "q1"))
    with pytest.raises(UsageError, match=message):
        read_questions(vl_icl(tmp_path / "operator_induction", queries, support, pictures))


# One's own ------------------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    lines = (
        '{"image": "a.png", "question": "what?", "answer": ["cat", "a cat"]}\n'
        '{"image": ["a.png", "b.png"], "question": "same?", "answer": "no"}\n'
    )
    folder = write(tmp_path / "mine", {**files({}, ("a.png", "b.png")), "mine.jsonl": lines.encode()})
    data = read_questions(folder / "mine.jsonl")
    assert [(q.id, q.question, q.answers, len(q.pictures)) for q in data] == [
        ("1", "what?", ("cat", "a cat"), 1),
        ("2", "same?", ("no",), 2),
    ]
    assert data.digest() == read_questions(folder).digest() and data.questions[0].pictures[0].name == "a.png"
    captions = '{"image": "a.png", "caption": ["A cat.", "Cat."]}'
    file = (
        write(tmp_path / "captions", {**files({}, ("a.png",)), "captions.jsonl": captions.encode()}) / "captions.jsonl"
    )
    (asked,) = read_captions(file)
    assert (asked.question, asked.answers, asked.pictures[0].captions) == (None, ("A cat.", "Cat."), ("A cat.", "Cat."))
    assert read_captions(file.parent).digest() == read_captions(file).digest()
    (folder / "b.png").unlink()
    with pytest.raises(UsageError, match=r"b.png' cannot be read: No such file"):
        data.digest()
    with pytest.raises(UsageError, match=r"line 2 of .* names the picture .*b.png', which is no file"):
        read_questions(folder)
    with pytest.raises(UsageError, match="line 1: an example needs its 'answer'"):
        (folder / "mine.jsonl").write_text('{"image": "a.png", "question": "what?"}')
        read_questions(folder)

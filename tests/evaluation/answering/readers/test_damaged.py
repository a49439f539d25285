"""Files of every layout with values swapped for others: a set, or an error of ours that says what is wrong."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icl_vision.errors import DataLeftOutWarning, IclVisionError
from icl_vision.evaluation.answering.readers import QASet, read_captions, read_questions

from .conftest import picture, write

A = "images/a.png"
JUNK = [None, 1, -1, 2.5, "", "x", "../x", [], {}, [1], ["a"], {"a": 1}, True, "a\0b", "é" * 5, 10**30, A, [A]]
LAYOUTS: dict[str, tuple[Callable[[Path], QASet], dict[str, Any]]] = {
    "coco": (read_questions, {"index.json": [
        {"id": 7, "file": A, "captions": ["A."], "cocoqa": [{"question": "q", "answer": "a", "type": "color"}]},
        {"id": 8, "file": A, "captions": [], "cocoqa": [{"question": "q", "answer": "a", "type": "object"}]}]}),
    "captions": (read_captions, {"captions.jsonl": {"file": A, "captions": ["a", "b"]}}),
    "easy-vqa": (read_questions, {
        "train/questions.json": [["what", "red", 0]], "test/questions.json": [["is", "no", 0]]}),
    "vqa": (read_questions, {
        "a_questions.json": {"data_subtype": "images", "questions": [
            {"image_id": 7, "question": "q", "question_id": 1}]},
        "a_annotations.json": {"annotations": [
            {"question_id": 1, "answer_type": "x", "answers": [{"answer": "a"}] * 3}]}}),
    "frozen": (read_questions, {"fast_vqa_shots_1_ways_1_all_questions.json": [
        {"question_id": 3, "image_1": A, "caption_1": "a dax", "question": "q", "question_image": A, "answer": "w"}]}),
    "vl-icl": (read_questions, {
        "query.json": [{"image": [A], "question": "q", "answer": "a", "operator": "+"},
                       {"image": A, "question": "q", "answer": "b", "classes": ["b", "c"],
                        "support": {"b": {"images": [A]}, "c": {"images": [A]}}}],
        "support.json": [{"image": A, "question": "q", "answer": [1, 2, 3]}]}),
    "vl-icl-pairs": (read_questions, {
        "query.json": [{"image": [A, A], "question": "q", "answer": "no"}],
        "support.json": [{"same": {"image": [A], "question": "q", "answer": "y"},
                          "diff": {"image": A, "question": "q", "answer": 1}}]}),
    "own": (read_questions, {"own.jsonl": {"image": A, "question": "q", "answer": ["a"]}}),
}  # fmt: skip
PICTURES = {
    name: picture("red") for name in (A, "train/images/0.png", "test/images/0.png", "COCO_images_000000000007.jpg")
}


def swapped(document: Any, draw: random.Random) -> Any:
    """A copy in which one to three values are others or gone."""
    document = json.loads(json.dumps(document))
    for _ in range(draw.randint(1, 3)):
        node, place = document, None
        while isinstance(node, dict | list) and node and draw.random() < 0.8:
            key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
            place, node = (node, key), node[key]
        if place is not None:
            parent, key = place
            if isinstance(parent, dict) and draw.random() < 0.2:
                parent.pop(key)
            else:
                parent[key] = json.loads(json.dumps(draw.choice(JUNK)))
    return document


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, layout: str) -> None:
    read, documents = LAYOUTS[layout]
    refused = 0
    for seed in range(40):
        draw = random.Random(f"{layout}/{seed}")
        files = {name: json.dumps(swapped(document, draw)).encode() for name, document in documents.items()}
        folder = write(tmp_path / str(seed), {**files, **PICTURES})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataLeftOutWarning)
                read(folder).digest()
        except IclVisionError:
            refused += 1
    assert refused > 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_files_undamaged_are_read(tmp_path: Path, layout: str) -> None:
    read, documents = LAYOUTS[layout]
    files = {name: json.dumps(document).encode() for name, document in documents.items()}
    assert len(read(write(tmp_path, {**files, **PICTURES}))) >= 1


@pytest.mark.parametrize("name", ["a_questions.json", "a_annotations.json"])
def test_a_list_in_place_of_a_file_of_vqa_is_named(tmp_path: Path, name: str) -> None:
    files = {"a_questions.json": {"questions": []}, "a_annotations.json": {"annotations": []}} | {name: []}
    for file, document in files.items():
        (tmp_path / file).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(IclVisionError, match=f"'{name}' of .* must hold an object with a list of"):
        read_questions(tmp_path)

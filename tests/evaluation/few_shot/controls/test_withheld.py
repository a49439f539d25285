"""Which classes a label may be, and that withholding them is felt."""

from __future__ import annotations

from pathlib import Path

import pytest

import icl_vision
from icl_vision.errors import UsageError
from icl_vision.evaluation.few_shot.controls.withheld import (
    OTHER_NAMES,
    class_lines,
    match_classes,
    unwrapped,
    withholding,
)
from icl_vision.evaluation.kit.remember import RememberingTokenizer
from icl_vision.images import list_images
from icl_vision.tokenizers import ImageTokenizer
from icl_vision.tokenizers.ascii import AsciiTokenizer
from icl_vision.tokenizers.onnx import OnnxTokenizer

DEMO = Path(icl_vision.__file__).parent / "demo_data"

LINES = [
    "American lobster; Maine lobster",
    "spiny lobster; rock lobster",
    "lion; king of beasts",
    "sea lion",
    "cougar; mountain lion",
    "kite (bird of prey); kite",
    "black-footed ferret; ferret",
    "clogs",
    "brass",
    "crane bird; crane",
    "construction crane; crane",
]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("lion", ["lion"]),
        ("Mountain_lion", ["cougar"]),
        ("lobster", ["American lobster", "spiny lobster"]),
        ("cougar_face", ["cougar"]),
        ("kite", ["kite (bird of prey)"]),
        ("black footed ferret", ["black-footed ferret"]),
        ("clog", ["clogs"]),
        ("Lions", ["lion"]),
        ("bras", []),
        ("crane", ["crane bird", "construction crane"]),
        ("lionfish", []),
        ("helicopter", []),
    ],
)
def test_match_by_spelling(label: str, expected: list[str]) -> None:
    assert match_classes([label], LINES) == {label: tuple(expected)}


def test_names_that_spelling_cannot_see() -> None:
    assert match_classes(["elephant"], ["tusker", "Asian elephant; Indian elephant"]) == {
        "elephant": ("tusker", "Asian elephant")
    }


@pytest.fixture(scope="module")
def words_photo() -> OnnxTokenizer:
    return OnnxTokenizer.from_pretrained("words-photo", providers="cpu")


def test_every_test_class_of_mini_imagenet_is_found(words_photo: OnnxTokenizer) -> None:
    labels = (
        "nematode,king_crab,golden_retriever,malamute,dalmatian,African_hunting_dog,lion,ant,black-footed_ferret,"
        "bookshop,crate,cuirass,electric_guitar,hourglass,mixing_bowl,school_bus,scoreboard,theater_curtain,vase,trifle"
    ).split(",")
    found = match_classes(labels, class_lines(words_photo))
    assert {label: len(names) for label, names in found.items()} == dict.fromkeys(labels, 1)


def test_other_names_are_all_classes(words_photo: OnnxTokenizer) -> None:
    lines = class_lines(words_photo)
    for label, names in OTHER_NAMES.items():
        assert len(match_classes([label], lines)[label]) >= len(names), label


def test_wrappers_are_seen_through(words_photo: OnnxTokenizer) -> None:
    wrapped = RememberingTokenizer(RememberingTokenizer(words_photo))
    assert unwrapped(wrapped) is words_photo
    assert class_lines(wrapped) == class_lines(words_photo)
    assert class_lines(AsciiTokenizer()) == []


def test_withheld_classes_are_not_named_anymore(words_photo: OnnxTokenizer) -> None:
    lobsters = [path for path in list_images(DEMO) if path.parent.name == "lobster"][:6]
    names = match_classes(["lobster"], class_lines(words_photo))["lobster"]
    control = withholding(RememberingTokenizer(words_photo), names)
    assert control.card["withheld"] == list(names)
    said = [sum("lobster" in pyramid.words() for pyramid in one.encode(lobsters, 5)) for one in (words_photo, control)]
    assert said[0] > said[1]


def test_withholding_adds_to_what_is_withheld(words_photo: OnnxTokenizer) -> None:
    twice = withholding(withholding(words_photo, ["lion"]), ["ant"])
    assert twice.card["withheld"] == ["lion", "ant"]


def test_a_tokenizer_without_classes_is_told() -> None:
    ascii_art: ImageTokenizer = AsciiTokenizer()
    with pytest.raises(UsageError, match="'ascii' recognises no fixed classes"):
        withholding(ascii_art, ["lion"])

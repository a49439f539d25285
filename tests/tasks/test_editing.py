"""Pictures changed through words: what is asked, what is drawn, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from icl_vision.errors import LLMNoAnswerError, LLMStatusError, PromptError, UsageError
from icl_vision.llms import FakeLLM
from icl_vision.tasks.editing import DIGIT_CHANGES, Change, PictureLoop

PICTURES = [Image.new("L", (4, 4), shade) for shade in (10, 20, 30)]


def see(pictures: Sequence[Any]) -> list[str]:
    return [f"an image of {picture.getpixel((0, 0)) // 10}" for picture in pictures]


class Drawer:
    """Paints a text's last character; texts: what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[Image.Image | None]:
        self.texts += texts
        return [Image.new("L", (4, 4), int(text[-1])) if text[-1].isdigit() else None for text in texts]


def changed(prompt: str) -> str:
    """What a good LLM would say."""
    before, change = (line.partition(": ")[2] for line in prompt.splitlines()[-3:-1])
    digit = {"make it five": "5", "the same again": before[-1]}[change]
    return f" an image of {digit}\nBefore: something else"


def test_a_picture_is_seen_changed_and_drawn_by_every_drawer() -> None:
    llm, words, diffusion = FakeLLM(changed), Drawer(), Drawer()
    loop = PictureLoop(llm, see, {"words": words, "diffusion": diffusion})
    edited = loop.edit(PICTURES, ["make it five", "the same again", "make it five"])
    assert [one.seen for one in edited] == ["an image of 1", "an image of 2", "an image of 3"]
    assert [one.said for one in edited] == ["an image of 5", "an image of 2", "an image of 5"]
    assert words.texts == diffusion.texts == ["an image of 5", "an image of 2"]
    first, second, third = (
        {name: picture.getpixel((0, 0)) for name, picture in one.pictures.items()} for one in edited
    )
    assert first == third == {"words": 5, "diffusion": 5} and second == {"words": 2, "diffusion": 2}
    assert edited[1].change == "the same again"


def test_one_change_may_be_for_all_and_the_fixed_part_is_the_same_for_all() -> None:
    llm = FakeLLM(changed)
    PictureLoop(llm, see, {"words": Drawer()}).edit(PICTURES, "make it five")
    assert len({call.prompt.prefix for call in llm.calls}) == 1 and len(llm.calls) == 3
    assert llm.calls[0].prompt.query == "Before: an image of 1\nChange: make it five\nAfter:"
    assert all(f"Change: {one.change}" in llm.calls[0].prompt.context for one in DIGIT_CHANGES)


def test_where_the_llm_says_nothing_nothing_is_drawn() -> None:
    drawer = Drawer()
    llm = FakeLLM([" \n", LLMNoAnswerError("only thoughts", "thoughts"), " an image of x"])
    nothing, thoughts, undrawn = PictureLoop(llm, see, {"words": drawer}).edit(PICTURES, "make it five")
    assert nothing.said is thoughts.said is None and nothing.pictures == thoughts.pictures == {"words": None}
    assert undrawn.said == "an image of x" and undrawn.pictures == {"words": None}
    assert drawer.texts == ["an image of x"]


def test_an_llm_that_fails_is_an_error_and_no_pictures_are_no_work() -> None:
    with pytest.raises(LLMStatusError, match="busy"):
        PictureLoop(FakeLLM([LLMStatusError("busy", 503)]), see, {"words": Drawer()}).edit(PICTURES, "make it five")
    assert PictureLoop(FakeLLM([]), see, {"words": Drawer()}).edit([], "make it five") == []


@pytest.mark.parametrize("change", ["", "  ", "two\nlines", "x" * 301, None, 3])
def test_a_change_must_be_a_line(change: Any) -> None:
    with pytest.raises(UsageError, match="a change must be a line of 1 to 300 characters"):
        PictureLoop(FakeLLM(changed), see, {"words": Drawer()}).edit(PICTURES[:1], [change])


def test_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match="got 2 for 3"):
        PictureLoop(FakeLLM(changed), see, {"words": Drawer()}).edit(PICTURES, ["a", "b"])
    with pytest.raises(UsageError, match="one drawer and one example at least; got 0 and 6"):
        PictureLoop(FakeLLM(changed), see, {})
    with pytest.raises(PromptError, match="control|U\\+0007"):
        PictureLoop(FakeLLM(changed), see, {"words": Drawer()}).edit(PICTURES[:1], "make\x07it")
    with pytest.raises(PromptError):
        PictureLoop(FakeLLM(changed), see, {"words": Drawer()}, examples=[Change("a", "b\x00", "c")])
    with pytest.raises(UsageError, match="what is seen must be a line"):
        PictureLoop(FakeLLM(changed), lambda pictures: [""], {"words": Drawer()}).edit(PICTURES[:1], "make it five")

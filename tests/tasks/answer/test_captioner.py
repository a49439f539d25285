"""Captions: the form of the prompt, which reference is shown, what of an LLM's text is the caption."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asked import SceneTokenizer, looks_up, picture, prefers
from PIL import Image

from icl_vision import Captioner, Described
from icl_vision.errors import ImageError, LLMNoAnswerError, PromptError, StorageError, UsageError
from icl_vision.llms import FakeLLM
from icl_vision.llms.wrappers.dry import DryLLM
from icl_vision.tasks.answer.captioner import MAX_TOKENS

IMAGES = [picture(0), picture(1), picture(2)]
CAPTIONS: list[Any] = [
    "A dog plays with a ball.",
    ["A red sofa.", "A cat on a sofa.", "A cat sits on a red sofa."],
    "Two buses.",
]


def captioner(llm: FakeLLM | None = None, **options: Any) -> Captioner:
    return Captioner(llm or FakeLLM(looks_up), SceneTokenizer(), 2, progress=False, **options)


def fitted(llm: FakeLLM | None = None, **options: Any) -> Captioner:
    return captioner(llm, **options).fit(IMAGES, CAPTIONS)


def test_the_form_of_the_papers() -> None:
    assert fitted(shots=1).prompt_for(picture(0)).pairs[0][0].text == (
        "Write a caption for the picture that each line of words describes.\n"
        "Q: dog ball; grass man; green\nA: A dog plays with a ball.\n"
        "Q: dog ball; grass man; green\nA:"
    )


def test_the_form_of_pica() -> None:
    assert fitted(template="caption_pica", shots=1).prompt_for(picture(0)).pairs[0][0].text == (
        "Please write the caption of the picture according to the above context.\n"
        "===\nContext: dog ball; grass man; green\n===\nCaption: A dog plays with a ball.\n"
        "===\nContext: dog ball; grass man; green\n===\nCaption:"
    )


def test_a_caption_is_one_plain_line() -> None:
    for written, caption in (
        (' "A cat sleeps." ', "A cat sleeps."),
        (" A cat\u202e sleeps", "A cat sleeps"),
        (" x\ty", "xy"),
    ):
        assert fitted(FakeLLM(written)).caption(picture(1))[0].text == caption


def test_captions(tmp_path: Path) -> None:
    task = fitted()
    first, second = task.caption([picture(0), picture(1)])
    assert (first.text, second.text) == ("A dog plays with a ball.", "A cat sits on a red sofa.")
    assert (first.method, first.words, first.examples[-1]) == (
        "greedy",
        (("dog", "ball"), ("grass", "man"), ("green",)),
        0,
    )
    settings = task.llm_.calls[0].settings  # type: ignore[attr-defined]  # the fake's
    assert (settings["max_tokens"], settings["stop"]) == (MAX_TOKENS, ("\n",)) and "logprobs" not in settings
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert [one.text for one in task.caption(tmp_path)] == ["A dog plays with a ball."]
    assert asyncio.run(task.acaption(picture(0)))[0].text == first.text == task(picture(0))[0].text


def test_the_reference_shown_has_most_in_common_with_the_others() -> None:
    example = fitted().examples_[1]
    assert example.answer == "A cat sits on a red sofa." and example.question is None
    assert captioner().fit([picture(0)], [["One.", "Two."]]).examples_[0].answer == "One.", "of equals the first"


def test_several_prompts_take_the_likeliest() -> None:
    likely = prefers({"A cat.": -1.0, "A dog.": -2.0})
    task = fitted(FakeLLM([" A dog.", " A cat.", " A dog."], score=likely, logprobs=True), prompts=3)
    (caption,) = task.caption(picture(0))
    assert caption.text == "A cat." and caption.note == "1 of 3 prompts; the highest mean log-probability"


def test_several_pictures_together_and_texts_in_their_place() -> None:
    task = fitted()
    query = task.prompt_for([picture(0), Described("a man with a hat")]).pairs[0][0].query
    assert query == "Q1: dog ball; grass man; green\nQ2: a man with a hat\nA:"
    assert len(task.caption([[picture(0), picture(1)], picture(1)])) == 2


def test_what_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images and captions must be of equal length; got 3 images and 1 caption"):
        captioner().fit(IMAGES, ["one"])
    with pytest.raises(PromptError, match="example 0: a caption must be one line"):
        captioner().fit(IMAGES[:1], ["two\nlines"])
    with pytest.raises(ImageError):
        fitted().caption([b""])
    with pytest.raises(LLMNoAnswerError):
        fitted(FakeLLM(" ")).caption(picture(0))
    broken, whole = fitted(errors="return").caption([b"", picture(0)])
    assert isinstance(broken.error, ImageError) and whole.error is None
    fitted().save(tmp_path / "captioner.json")
    again = Captioner.load(tmp_path / "captioner.json", llm=FakeLLM(looks_up), tokenizer=SceneTokenizer())
    assert again.caption(picture(1))[0].text == "A cat sits on a red sofa."
    from icl_vision import VisualQA

    with pytest.raises(StorageError, match="it holds what Captioner.load reads"):
        VisualQA.load(tmp_path / "captioner.json", llm=FakeLLM())


def test_without_examples_and_planned() -> None:
    assert captioner(FakeLLM(" A dog.")).fit().caption(picture(0))[0].text == "A dog."
    llm = FakeLLM()
    plan = fitted(DryLLM(llm)).plan(IMAGES)  # type: ignore[arg-type]  # an LLM that is none
    assert (plan.usage.requests, plan.queries, plan.facts["methods"]) == (3, 3, ["greedy"]) and not llm.calls

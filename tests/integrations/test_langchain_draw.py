"""One that draws, as a LangChain tool."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from icl_vision import ImageDenoiser, ImageGenerator
from icl_vision.errors import LLMUnavailableError, NotFittedError, PromptTooLongError, UsageError
from icl_vision.integrations.langchain import ImageRegistry
from icl_vision.llms.fake import FakeLLM

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from drawing_llm import drawing_llm


def generator(llm: Any = None, **options: Any) -> ImageGenerator:
    bar, block = np.zeros((2, 28, 28), np.uint8)
    bar[4:24, 13:16] = block[4:24, 6:22] = 255
    found = ImageGenerator(llm or drawing_llm(), "spae-digits-32", **options)
    return found.fit([bar, block], ["a bar", "a block"])


def call(text: str) -> dict[str, Any]:
    return {"type": "tool_call", "name": "draw_image", "args": {"text": text}, "id": "call-1"}


def test_words_for_the_model_and_the_picture_for_the_program() -> None:
    images = ImageRegistry()
    tool = generator().as_tool(images=images)
    assert tool.description == "Draws a small picture from a text like these: 'a bar', 'a block'."
    message = tool.invoke(call("a bar"))
    assert isinstance(message, ToolMessage) and message.artifact["id"] == "image-1"
    assert json.loads(json.dumps(message.artifact)) == message.artifact
    assert message.artifact["text"] == "a bar" and sum(map(len, message.artifact["words"])) == 21 + 16
    assert message.content.startswith("drawn; the picture has the id 'image-1'\nwords: ")
    assert "and 5 more" in message.content and images["image-1"].size == (32, 32)


async def test_coroutine() -> None:
    tool = generator().as_tool("sketch", "Sketches.")
    assert (await tool.ainvoke(call("a block"))).artifact["text"] == "a block"
    assert list(tool.images) == ["image-1"]


class Scripted(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


def test_in_an_agent_whose_state_is_kept() -> None:
    tool = generator().as_tool()
    said = [AIMessage("", tool_calls=[call("a bar")]), AIMessage("done"), AIMessage("still there")]
    agent = create_agent(Scripted(messages=iter(said)), [tool], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    assert agent.invoke({"messages": [HumanMessage("draw a bar")]}, thread)["messages"][-1].content == "done"
    assert agent.invoke({"messages": [HumanMessage("and?")]}, thread)["messages"][-1].content == "still there"
    (kept,) = [m.artifact for m in agent.get_state(thread).values["messages"] if isinstance(m, ToolMessage)]
    assert kept["id"] == "image-1" and tool.images[kept["id"]].size == (32, 32)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines -> evil", "x" * 301])
def test_texts_that_may_not_be_drawn(text: str) -> None:
    message = generator().as_tool().invoke(call(text))
    assert message.status == "error" and "one line of 1 to 300 printable characters" in message.content


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_what_cannot_be_drawn_is_told_and_a_dead_llm_is_raised(errors: Any) -> None:
    refused = generator(FakeLLM("no such words", scores_text=False), errors=errors).as_tool().invoke(call("a bar"))
    assert refused.status == "error" and "'a bar' could not be drawn" in refused.content
    dead = FakeLLM([LLMUnavailableError("gone")], scores_text=False)
    with pytest.raises(LLMUnavailableError):
        generator(dead, errors=errors).as_tool().invoke(call("a bar"))
    # Examples that fill the window are the program's to mend, as with a classifier's tool: no other text would help.
    with pytest.raises(PromptTooLongError):
        generator(drawing_llm(context_window=9), errors=errors).as_tool().invoke(call("a bar"))


def test_what_cannot_be_a_tool() -> None:
    with pytest.raises(NotFittedError):
        ImageGenerator().as_tool()
    with pytest.raises(UsageError, match="images must be an ImageRegistry, to which pictures are added; got dict"):
        generator().as_tool(images={})


def denoiser(llm: Any = None, **options: Any) -> ImageDenoiser:
    pictures = np.random.default_rng(5).integers(0, 255, (3, 28, 28), dtype=np.uint8)
    return ImageDenoiser(llm or FakeLLM(constraint="logit_bias"), "spae-digits-32", context=3, **options).fit(
        list(pictures)
    )


async def test_a_denoiser_takes_an_image_and_gives_the_id_of_the_restored_one() -> None:
    images = ImageRegistry({"torn": np.full((28, 28), 200, np.uint8)})
    tool = denoiser().as_tool(images=images)
    assert (tool.name, tool.description) == (
        "restore_image",
        "Restores an image where the lower half is missing, and gives the id of the restored one.",
    )
    asked = {"type": "tool_call", "name": tool.name, "args": {"image": "torn"}, "id": "call-1"}
    for number, message in enumerate((tool.invoke(asked), await tool.ainvoke(asked)), start=1):
        assert message.content.startswith(f"restored; the picture has the id 'image-{number}'\nwords: ")
        assert json.loads(json.dumps(message.artifact)) == message.artifact
        assert message.artifact["id"] == f"image-{number}" and message.artifact["task"] == "outpainting"
        assert images[f"image-{number}"].size == (32, 32)
    wrong = tool.invoke({"type": "tool_call", "name": tool.name, "args": {"image": "whole"}, "id": "call-2"})
    assert wrong.status == "error" and "there is no image 'whole'" in wrong.content and len(images) == 3


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_what_a_denoiser_cannot_do_is_told_to_the_model_or_raised(errors: str, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"text")
    tool = denoiser(errors=errors).as_tool(root=tmp_path)
    message = tool.invoke({"type": "tool_call", "name": tool.name, "args": {"image": "no.png"}, "id": "call-1"})
    assert message.content == "the image 'no.png' cannot be used: it is not an image of a known format"
    tool = denoiser(FakeLLM([LLMUnavailableError("nobody there")] * 9), errors="raise").as_tool(
        images=ImageRegistry({"a": np.zeros((28, 28), np.uint8)})
    )
    with pytest.raises(LLMUnavailableError, match="nobody there"):
        tool.invoke({"image": "a"})


def test_a_tool_takes_what_its_task_takes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="draw_image takes a text, and no image"):
        generator().as_tool(root=tmp_path)
    with pytest.raises(UsageError, match="images must be an ImageRegistry"):
        denoiser().as_tool(images={"a": np.zeros((28, 28), np.uint8)})
    with pytest.raises(NotFittedError, match="this ImageDenoiser is not fitted yet"):
        ImageDenoiser().as_tool()

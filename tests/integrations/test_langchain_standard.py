"""LangChain's own suite of standard tests for tools."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.tools import BaseTool
from langchain_tests.unit_tests import ToolsUnitTests
from PIL import Image

from icl_vision import Captioner, FewShotClassifier, VisualQA
from icl_vision.llms.fake import FakeLLM
from icl_vision.tokenizers.ascii import AsciiTokenizer


class TestClassifierTool(ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        images = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
        classifier = FewShotClassifier("fake", AsciiTokenizer(2, 2), 2).fit(images, ["light", "dark"])
        return classifier.as_tool("light_or_dark", images={"image-1": images[0]})

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"image": "image-1"}


class TestQuestionTool(ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        images = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
        qa = VisualQA(FakeLLM(" light", scores_text=False), AsciiTokenizer(2, 2), 2)
        return qa.fit(images, "what is it like?", ["light", "dark"]).as_tool(images={"image-1": images[0]})

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"image": "image-1", "question": "what is it like?"}


class TestCaptionTool(ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        images = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
        captioner = Captioner(FakeLLM(" A wall.", scores_text=False), AsciiTokenizer(2, 2), 2)
        return captioner.fit(images, ["A light wall.", "A dark wall."]).as_tool(images={"image-1": images[0]})

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"image": "image-1"}

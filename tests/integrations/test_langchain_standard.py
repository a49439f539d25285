"""LangChain's own suite of standard tests for tools."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.tools import BaseTool
from langchain_tests.unit_tests import ToolsUnitTests
from PIL import Image

from icl_vision import FewShotClassifier
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

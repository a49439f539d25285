"""A classifier as a LangChain tool, and in chains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import StructuredTool, ToolException
from pydantic import BaseModel, Field

from icl_vision.contracts import Classification
from icl_vision.errors import LLMUnavailableError, NotFittedError, UsageError
from icl_vision.integrations.langchain import ImageRegistry, TaskTool, as_runnable, task_tool
from icl_vision.llms.fake import FakeLLM
from icl_vision.tasks import FewShotClassifier
from icl_vision.tokenizers.ascii import AsciiTokenizer


def call(image: Any, name: str = "classify_image") -> dict[str, Any]:
    return {"type": "tool_call", "name": name, "args": {"image": image}, "id": "call-1"}


class TestTool:
    def test_text_for_the_model_and_everything_for_the_program(self, make_classifier, grey) -> None:
        clf = make_classifier(FakeLLM(score=lambda prompt, label: -1.0 if "light" in label else -2.0), scoring="direct")
        tool = clf.as_tool("look", "Light or dark?")
        assert isinstance(tool, StructuredTool)
        assert (tool.name, tool.description, tool.response_format) == ("look", "Light or dark?", "content_and_artifact")
        image = tool.images.add(grey(255))
        message = tool.invoke(call(image))
        assert isinstance(message, ToolMessage) and message.status == "success"
        assert message.content == "light (confidence 0.73, not calibrated)\nwords for the image: ...., ...., ...., ...."
        assert isinstance(message.artifact, Classification)
        assert message.artifact.label == "light" and message.artifact.usage.requests > 0
        assert tool.invoke({"image": image}) == message.content  # without a call's id there is only the content

    async def test_coroutine(self, classifier, grey) -> None:
        tool = classifier.as_tool(images={"a": grey(0), "b": grey(255)})
        assert (await tool.ainvoke(call("a"))).artifact.label == "dark"
        assert (await tool.ainvoke(call("b"))).artifact.label == "light"

    def test_the_schema_a_model_sees(self, classifier) -> None:
        tool = classifier.as_tool()
        schema = tool.tool_call_schema.model_json_schema()
        assert schema["properties"]["image"]["type"] == "string" and schema["required"] == ["image"]
        assert schema["properties"]["image"]["description"] == "the id of an image"
        assert tool.description == "Says which of these an image shows: dark, light."
        assert "images" not in tool.model_dump() and "PIL" not in repr(tool)

    def test_paths_in_a_folder(self, classifier, grey, tmp_path: Path) -> None:
        grey(255).save(tmp_path / "day.png")
        tool = classifier.as_tool(root=tmp_path)
        assert "relative path" in tool.args["image"]["description"]
        assert tool.invoke(call("day.png")).artifact.label == "light"
        assert tool.invoke(call("../day.png")).status == "error"

    def test_a_mistake_becomes_a_message_the_model_can_act_on(self, classifier, grey) -> None:
        tool = classifier.as_tool(images=ImageRegistry({"sky": grey(255)}))
        message = tool.invoke(call("sea"))
        assert (message.status, message.artifact) == ("error", None)
        assert message.content == "there is no image 'sea'; give the id of an image (ids: 'sky')"
        for arguments in ({"picture": "sky"}, {"image": ["sky"]}, {}):
            message = tool.invoke({"type": "tool_call", "name": tool.name, "args": arguments, "id": "1"})
            assert message.status == "error"
            assert message.content == "wrong arguments; this tool takes 'image' (the id of an image)"

    @pytest.mark.parametrize("errors", ["raise", "return"])
    @pytest.mark.parametrize(
        ("name", "content", "why"),
        [
            ("secret.txt", b"root:x:0:0 hunter2", "it is not an image of a known format"),
            ("empty.png", b"", "it is empty"),
            ("cut.png", None, "it is damaged"),
        ],
    )
    async def test_bad_files_are_told_without_their_contents_or_their_folder(
        self, make_classifier, grey, tmp_path: Path, name: str, content: bytes | None, why: str, errors: str
    ) -> None:
        path = tmp_path / name
        if content is None:
            grey(3).resize((64, 64)).save(path)
            content = path.read_bytes()[:60]
        path.write_bytes(content)
        tool = make_classifier(errors=errors).as_tool(root=tmp_path)
        for message in (tool.invoke(call(name)), await tool.ainvoke(call(name))):
            assert message.status == "error"
            assert message.content == f"the image {name!r} cannot be used: {why}"
            assert "hunter2" not in str(message) and str(tmp_path) not in str(message)

    def test_a_file_that_went_away(self, classifier, tmp_path: Path) -> None:
        message = classifier.as_tool(images={"a": tmp_path / "gone.png"}).invoke(call("a"))
        assert message.content == "the image 'a' cannot be used: it does not exist any more"

    @pytest.mark.parametrize("errors", ["raise", "return"])
    async def test_a_failing_llm_is_raised(self, make_classifier, grey, errors: str) -> None:
        down = LLMUnavailableError("nobody there")
        tool = make_classifier(FakeLLM([down, down], scores_text=False), errors=errors).as_tool(images={"a": grey(0)})
        with pytest.raises(LLMUnavailableError, match="nobody there"):
            tool.invoke(call("a"))
        with pytest.raises(LLMUnavailableError, match="nobody there"):
            await tool.ainvoke(call("a"))

    @pytest.mark.parametrize("errors", ["raise", "return"])
    def test_no_label_fits(self, make_classifier, grey, errors: str) -> None:
        clf = make_classifier(FakeLLM("purple, I think", scores_text=False), errors=errors)
        message = clf.as_tool(images={"a": grey(0)}).invoke(call("a"))
        assert message.content.splitlines()[0] == "none of the known labels fits (dark, light)"
        assert (message.status, message.artifact.label) == ("success", None)
        clf = make_classifier(FakeLLM("purple, I think", scores_text=False), errors=errors, on_unknown="raise")
        message = clf.as_tool(images={"a": grey(0)}).invoke(call("a"))
        assert (message.content, message.status) == ("none of the known labels fits this image", "error")

    def test_long_lists_are_shortened(self, grey) -> None:
        labels = [f"class {number}" for number in range(40)]
        clf = FewShotClassifier(FakeLLM("?", scores_text=False), AsciiTokenizer(40, 2), 40)
        clf.fit([grey(number) for number in range(40)], labels)
        tool = clf.as_tool(images={"a": grey(0)})
        assert tool.description.endswith("class 35 and 10 more.")  # sorted as texts
        assert tool.invoke(call("a")).content.endswith("@@ and 8 more")

    def test_bad_arguments(self, classifier, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            FewShotClassifier("fake").as_tool()
        for name in ("", "two words", "x" * 65, "naïve", 5):
            with pytest.raises(UsageError, match="a tool's name must be 1 to 64 letters"):
                classifier.as_tool(name)
        with pytest.raises(UsageError, match="a tool's description tells the model what the tool is for; got ' '"):
            classifier.as_tool("look", " ")
        with pytest.raises(UsageError, match="root must be a folder that exists"):
            classifier.as_tool(root=tmp_path / "no")

    def test_callbacks_see_the_call(self, classifier, grey) -> None:
        seen: list[tuple[str, Any]] = []

        class Watch(BaseCallbackHandler):
            def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
                seen.append(("start", kwargs["inputs"]))

            def on_tool_end(self, output: Any, **kwargs: Any) -> None:
                seen.append(("end", output.artifact.label))

            def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
                seen.append(("error", error))

        classifier.as_tool(images={"a": grey(0)}).invoke(call("a"), {"callbacks": [Watch()]})
        assert seen == [("start", {"image": "a"}), ("end", "dark")]


class DrawArguments(BaseModel):
    what: str = Field(description="what to draw")
    shades: int = Field(default=2, description="how many shades")


class TestSeam:
    """Another task's tool: it draws, so it adds to the registry."""

    def make(self, grey: Any) -> TaskTool:
        images = ImageRegistry()

        def run(what: str, shades: int) -> tuple[str, Any]:
            if what == "nothing":
                raise ToolException("draw something")
            id = images.add(grey(shades))
            return f"drawn as {id}", images[id]

        async def arun(what: str, shades: int) -> tuple[str, Any]:
            return run(what, shades)

        return task_tool("draw", "Draws.", run, arun, DrawArguments, images=images)

    async def test_any_task(self, grey) -> None:
        tool = self.make(grey)
        request = {"type": "tool_call", "name": "draw", "args": {"what": "a cat"}, "id": "1"}
        message = tool.invoke(request)
        assert message.content == "drawn as image-1" and message.artifact is tool.images["image-1"]
        assert (await tool.ainvoke(request)).content == "drawn as image-2"
        assert tool.invoke({**request, "args": {"what": "nothing"}}).content == "draw something"
        wrong = tool.invoke({**request, "args": {"shades": "many"}})
        assert wrong.content == "wrong arguments; this tool takes 'what' (what to draw), 'shades' (how many shades)"


class TestChains:
    def test_a_task_stands_on_either_side(self, classifier, grey) -> None:
        shout = RunnableLambda(str.upper)
        paint = RunnableLambda(grey)
        assert (classifier | shout).invoke(grey(255)) == "LIGHT"
        assert (paint | classifier).invoke(0) == "dark"
        chain = paint | classifier | shout
        assert chain.batch([0, 255, 5], config={"max_concurrency": 2}) == ["DARK", "LIGHT", "DARK"]
        both = paint | RunnableParallel(one=classifier, other=classifier | shout)
        assert both.invoke(255) == {"one": "light", "other": "LIGHT"}

    async def test_awaited(self, classifier, grey) -> None:
        chain = classifier | RunnableLambda(str.upper)
        assert await chain.ainvoke(grey(255)) == "LIGHT"
        assert await chain.abatch([grey(0), grey(255)]) == ["DARK", "LIGHT"]

    def test_errors_stay_in_place(self, classifier, grey) -> None:
        found = (classifier | RunnableLambda(str.upper)).batch(["no.png", grey(0)], return_exceptions=True)
        assert "no.png" in str(found[0]) and found[1] == "DARK"

    def test_two_tasks_without_any_runnable(self, classifier, grey) -> None:
        name = as_runnable(classifier)
        assert name.get_name() == "FewShotClassifier"
        assert as_runnable(classifier, name="day").get_name() == "day"
        assert (name | str.upper).invoke(grey(255)) == "LIGHT"


class TestArtefactsInCheckpoints:
    def test_an_artifact_is_json(self, classifier, grey) -> None:
        """A checkpointer stores state as data; LangGraph reduces the artifact to its ``to_dict``."""
        artifact = classifier.as_tool(images={"a": grey(0)}).invoke(call("a")).artifact
        assert json.loads(json.dumps(artifact.to_dict()))["label"] == "dark"

"""A LangChain agent that looks at images by asking a few-shot classifier.

    python examples/langchain_agent.py                           a scripted stand-in for the agent's model: no key
    python examples/langchain_agent.py --model openai:gpt-5.1    any chat model that LangChain knows, with your key

The agent's model never gets an image, only its id. The classifier reads the image as words, and its LLM (``--llm``, by
default the embedded one) chooses a label.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import icl_vision
from icl_vision import FewShotClassifier
from icl_vision.integrations.langchain import ImageRegistry

PHOTOS = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"
CLASSES = ("dolphin", "pizza", "umbrella")


class ScriptedModel(BaseChatModel):
    """Does what a model would do here: calls the tool for every image id it reads, then repeats what it was told."""

    tool: str = "classify_image"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        asked = max(place for place, message in enumerate(messages) if isinstance(message, HumanMessage))
        told = [message for message in messages[asked:] if isinstance(message, ToolMessage)]
        if told:
            answer = AIMessage("; ".join(str(message.text).splitlines()[0] for message in told))
        else:
            ids = re.findall(r"image-\d+", messages[asked].text)
            calls = [{"name": self.tool, "args": {"image": id}, "id": f"call-{id}"} for id in ids]
            answer = AIMessage("", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])


def make_classifier(llm: Any = "local", tokenizer: Any = "words-photo", k: int | None = 5) -> FewShotClassifier:
    """A classifier that has seen three photographs of each class."""
    images = [path for name in CLASSES for path in sorted((PHOTOS / name).glob("*.jpg"))[:3]]
    return FewShotClassifier(llm, tokenizer, k).fit(images, [path.parent.name for path in images])


def make_agent(model: BaseChatModel, classifier: FewShotClassifier, images: ImageRegistry) -> Any:
    """The agent: any chat model, and one tool that takes the id of an image of ``images``."""
    tool = classifier.as_tool("classify_image", f"Says which of {', '.join(CLASSES)} an image shows.", images=images)
    return create_agent(model, [tool], system_prompt="You cannot see. Find out what images show with your tools.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the agent's model, PROVIDER:MODEL; without it, a scripted stand-in")
    parser.add_argument("--llm", default="local", help="the classifier's LLM, as for icl_vision.connect")
    options = parser.parse_args(arguments)

    images = ImageRegistry()
    ids = [images.add(sorted((PHOTOS / name).glob("*.jpg"))[10]) for name in CLASSES]
    model = ScriptedModel() if options.model is None else init_chat_model(options.model)
    agent = make_agent(model, make_classifier(options.llm), images)

    state = agent.invoke({"messages": [HumanMessage(f"What do {', '.join(ids)} show?")]})
    for message in state["messages"]:
        message.pretty_print()
        if isinstance(message, ToolMessage) and message.artifact is not None:
            print("probabilities:", message.artifact.probabilities, "usage:", message.artifact.usage)


if __name__ == "__main__":
    main()

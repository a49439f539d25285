"""A LangChain agent that asks questions about photographs, of a frozen text LLM that sees them as words.

    python examples/langchain_questions.py                           a scripted stand-in for the agent's model: no key
    python examples/langchain_questions.py --model openai:gpt-5.1    any chat model that LangChain knows, with your key

The agent's model never gets an image, only its id. It has two tools: ``ask_image`` takes an id and a question,
``caption_image`` an id. Behind both is another LLM (``--llm``, by default the embedded one), which is shown a few
answered examples and the photograph's words. How often a small LLM is right: docs/accuracy.md; put a larger one there
where it matters.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from icl_vision import Captioner, VisualQA
from icl_vision.integrations.langchain import ImageRegistry
from icl_vision.tasks.answer.files import packaged_captions, packaged_examples


class ScriptedModel(BaseChatModel):
    """Does what a model would do here: asks the person's question about every image it reads of, or for captions where
    it was asked for those, and repeats what it was told."""

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
            ids, question = re.findall(r"image-\d+", messages[asked].text), messages[asked].text.split(": ", 1)[-1]
            calls = [
                {"name": "caption_image", "args": {"image": id}, "id": f"call-{id}"}
                if "caption" in messages[asked].text
                else {"name": "ask_image", "args": {"image": id, "question": question}, "id": f"call-{id}"}
                for id in ids
            ]
            answer = AIMessage("", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])


def make_tools(
    images: ImageRegistry,
    llm: Any = "local",
    tokenizer: Any = "describe-photo",
    k: int | None = None,
    held_out: int = 3,
) -> list[Any]:
    """Both tools over the images of one registry. held_out: packaged examples at the end that they are not shown."""
    photographs, questions, answers = (column[:-held_out] for column in packaged_examples())
    pictures, captions = (column[:-held_out] for column in packaged_captions())
    return [
        VisualQA(llm, tokenizer, k).fit(photographs, questions, answers).as_tool(images=images),
        Captioner(llm, tokenizer, k).fit(pictures, captions).as_tool(images=images),
    ]


def make_agent(model: BaseChatModel, tools: Sequence[Any]) -> Any:
    return create_agent(model, list(tools), system_prompt="You cannot see. Ask your tools what images show.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the agent's model, PROVIDER:MODEL; without it, a scripted stand-in")
    parser.add_argument("--llm", default="local", help="the LLM behind the tools, as for icl_vision.connect")
    options = parser.parse_args(arguments)

    images = ImageRegistry()
    photographs, questions, _ = packaged_examples()
    model = ScriptedModel() if options.model is None else init_chat_model(options.model)
    agent = make_agent(model, make_tools(images, options.llm))
    for photograph, question in list(zip(photographs, questions, strict=True))[-3:]:
        id = images.add(photograph)
        for text in (f"Of {id}: {question}", f"Write a caption of {id}."):
            state = agent.invoke({"messages": [HumanMessage(text)]})
            print(f"{text} -> {state['messages'][-1].text}")


if __name__ == "__main__":
    main()

"""An agent that answers a question by calling the classifier: scripted, and through the OpenAI SDK on loopback."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from icl_vision import connect
from icl_vision.contracts import Usage
from icl_vision.integrations.langchain import ImageRegistry

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("langchain_agent_example", EXAMPLES / "langchain_agent.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images(grey) -> ImageRegistry:
    registry = ImageRegistry()
    registry.add(grey(255))
    registry.add(grey(0))
    return registry


def ask(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


class Events(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.seen.append(f"tool {serialized['name']}")

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.seen.append(f"tool: {output.text.splitlines()[0]}")

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.seen.append("model")


class TestScripted:
    def test_it_answers_by_calling_the_tool(self, example, classifier, images) -> None:
        agent = example.make_agent(example.ScriptedModel(), classifier, images)
        events = Events()
        messages = agent.invoke(ask("What do image-1 and image-2 show?"), {"callbacks": [events]})["messages"]
        assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, ToolMessage, AIMessage]
        assert messages[-1].content == "light; dark"
        assert [message.artifact.label for message in messages[2:4]] == ["light", "dark"]
        assert all(message.artifact.usage.requests == 1 for message in messages[2:4])
        assert sorted(set(events.seen)) == ["model", "tool classify_image", "tool: dark", "tool: light"]

    async def test_awaited(self, example, classifier, images) -> None:
        agent = example.make_agent(example.ScriptedModel(), classifier, images)
        state = await agent.ainvoke(ask("image-2?"))
        assert state["messages"][-1].content == "dark"

    def test_the_model_hears_of_its_mistake(self, example, classifier, images) -> None:
        agent = example.make_agent(example.ScriptedModel(), classifier, images)
        messages = agent.invoke(ask("image-7?"))["messages"]
        assert messages[2].status == "error"
        assert messages[-1].content.startswith("there is no image 'image-7'; give the id of an image (ids: 'image-1', ")

    def test_with_a_checkpointer(self, example, classifier, images) -> None:
        tool = classifier.as_tool(images=images)
        agent = create_agent(example.ScriptedModel(), [tool], checkpointer=InMemorySaver())
        thread: Any = {"configurable": {"thread_id": "1"}}
        agent.invoke(ask("image-1?"), thread)
        assert agent.invoke(ask("and image-2?"), thread)["messages"][-1].content == "dark"
        stored = [m.artifact for m in agent.get_state(thread).values["messages"] if isinstance(m, ToolMessage)]
        # A checkpoint holds data: the artifact comes back as what Classification.to_dict gives.
        assert [artifact["label"] for artifact in stored] == ["light", "dark"]
        assert stored[0]["usage"]["requests"] == 1

    def test_main(self, example, monkeypatch, capsys, classifier, make_classifier) -> None:
        monkeypatch.setattr(example, "make_classifier", lambda llm: classifier)
        example.main([])
        out = capsys.readouterr().out
        assert "probabilities: None" in out and out.count("Tool Message") == 3

    @pytest.mark.slow
    def test_main_as_it_is_run(self, example, model_cache, capsys) -> None:
        example.main([])
        assert "confidence" in capsys.readouterr().out


class TestThroughTheSdk:
    """ChatOpenAI in front of a loopback server that answers the agent's questions and the classifier's."""

    @pytest.fixture
    def chat(self, openai_server, say) -> Any:
        langchain_openai = pytest.importorskip("langchain_openai")

        def behave(body: dict[str, Any]) -> dict[str, Any]:
            last = body["messages"][-1]
            if not body.get("tools"):  # the classifier's own question
                return {"role": "assistant", "content": say(last["content"])}
            if last["role"] == "tool":
                told = [one["content"].splitlines()[0] for one in body["messages"] if one["role"] == "tool"]
                return {"role": "assistant", "content": "I see: " + ", ".join(told)}
            (tool,) = body["tools"]
            assert tool["function"]["parameters"]["required"] == ["image"]
            calls = [
                {
                    "id": f"call_{id}",
                    "type": "function",
                    "function": {"name": tool["function"]["name"], "arguments": json.dumps({"image": id})},
                }
                for id in re.findall(r"image-\d+", last["content"])
            ]
            return {"role": "assistant", "content": None, "tool_calls": calls}

        openai_server.behave = behave
        return langchain_openai.ChatOpenAI(
            model="gpt-test", base_url=openai_server.url, api_key="sk-canary-0123456789abcdef", max_retries=0
        )

    def test_one_question(self, example, chat, openai_server, classifier, images) -> None:
        agent = example.make_agent(chat, classifier, images)
        messages = agent.invoke(ask("What do image-1 and image-2 show?"))["messages"]
        assert messages[-1].content == "I see: light, dark"
        assert len(openai_server.requests) == 2  # the classifier's LLM is another
        sent = openai_server.requests[1]["messages"]
        assert [one["role"] for one in sent] == ["system", "user", "assistant", "tool", "tool"]

    @pytest.mark.parametrize("awaited", [False, True])
    async def test_usage_of_the_classifiers_model_is_summed_with_the_agents(
        self, example, chat, openai_server, make_classifier, images, awaited: bool
    ) -> None:
        classifier = make_classifier(connect(chat))  # the very model, and HTTP client, that the agent uses
        agent = example.make_agent(chat, classifier, images)
        usage, events = UsageMetadataCallbackHandler(), Events()
        config: Any = {"callbacks": [usage, events]}
        question = ask("What do image-1 and image-2 show?")
        for _ in range(2):
            state = await agent.ainvoke(question, config) if awaited else agent.invoke(question, config)
            messages = state["messages"]
            assert messages[-1].content == "I see: light, dark"
            spent = messages[2].artifact.usage
            assert spent == Usage(requests=1, prompt_tokens=100, cached_tokens=40, completion_tokens=7)
        # Each time two requests of the agent and one for each image of the classifier.
        assert len(openai_server.requests) == 8 == events.seen.count("model")
        assert usage.usage_metadata["gpt-test"]["input_tokens"] == 800
        await chat.root_async_client.close()

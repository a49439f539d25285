"""A classifier on every provider by changing one string: rung of the ladder, usage, the prefix awaited first."""

from __future__ import annotations

import pytest
from llm_contract import ADAPTERS, Adapter
from llm_servers import LoopbackServer

from icl_vision import FewShotClassifier
from icl_vision.errors import LLMStatusError, LLMUnavailableError

RUNGS = {
    "openai-chat": "constrained",
    "openai-reasoning": "constrained",
    "openai-unknown": "parse",
    "openai-responses": "constrained",
    "anthropic": "constrained",
    "anthropic-unknown": "parse",
    "compatible-chat": "parse",
    "vllm-echo": "channel",
    "vllm-chat": "constrained",
    "llama.cpp": "channel",
    "ollama": "constrained",
    "langchain": "parse",
}


def paths(class_folder, numbers):
    found = [(path, path.parent.name) for path in sorted(class_folder.glob("*/*.png")) if int(path.stem) in numbers]
    return [path for path, _ in found], [label for _, label in found]


@pytest.mark.parametrize("adapter", [one for one in ADAPTERS if one.name in RUNGS], ids=str)
def test_one_string_changes_the_llm(adapter: Adapter, class_folder):
    images, labels = paths(class_folder, (0, 1))
    queries, _ = paths(class_folder, (2, 3))
    # A model that answers with a label of its own spelling: the first constrained label, or this one.
    with LoopbackServer(adapter.provider(reply=" Green.\n", window=4_000), delay=0.05) as server:
        llm = adapter.llm(server)
        classifier = FewShotClassifier(llm).fit(images, labels)
        answers = classifier.classify(queries)
        assert {answer.method for answer in answers} == {RUNGS[adapter.name]}
        assert all(answer.label in classifier.classes_ for answer in answers)
        assert sum(answer.usage.requests for answer in answers) > 0
        assert sum(answer.usage.prompt_tokens for answer in answers) > 100
        if RUNGS[adapter.name] != "channel":
            assert len(server.requests) == len(queries)
            assert server.most_at_once > 1
            if llm.profile.prefix_cache:
                # The first alone, so that the provider holds the prefix when the others arrive.
                assert server.times[1] - server.times[0] >= 0.008
        llm.close()


def test_errors_stay_with_their_image(class_folder):
    (adapter,) = (one for one in ADAPTERS if one.name == "openai-chat")
    images, labels = paths(class_folder, (0, 1))
    queries, _ = paths(class_folder, (2, 3))
    with LoopbackServer(adapter.provider(window=4_000)) as server:
        llm = adapter.llm(server)
        classifier = FewShotClassifier(llm, errors="return").fit(images, labels)
        server.provider.key = "sk-changed-0123"
        answers = classifier.classify(queries)
        assert {type(answer.error) for answer in answers} == {LLMStatusError}
        llm.close()
        assert {type(answer.error) for answer in classifier.classify(queries)} == {LLMUnavailableError}

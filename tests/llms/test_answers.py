"""What counts as an answer, in every adapter alike: thoughts taken off, stop strings, errors where there is none."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llm_contract import ADAPTERS, LABELS, PROMPT, Adapter, quick
from llm_servers import Fault, LoopbackServer

from icl_vision import FewShotClassifier, connect
from icl_vision.contracts import Completion, Constraint, Profile, Prompt, Usage
from icl_vision.errors import LLMNoAnswerError, LLMStatusError, UsageError
from icl_vision.llms import FakeLLM, answers, register_profile
from icl_vision.llms.answers import Said, cut_at_stop, ending, may_be_kept, sent_stops, without_thoughts
from icl_vision.llms.batch.folder import RequestSettings

NAMES = ("openai-chat", "openai-responses", "anthropic", "compatible-chat", "compatible-completions", "langchain")
WIRES = [one for one in ADAPTERS if one.name in NAMES]


def said(name: str, text: str | None, finish: str | None = "stop", *, thoughts: str = "", tools: bool = False) -> Any:
    """A wire's answer that says this. finish: in OpenAI's words."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    if name == "anthropic":
        blocks: list[dict[str, Any]] = (
            [{"type": "thinking", "thinking": thoughts, "signature": "s"}] if thoughts else []
        )
        blocks += [{"type": "text", "text": text}] if text is not None else []
        blocks += [{"type": "tool_use", "id": "t", "name": "look", "input": {}}] if tools else []
        words = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}
        return {"type": "message", "content": blocks, "stop_reason": words.get(str(finish), finish), "usage": usage}
    if name == "openai-responses":
        items: list[dict[str, Any]] = [{"type": "reasoning", "id": "r", "summary": []}] if thoughts else []
        if text is not None:
            items.append({"type": "message", "content": [{"type": "output_text", "text": text, "annotations": []}]})
        items += [{"type": "function_call", "name": "look", "arguments": "{}"}] if tools else []
        document = {"object": "response", "status": "completed", "error": None, "output": items, "usage": usage}
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(str(finish))
        if reason:
            document |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        elif finish not in ("stop", "tool_calls", None):
            document["status"] = finish
        return document
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if name == "compatible-completions":
        choice |= {"text": text} | ({"reasoning": thoughts} if thoughts else {})
    else:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thoughts:
            message["reasoning_content"] = thoughts
        if tools:
            message["tool_calls"] = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        choice["message"] = message
    return {"id": "x", "object": "o", "created": 1, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[..., Any], LoopbackServer]]:
    """A name, a function that gives answers in turn and the LLM for them, and the server."""
    adapter: Adapter = request.param
    with LoopbackServer(adapter.provider()) as server:
        made = []

        def llm_of(*documents: Any, **options: Any) -> Any:
            server.faults.extend(Fault(raw=json.dumps(one).encode()) for one in documents)
            made.append(adapter.llm(server, **options))
            return made[-1]

        yield adapter.name, llm_of, server
        for llm in made:
            llm.close()


# ---- stop strings ----


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("\n\npizza", ("\n",), ("pizza", False)),
        ("\n\npizza\nmore", ("\n",), ("pizza", True)),
        (" pizza\nmore", ("\n",), (" pizza", True)),
        ("\n pizza", ("\n",), (" pizza", False)),
        ("  pizza pie", (" ",), ("pizza", True)),
        ("\r\n\tpizza", ("\n", "\t"), ("pizza", False)),
        ("pizza\n\nmore\nx", ("\n\n",), ("pizza", True)),
        ("\npizza", ("\n\n",), ("\npizza", False)),
        ("### pizza", ("###",), ("", True)),
        ("\n###pizza", ("###", "\n"), ("", True)),
        ("Q: pizza", ("\n", "Q:"), ("", True)),
        ("pizza END more", ("END",), ("pizza ", True)),
        ("pizza", (), ("pizza", False)),
        ("\n\n", ("\n",), ("\n\n", False)),
        ("", ("\n",), ("", False)),
        ("\u00a0\u2003pizza\u2003x", ("\u2003",), ("pizza", True)),
    ],
)
def test_a_stop_string_of_white_space_counts_from_the_first_visible_character(text, stops, cut):
    assert cut_at_stop(text, stops) == cut


@pytest.mark.parametrize("stop", ["\n", ["\n", "\n\n"], [" \n", "###"]])
def test_an_answer_may_begin_with_its_stop_string(wire, stop):
    name, llm_of, server = wire
    begun = " \n\n" if isinstance(stop, list) else "\n\n"
    answer = llm_of(said(name, begun + "pizza \n\nand more \nof it")).complete_sync("which?", stop=stop)
    assert answer.text.strip() == "pizza" and answer.finish_reason == "stop"
    body = server.requests[0].body
    sent = body.get("stop") or body.get("stop_sequences") or []
    assert all(one.strip() for one in sent)
    assert ("###" in sent) == ("###" in stop and name != "openai-responses")


def test_other_stop_strings_are_as_they_were(wire):
    name, llm_of, _ = wire
    llm = llm_of(said(name, "pizza END more"), said(name, "ENDpizza"))
    assert llm.complete_sync("x", stop="END").text == "pizza "
    assert llm.complete_sync("x", stop="END").text == ""  # that is what was asked for


# ---- thoughts ----

THOUGHTS = [
    "<think>a dog?\nno: pizza</think>",
    "\n<think>\n</think>\n\n",
    "<thinking>hm</thinking>",
    "<THINK>hm</Think>",
    "<reasoning>hm</reasoning> ",
    "<think>one</think><think>two</think>",
    "<think>a <think>b</think> c</think>",
    "no beginning, as in some templates</think>\n",
    "[THINK]hm[/THINK]",
    "<seed:think>hm</seed:think>",
    "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>",
    "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>",
    "◁think▷hm◁/think▷",
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>",
    '<think type="deep">hm</think>',
]


@pytest.mark.parametrize("block", THOUGHTS)
def test_thoughts_before_the_answer_are_taken_off(block):
    assert without_thoughts(block + "pizza") == ("pizza", "closed")


@pytest.mark.parametrize("text", ["pizza", " pizza", "<b>pizza</b>", "thinking of pizza", "< think >", "a < b"])
def test_what_is_no_thought_stays(text):
    assert without_thoughts(text) == (text, "none")


@pytest.mark.parametrize("text", ["<think>I wonder", "  <Thinking> hm", "[THINK] hm", "<think>a</think><think>b"])
def test_thoughts_that_do_not_end_are_no_answer(text):
    assert without_thoughts(text) == ("", "open")


def test_thoughts_in_every_adapter(wire):
    name, llm_of, _ = wire
    llm = llm_of(
        said(name, "<think>a\ndog?</think>\n\npizza\nmore"),
        said(name, "pizza", thoughts="hm"),
        said(name, "<think>dog, no", "length"),
        said(name, "<think>dog, no"),
        said(name, "<think>dog</think>\n"),
    )
    assert llm.complete_sync("x", stop="\n").text == "pizza"
    assert llm.complete_sync("x", stop="\n").text == "pizza"
    with pytest.raises(LLMNoAnswerError, match="used up its 4 tokens thinking and wrote no answer; raise"):
        llm.complete_sync("x")
    for _ in range(2):
        with pytest.raises(LLMNoAnswerError, match="nothing but thoughts, and no answer"):
            llm.complete_sync("x")


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic", "ollama"])
def test_thoughts_before_a_constrained_answer(name):
    adapter = next(one for one in ADAPTERS if one.name == name)
    with LoopbackServer(adapter.provider()) as server:
        form = name if name != "ollama" else "compatible-chat"
        document = said(form, '<think>hm</think>\n{"answer": "cat"}')
        server.faults.append(Fault(raw=json.dumps(document).encode()))
        with adapter.llm(server) as llm, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert llm.complete_sync(PROMPT, constraint=Constraint(LABELS)).text == "cat"


def test_thoughts_before_a_choice():
    adapter = next(one for one in ADAPTERS if one.name == "vllm-chat")
    with LoopbackServer(adapter.provider()) as server:
        server.faults.append(Fault(raw=json.dumps(said("compatible-chat", "<think>hm</think>cat")).encode()))
        with adapter.llm(server) as llm, warnings.catch_warnings():
            warnings.simplefilter("error")
            assert llm.complete_sync(PROMPT, constraint=Constraint(LABELS)).text == "cat"


# ---- no answer ----


@pytest.mark.parametrize(
    ("text", "finish", "more", "reason"),
    [
        (None, "length", {"thoughts": "Let me think"}, "thoughts"),
        ("", "length", {"thoughts": "Let me think"}, "thoughts"),
        (None, "stop", {"thoughts": "Let me think"}, "thoughts"),
        ("", "length", {}, "thoughts"),
        ("", "stop", {}, "empty"),
        (" \n\t", "stop", {}, "empty"),
        ("\n\n\n", "length", {}, "empty"),
        ("", "content_filter", {}, "withheld"),
        ("half an ans", "content_filter", {}, "withheld"),
    ],
)
def test_no_answer_is_an_error_by_name_and_is_not_asked_again_at_once(wire, text, finish, more, reason):
    name, llm_of, server = wire
    llm = llm_of(said(name, text, finish, **more), said(name, "pizza"))
    with pytest.raises(LLMNoAnswerError, match=llm.profile.name.replace("+", r"\+")) as caught:
        llm.complete_sync("x", stop="\n")
    if name == "langchain" and finish == "stop" and more:
        reason = "empty"  # LangChain's package drops the thoughts
    assert (caught.value.reason, caught.value.requests) == (reason, 1)
    assert (caught.value.prompt_tokens, caught.value.completion_tokens) == (9, 4)
    assert len(server.requests) == 1
    assert llm.complete_sync("x", stop="\n").text == "pizza"


def test_a_tool_instead_of_an_answer(wire):
    name, llm_of, _ = wire
    if name == "compatible-completions":
        pytest.skip("plain completions know no tools")
    llm = llm_of(said(name, None, "tool_calls", tools=True), said(name, "", "tool_calls", tools=True))
    for _ in range(2):
        with pytest.raises(LLMNoAnswerError, match="called a tool instead of answering"):
            llm.complete_sync("x")


@pytest.mark.parametrize("finish", ["error", "abort", "cancelled"])
def test_an_answer_that_was_broken_off(wire, finish):
    name, llm_of, _ = wire
    llm = llm_of(said(name, "piz", finish), said(name, "", finish))
    for _ in range(2):
        with pytest.raises(LLMNoAnswerError, match=rf"broke off its answer \({finish}\)"):
            llm.complete_sync("x")


def test_words_that_nobody_knows_are_passed_on(wire):
    name, llm_of, _ = wire
    assert llm_of(said(name, "pizza", "whatever")).complete_sync("x").finish_reason == "whatever"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "piz"}, {"type": "text", "text": "za"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "pizza"}],
        [{"type": "output_text", "text": "pizza"}],
        ["pizza"],
        {"type": "text", "text": "pizza"},
    ],
)
@pytest.mark.parametrize("wire", [one for one in WIRES if one.name.endswith("-chat")], indirect=True, ids=str)
def test_content_in_parts(wire, content):
    name, llm_of, _ = wire
    assert llm_of(said(name, content)).complete_sync("x").text == "pizza"
    refused = said(name, [{"type": "refusal", "refusal": "No."}])
    with pytest.raises(LLMNoAnswerError, match=r"refused to answer: No\."):
        llm_of(refused).complete_sync("x")
    thought = said(name, [{"type": "thinking", "thinking": "hm"}])
    with pytest.raises(LLMNoAnswerError, match="nothing but thoughts"):
        llm_of(thought).complete_sync("x")


@pytest.mark.parametrize("wire", [one for one in WIRES if one.name.endswith("-chat")], indirect=True, ids=str)
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_details", "thinking"])
def test_every_field_for_thoughts(wire, field):
    name, llm_of, _ = wire
    document = said(name, None, "length")
    document["choices"][0]["message"][field] = [{"text": "hm"}] if field == "reasoning_details" else "hm"
    with pytest.raises(LLMNoAnswerError, match="thinking and wrote no answer"):
        llm_of(document).complete_sync("x")


def test_a_response_whose_reasoning_is_incomplete():
    adapter = next(one for one in ADAPTERS if one.name == "openai-responses")
    document = said("openai-responses", None, thoughts="hm") | {"status": "incomplete", "incomplete_details": None}
    document["output"][0]["status"] = "incomplete"
    with LoopbackServer(adapter.provider()) as server, adapter.llm(server) as llm:
        server.faults.append(Fault(raw=json.dumps(document).encode()))
        with pytest.raises(LLMNoAnswerError, match="nothing but thoughts"):
            llm.complete_sync("x")


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("stop end_turn stop_sequence eos eos_token completed COMPLETE STOP", "stop"),
        ("length max_tokens MAX_TOKENS max_output_tokens model_length model_context_window_exceeded", "length"),
        ("refusal content_filter content_filtered SAFETY RECITATION guardrail_intervened", "withheld"),
        ("error abort cancelled failed insufficient_system_resource", "failed"),
        ("tool_calls tool_use function_call", "tools"),
        ("pause_turn compaction", "other"),
    ],
)
def test_the_words_of_providers(words, meaning):
    assert {ending(word) for word in words.split()} == {meaning}
    assert ending(None) == ending("") == "stop"


# ---- nothing of the kind is kept, or counted ----


@pytest.mark.parametrize(
    ("text", "finish", "more"),
    [
        ("", "error", {}),
        (None, "stop", {}),
        (" \n", "stop", {}),
        ("half", "error", {}),
        ("no", "content_filter", {}),
        (None, "length", {"thoughts": "hm"}),
        ("<think>hm", "length", {}),
        ("\ufeff\u200b", "stop", {}),
    ],
)
def test_no_answer_is_never_kept(wire, tmp_path, text, finish, more):
    name, llm_of, server = wire
    llm = connect(llm_of(said(name, text, finish, **more), said(name, "pizza")), cache=tmp_path / "c.sqlite")
    with pytest.raises(LLMNoAnswerError):
        llm.complete_sync("which?")
    assert llm.complete_sync("which?").text == llm.complete_sync("which?").text == "pizza"
    assert len(server.requests) == 2


def test_an_answer_with_an_unknown_ending_is_given_and_not_kept(wire, tmp_path):
    name, llm_of, _ = wire
    llm = connect(llm_of(said(name, "half", "whatever"), said(name, "pizza")), cache=tmp_path / "c.sqlite")
    assert [llm.complete_sync("which?").text for _ in range(3)] == ["half", "pizza", "pizza"]


@pytest.mark.parametrize("body", [{"text": "", "finish_reason": "error"}, {"text": "\n", "finish_reason": "stop"}])
def test_what_an_older_version_kept_is_asked_again(tmp_path, body):
    fake = FakeLLM(["", "pizza"])
    llm = connect(fake, cache=tmp_path / "c.sqlite")
    llm.complete_sync("which?")
    key = llm._key(llm.identity, "complete", Prompt.of("which?"), _settings())
    llm.cache.put(key, body | {"usage": Usage().to_dict()})
    assert llm.complete_sync("which?").text == llm.complete_sync("which?").text == "pizza"
    assert len(fake.calls) == 2


def _settings() -> dict[str, Any]:
    return {"max_tokens": 16, "stop": [], "temperature": 0.0, "seed": None, "constraint": None}


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic"])
def test_answers_of_a_batch_keep_the_same_rules(name):
    from icl_vision.llms.batch.llm import _provider

    adapter = next(one for one in ADAPTERS if one.name == name)
    settings = RequestSettings(16, ("\n",), 0.0, None, None)
    with LoopbackServer(adapter.provider()) as server, adapter.llm(server) as llm:
        provider = _provider(llm, quick())
        assert provider.completion(said(name, "<think>hm</think>\n\npizza\nx"), settings).text == "pizza"
        for document in (said(name, None, "length", thoughts="hm"), said(name, ""), said(name, "a", "content_filter")):
            assert isinstance(provider.completion(document, settings), LLMNoAnswerError)
        busy = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
        found = provider.completion(busy, settings)
        assert isinstance(found, LLMStatusError) and found.status == 429


class Foreign:
    """An LLM that is not this library's and returns what it likes."""

    def __init__(self, answer: Completion) -> None:
        self._answer = answer
        self.profile = Profile("foreign")

    async def complete(self, prompt: Any, **_: Any) -> Completion:
        return self._answer

    async def score(self, pairs: Any, **_: Any) -> Any: ...
    async def count_tokens(self, text: str) -> int:
        return 1

    def complete_sync(self, prompt: Any, **_: Any) -> Completion:
        return self._answer

    def score_sync(self, pairs: Any, **_: Any) -> Any: ...
    def count_tokens_sync(self, text: str) -> int:
        return 1


@pytest.mark.parametrize("answer", [Completion("", "stop"), Completion("dog", "refusal"), Completion(" ", "length")])
def test_no_answer_of_a_foreign_llm_is_an_error_of_its_image(answer):
    import numpy as np

    images = [np.full((8, 8), value, dtype=np.uint8) for value in (10, 250)]
    clf = FewShotClassifier(Foreign(answer), "ascii", k=None, errors="return").fit(images, ["dog", "cat"])
    (found,) = clf.classify(images[:1])
    assert isinstance(found.error, LLMNoAnswerError) and found.label is None


# ---- room for thoughts ----


def test_room_for_thoughts(tmp_path):
    adapter = next(one for one in ADAPTERS if one.name == "compatible-chat")
    with LoopbackServer(adapter.provider()) as server:
        with adapter.llm(server, reasoning_room=100) as llm:
            llm.complete_sync("x", max_tokens=7)
            assert llm.most_tokens(7, None) == 107
        with adapter.llm(server) as llm:
            llm.complete_sync("x", max_tokens=7)
        assert [request.body["max_tokens"] for request in server.requests] == [107, 7]
        with pytest.raises(UsageError, match=r"reasoning_room must be a whole number .* got -1"):
            adapter.llm(server, reasoning_room=-1)
    register_profile("openai-compatible:thinker-of-this-test@*", reasoning="always")
    thinker = connect("openai-compatible:thinker-of-this-test@http://127.0.0.1:9/v1")
    assert thinker.most_tokens(7, None) == 7 + answers.REASONING_ROOM
    assert thinker.identity != connect("openai-compatible:other@http://127.0.0.1:9/v1").identity


def test_room_for_thoughts_of_langchain_models():
    models = pytest.importorskip("langchain_openai")
    model = models.ChatOpenAI(model="gpt-4o-mini", api_key="x", profile={"reasoning_output": False})
    assert connect(model).most_tokens(7, None) == 7
    assert connect(model, reasoning_room=50).most_tokens(7, None) == 57
    thinks = models.ChatOpenAI(model="gpt-4o-mini", api_key="x", profile={"reasoning_output": True})
    assert connect(thinks).most_tokens(7, None) == 7 + answers.REASONING_ROOM


def test_a_message_holds_no_endless_refusal():
    with pytest.raises(LLMNoAnswerError) as caught:
        answers.read(Said("", refusal="no " * 10_000), "x")
    assert len(str(caught.value)) < 600


# ---- in a run ----


@pytest.mark.parametrize(
    "document", [(None, "length", {"thoughts": "hm"}), ("", "stop", {}), ("x", "content_filter", {})]
)
def test_in_a_run_it_is_journalled_as_an_error_and_asked_again(wire, tmp_path, document):
    import numpy as np

    from icl_vision.tasks.many import classify_many

    name, llm_of, server = wire
    text, finish, more = document
    llm = llm_of(said(name, " dark"), said(name, text, finish, **more), said(name, " light"))
    images = {f"{value}": np.full((8, 8), value, dtype=np.uint8) for value in (10, 128, 250)}
    options = {"k": None, "scoring": "parse", "concurrency": 1}
    clf = FewShotClassifier(llm, "ascii", **options).fit([*images.values()][::2], ["dark", "light"])
    first = classify_many(clf, images, tmp_path / "run", progress=False)
    assert (first.answered, first.failed) == (2, 1)
    assert [row["label"] for row in first.rows] == ["dark", None, "light"]
    assert "LLMNoAnswerError" in first.rows[1]["error"]
    server.faults.append(Fault(raw=json.dumps(said(name, " light")).encode()))
    again = classify_many(clf, images, tmp_path / "run", resume=True, progress=False)
    assert (again.answered, again.kept, again.failed) == (1, 2, 0)
    assert [row["label"] for row in again.rows] == ["dark", "light", "light"]
    assert len(server.requests) == 4


def test_a_meter_books_what_no_answer_cost(wire):
    from icl_vision.llms import Meter

    name, llm_of, _ = wire
    meter = Meter()
    llm = connect(llm_of(said(name, None, "length", thoughts="hm"), said(name, "pizza")), meter=meter)
    with pytest.raises(LLMNoAnswerError):
        llm.complete_sync("x")
    llm.complete_sync("x")
    spent = meter.total()[0]
    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (2, 18, 8)


def test_through_a_fallback(wire):
    from icl_vision.llms import FallbackLLM

    name, llm_of, server = wire
    llm = FallbackLLM([llm_of(said(name, "<think>a</think>\n\npizza\nx"), said(name, "")), FakeLLM("second")])
    assert llm.complete_sync("x", stop="\n").text == "pizza"
    with pytest.raises(LLMNoAnswerError, match="answered with nothing"):
        llm.complete_sync("x")
    server.faults.extend([Fault(raw=b"")] * 3)
    assert llm.complete_sync("x").text == "second"  # a server that says nothing at all is another matter


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff", "\u200b\n\u2060", "\x00", "\u200e \u200f"])
def test_what_nobody_can_see_is_no_answer(blank):
    assert not may_be_kept(blank, "stop")
    with pytest.raises(LLMNoAnswerError):
        answers.check(Completion(blank, "stop"), "x")


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("\ufeff\n\npizza\nmore", ["\n"], "pizza"),
        ("\u200b\n\npizza\nmore", ["\n"], "pizza"),
        ("\r\n\r\npizza\r\nmore", ["\n"], "pizza"),
        ("\r\n\r\npizza\r\nmore", ["\r\n"], "pizza"),
        ("\u200bpizza\u200bmore", ["\u200b"], "pizza"),
        ("pizza\r\n###", ["###"], "pizza\r\n"),
    ],
)
def test_invisible_characters_before_the_answer_are_no_answer(text, stops, cut):
    assert cut_at_stop(text, stops)[0] == cut
    assert sent_stops(["\u200b", "\r\n", "x"], 4) == ["x"]

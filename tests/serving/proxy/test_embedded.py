"""In front of the LLM of this machine: questions about pictures answered by VisualQA, everything else its server's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from proxied import Proxied, Talker, data_url, picture, run

from icl_vision.errors import LLMUnavailableError, UsageError
from icl_vision.llms.fake import FakeLLM
from icl_vision.llms.redaction import Secret
from icl_vision.serving.hosts import Access
from icl_vision.serving.pictures import Pictures
from icl_vision.serving.proxy.app import proxy
from icl_vision.serving.proxy.assembling import Parts, trained_with
from icl_vision.serving.proxy.captioning import Captioner
from icl_vision.serving.proxy.embedded import Answering, Embedded
from icl_vision.serving.words import PictureWords
from icl_vision.tasks.answer.files import packaged_examples
from icl_vision.tasks.answer.visual_qa import VisualQA

Start = Callable[..., Proxied]
WHAT = "What is in the picture?"


@pytest.fixture
def embedded(talker: Talker, tokenizer: Any) -> Iterator[Start]:
    """Starts a proxy whose base LLM is ``llm``, and whose server is the talker."""
    with contextlib.ExitStack() as stack:
        behind = run(talker)
        stack.callback(behind.stop)

        def start(llm: Any = None, problem: Exception | None = None, **options: Any) -> Proxied:
            async def started() -> tuple[str, Secret]:
                if problem is not None:
                    raise problem
                return behind.url, Secret("the-servers-key")

            task = VisualQA(llm or FakeLLM("a red bus"), tokenizer, errors="return", progress=False, **options)
            task.fit(*packaged_examples())
            words = PictureWords(tokenizer)
            access = Access()
            running = run(proxy(Embedded(access, started), Pictures(), words, access, Answering(task)))
            stack.callback(running.stop)
            return Proxied(running.url, talker, words)

        yield start


def asked(*contents: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return {"model": "m", "messages": messages}


def part(seed: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(picture(seed))}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


async def test_the_same_answers_as_the_task_gives(embedded: Start, tokenizer: Any):
    llm = FakeLLM(lambda prompt: f"{len(prompt) % 7} buses")
    proxied = embedded(llm)
    task = VisualQA(llm, tokenizer, progress=False).fit(*packaged_examples())
    for seed, question in ((1, WHAT), (2, "What colour is it?"), (3, "How many are there?")):
        response = await proxied.post("/v1/chat/completions", asked([text(f" {question}\n"), part(seed)]))
        answer = task.answers([picture(seed)], [question])[0]
        assert response.json()["choices"][0]["message"]["content"] == answer.text
        told = response.headers["x-icl-vision"]
        assert told == (
            f"answered by VisualQA ({answer.method}) from 1 image in words of describe-photo, after 8 examples; "
            "the conversation was not read"
        )
    assert proxied.talker.seen == []


async def test_which_pictures_are_asked_about(embedded: Start):
    proxied = embedded()

    async def told(*contents: Any) -> str:
        response = await proxied.post("/v1/chat/completions", asked(*contents))
        assert response.status_code == 200, response.text
        return str(response.headers["x-icl-vision"].split(" from ")[1].split(" in words")[0])

    assert await told([text(WHAT), part(1), part(2)]) == "2 images"
    assert await told([text(WHAT), part(1), part(2)], "x", [text(WHAT), part(3)]) == "1 image"
    assert await told([text(WHAT), part(1), part(2)], "x", "And now?") == "2 images"
    assert await told([text(WHAT), part(1), part(2)], "x", "And image 2?") == "1 image"
    assert await told([part(1)]) == "1 image"


async def test_three_dialects_and_streams(embedded: Start):
    proxied = embedded(scoring="greedy")
    shown: Any = [{"role": "user", "content": [text(WHAT), part(1)]}]
    async with openai.AsyncOpenAI(base_url=f"{proxied.url}/v1", api_key="canary-key", max_retries=0) as client:
        assert (await client.chat.completions.create(model="m", messages=shown)).choices[
            0
        ].message.content == "a red bus"
        stream = await client.chat.completions.create(model="m", messages=shown, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "a red bus"
        item: Any = {"type": "input_image", "image_url": data_url(picture(1)), "detail": "auto"}
        question: Any = [{"role": "user", "content": [{"type": "input_text", "text": WHAT}, item]}]
        assert (await client.responses.create(model="m", input=question)).output_text == "a red bus"
        async with client.responses.stream(model="m", input=question) as events:
            assert (await events.get_final_response()).output_text == "a red bus"
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture(1)).decode()}
    content: Any = [{"type": "image", "source": source}, text(WHAT)]
    async with anthropic.AsyncAnthropic(base_url=proxied.url, api_key="canary-key", max_retries=0) as other:
        messages: Any = [{"role": "user", "content": content}]
        answer = await other.messages.create(model="m", max_tokens=9, messages=messages)
        assert answer.content[0].type == "text" and answer.content[0].text == "a red bus"
        async with other.messages.stream(model="m", max_tokens=9, messages=messages) as texts:
            assert "".join([piece async for piece in texts.text_stream]) == "a red bus"
    assert proxied.talker.seen == []


async def test_without_pictures_the_llms_own_server_answers(embedded: Start):
    proxied = embedded()
    headers = {"authorization": "Bearer canary-key", "x-api-key": "canary-key"}
    response = await proxied.post("/v1/chat/completions", asked("hello"), headers=headers)
    assert response.json()["choices"][0]["message"]["content"] == "a bus" and "x-icl-vision" not in response.headers
    (seen,) = proxied.talker.seen
    assert seen.header("authorization") == "Bearer the-servers-key" and "canary-key" not in str(seen.headers)
    shown = {"type": "image", "source": {"type": "base64", "data": base64.b64encode(picture(1)).decode()}}
    counting = {"model": "m", "messages": [{"role": "user", "content": [shown, text(WHAT)]}]}
    assert (await proxied.post("/v1/messages/count_tokens", counting)).json() == {"input_tokens": 7}
    assert "[image 1 in words" in proxied.talker.seen[1].body.decode()


async def test_what_goes_wrong_is_told(embedded: Start):
    proxied = embedded(problem=LLMUnavailableError("canary"))
    response = await proxied.post("/v1/chat/completions", asked("hello"))
    assert response.status_code == 502 and "canary" not in response.text
    response = await proxied.post("/v1/chat/completions", asked([text("x" * 600 + "?"), part(1)]))
    assert response.status_code == 400 and "the question cannot be asked" in response.text
    response = await proxied.post("/v1/chat/completions", asked([text(WHAT), *[part(1)] * 100]))
    assert response.status_code == 413
    failing = embedded(FakeLLM([LLMUnavailableError("canary")] * 20))
    response = await failing.post("/v1/chat/completions", asked([text(WHAT), part(1)]))
    assert response.status_code == 502 and "canary" not in response.text and "LLMUnavailableError" in response.text


async def test_a_client_that_hangs_up_ends_the_asking(embedded: Start):
    entered, ended = threading.Event(), threading.Event()

    class Slow(FakeLLM):
        async def _complete(self, prompt: Any, **options: Any) -> Any:
            entered.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    proxied = embedded(Slow("x"), scoring="greedy")
    body = json.dumps(asked([text(WHAT), part(1)])).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", int(proxied.url.rsplit(":", 1)[1]))
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert await asyncio.to_thread(entered.wait, 20) and not ended.is_set()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert await asyncio.to_thread(ended.wait, 10)


# Put together from what was named ----------------------------------------------------------------------------------


def test_parts_that_do_not_go_together(tmp_path: Path, photo: Any):
    url = "http://127.0.0.1:1/v1"
    file = tmp_path / "examples.jsonl"
    file.write_text("{}")
    for parts, message in (
        (Parts(llm_url=url, upstream_key=Secret("x")), "clients need a token"),
        (Parts(llm_url=url, captioner=Captioner(url, "seer", Secret("x"))), "is spent on by every client"),
        (Parts(llm_url=url, classifier=file, classifier_llm="openai:gpt"), "every client has it asked"),
        (Parts(upstream_key=Secret("x"), access=Access(token=Secret("x" * 20))), "is the key of --llm-url"),
        (Parts(llm_url=url, examples=file), "--examples are shown to the LLM of this machine"),
        (Parts(llm="openai:gpt"), "--llm must be local"),
        (Parts(llm_url=url, classifier_llm="fake"), "names the LLM of --classifier"),
        (Parts(llm_url="x"), "the LLM's address"),
        (Parts(llm_url=url, roots=[file]), "a root must be a folder"),
    ):
        with pytest.raises(UsageError, match=message):
            parts.assembled()


def test_the_first_line_names_the_tokenizer_and_its_non_commercial_data(tokenizer: Any):
    _, remarks = Parts(llm_url="http://127.0.0.1:1", ocr=False).assembled()
    assert remarks[0].startswith(
        "icl-vision serve: pictures become words of describe-photo; non-commercial training data: "
    )
    assert "Flickr8k" in remarks[0].split("; all of it")[0] and "COCO" not in remarks[0].split("; all of it")[0]

    class Plain:
        name = "mine"
        card = {"data": "photographs, all CC0"}  # noqa: RUF012  # a stand-in for a card, never changed

    assert trained_with(Plain()) == (
        "icl-vision serve: pictures become words of mine; no non-commercial data on its card; all of it: "
        "photographs, all CC0"
    )


def test_a_saved_classifier_asks_its_llm_only_by_word(tmp_path: Path, photo: Any):
    from icl_vision import FewShotClassifier
    from icl_vision.errors import UntrustedNameError

    file = tmp_path / "saved.json"
    FewShotClassifier("fake", "words-photo").fit([photo, photo[::-1]], ["a", "b"]).save(file)
    url = "http://127.0.0.1:1"
    Parts(llm_url=url, classifier=file).assembled()
    document = json.loads(file.read_text())
    document["llm"]["spec"] = "openai:gpt-4o"
    file.write_text(json.dumps(document))
    with pytest.raises(UntrustedNameError, match="is not local"):
        Parts(llm_url=url, classifier=file).assembled()
    Parts(llm_url=url, classifier=file, classifier_llm="fake").assembled()


def test_examples_of_a_saved_task(tmp_path: Path):
    file = tmp_path / "saved.json"
    images, questions, answers = packaged_examples()
    task = VisualQA("fake", "describe-photo", progress=False).fit(images[:3], questions[:3], answers[:3])
    task.save(file)
    _, remarks = Parts(examples=file).assembled()
    assert "answered by VisualQA, after 3 examples" in remarks[1]
    with pytest.raises(UsageError, match="made with another tokenizer than words-photo"):
        Parts(examples=file, tokenizer="words-photo").assembled()
    with pytest.raises(UsageError, match="write into a chat"):
        Parts(examples=file, classifier_llm=None, captioner=Captioner("http://127.0.0.1:1", "seer")).assembled()

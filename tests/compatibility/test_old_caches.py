"""Caches and recordings of 0.1.0: answers come from them, and nobody is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icl_vision import FewShotClassifier, ImageGenerator, ImageTokenizer, __version__, connect
from icl_vision.errors import LLMResponseError
from icl_vision.llms import CachedLLM, FakeLLM, ResponseCache, record, repeat


@pytest.fixture
def caches(files: Path, work: Path) -> Path:
    shutil.copytree(files / "caches", work / "caches")
    return work / "caches"


def test_answers_of_an_old_cache_are_not_asked_for_again(caches: Path, asked: list[Any]) -> None:
    from calls import LABELS, queries, support

    expected = json.loads((caches / "expected.json").read_text(encoding="utf-8"))
    cache = ResponseCache(caches / "responses.sqlite")
    llm = connect("fake", cache=cache)
    classifier = FewShotClassifier(llm, "spae-digits-32", 5, shots=1).fit(*support("support", LABELS))
    assert classifier.predict(queries()) == expected["labels"]
    told = CachedLLM(FakeLLM("something new", name="told"), cache)
    texts = [told.complete_sync("which?", max_tokens=3, stop="\n", temperature=0.5, seed=1).text]
    with repeat(1):
        texts.append(told.complete_sync("which?", max_tokens=3, stop="\n", temperature=0.5, seed=1).text)
    assert texts == expected["texts"] and asked == []
    told.complete_sync("and what else?")
    assert len(asked) == 1
    cache.close()


def test_words_of_an_old_cache_are_taken_or_made_anew_and_never_wrong(caches: Path) -> None:
    from calls import queries

    from icl_vision.tokenizers.words_cache import CachedTokenizer, WordsCache

    expected = json.loads((caches / "expected.json").read_text(encoding="utf-8"))["words"]
    words = WordsCache(caches / "words.sqlite")
    assert len(words) == len({json.dumps(one) for one in expected}) or len(words) == len(queries())
    tokenizer = CachedTokenizer(ImageTokenizer.from_pretrained("spae-digits-32"), words)
    assert [one.to_dict() for one in tokenizer.encode(queries(), 5)] == expected
    # The version is part of the key: how a picture is read may change with it.
    hits = len(queries()) if __version__ == "0.1.0" else 0
    assert words.hits in (hits, 0) and words.hits + words.misses == len(queries())
    words.close()


def test_old_recordings_are_replayed(files: Path, work: Path, asked: list[Any]) -> None:
    from calls import DRAWN, support

    expected = json.loads((files / "replay" / "expected.json").read_text(encoding="utf-8"))
    llm = connect(f"replay:{files / 'replay' / 'drawn.jsonl'}")
    generator = ImageGenerator(llm, shots=1, stride=16, seed=1)
    generator.fit(*support("shapes", {"bar": DRAWN[0], "block": DRAWN[1]}))
    assert [one.pyramid.to_dict() for one in generator.generate(list(DRAWN))] == expected["drawn"]
    told = connect(f"replay:{files / 'replay' / 'answered.jsonl'}")
    texts = [told.complete_sync("the same question?", max_tokens=4, seed=3).text for _ in range(4)]
    assert texts == [*expected["texts"], expected["texts"][-1]]
    assert told.count_tokens_sync("one two, three") == expected["tokens"]
    with pytest.raises(LLMResponseError, match="has no answer to this 'complete' request"):
        told.complete_sync("another question?")
    assert asked == []


def test_an_old_recording_goes_on(files: Path, work: Path) -> None:
    shutil.copy(files / "replay" / "answered.jsonl", work)
    llm = record(FakeLLM("four"), "answered.jsonl")
    assert llm.complete_sync("the same question?", max_tokens=4, seed=3).text == "four"
    told = connect("replay:answered.jsonl")
    texts = [told.complete_sync("the same question?", max_tokens=4, seed=3).text for _ in range(4)]
    assert texts == ["one", "two", "three", "four"]

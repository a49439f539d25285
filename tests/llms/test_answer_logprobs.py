"""How likely an answer is: asked for, kept by every wrapper and store, unknown where nobody told."""

from __future__ import annotations

import json
import math

import pytest

from icl_vision import connect
from icl_vision.contracts import Completion, Constraint, Prompt
from icl_vision.errors import UsageError
from icl_vision.llms import BaseLLM, Budget, FakeLLM, record
from icl_vision.llms.answers import Said, cut, read, tokens_told
from icl_vision.llms.batch.folder import RequestSettings
from icl_vision.llms.wrappers.cache import CachedLLM, ResponseCache

PROMPT = Prompt("Name the animal.", "wet nose: dog", "whiskers:")


def said(pieces: list[tuple[str, float]], text: str | None = None) -> Said:
    written = tuple((piece.encode(), logprob) for piece, logprob in pieces)
    return Said("".join(piece for piece, _ in pieces) if text is None else text, written=written)


@pytest.mark.parametrize(
    ("told", "stops", "text", "logprob"),
    [
        (said([("a", -1.0), (" cat", -2.0)]), (), "a cat", -3.0),
        (said([("a", -1.0), (" cat", -2.0), ("\n", -4.0), ("b", -8.0)]), ("\n",), "a cat", -3.0),
        # A token that the end cuts counts whole: nothing says how likely its half is.
        (said([("a", -1.0), (" cat.\n", -2.0), ("b", -8.0)]), ("\n",), "a cat.", -3.0),
        # White space before the first stop string that counts belongs to no answer.
        (said([("\n", -4.0), ("cat", -1.0), ("\n", -2.0)]), ("\n",), "cat", -1.0),
        (said([("<think>", -9.0), ("cat?", -9.0), ("</think>", -9.0), ("\n\n", -9.0), ("cat", -0.5)]), (), "cat", -0.5),
        (said([("c", -1.0), ("at", -2.0), ("", -5.0)]), (), "cat", -3.0),  # an end token is no text
        (said([("c", -1.0)], text="dog"), (), "dog", None),  # not the tokens of this text
        (said([], text="dog"), (), "dog", None),
    ],
)
def test_the_sum_over_what_the_text_is_made_of(told, stops, text, logprob):
    answer = cut(read(told, "x", stops=stops), stops, told)
    assert (answer.text, answer.logprob) == (text, logprob)


def test_tokens_are_read_by_their_bytes():
    halves = [
        {"token": "\\xc3", "bytes": [0xC3], "logprob": -1.0},
        {"token": "\\xa9", "bytes": [0xA9], "logprob": -0.25},
        {"token": "t", "logprob": -0.5},
    ]
    written = tokens_told(halves)
    assert written == ((b"\xc3", -1.0), (b"\xa9", -0.25), (b"t", -0.5))
    told = Said("ét", written=written)
    assert cut(read(told, "x"), (), told).logprob == -1.75
    for broken in (None, {}, ["a"], [*halves, {}], [{"token": "a", "logprob": 1.0}], [{"token": 3, "logprob": -1.0}]):
        assert tokens_told(broken) == ()


def test_it_is_asked_for():
    fake = FakeLLM("cat", score=lambda prompt, text: -len(text), logprobs=True)
    assert fake.complete_sync(PROMPT).logprob is None
    assert fake.complete_sync(PROMPT, logprobs=True).logprob == -3.0
    assert ["logprobs" in call.settings for call in fake.calls] == [False, True]
    constrained = FakeLLM("cat", constraint="choice", logprobs=True)
    assert constrained.complete_sync(PROMPT, logprobs=True, constraint=Constraint(("cat",))).logprob is None
    with pytest.raises(UsageError, match="logprobs must be True or False; got 1"):
        fake.complete_sync(PROMPT, logprobs=1)


def test_who_tells_none_is_not_given_the_argument():
    class Old(BaseLLM):
        """Written for an earlier version."""

        profile = FakeLLM().profile

        async def _complete(self, prompt, *, max_tokens, stop, temperature, seed, constraint):
            return Completion("cat", "stop")

    assert Old().complete_sync(PROMPT, logprobs=True).logprob is None


def test_every_wrapper_and_store_hands_it_on(tmp_path):
    fakes = [FakeLLM("cat", score=lambda prompt, text: -1.5, logprobs=True, name=name) for name in "ab"]
    llm = connect(fakes[0], fallback=[fakes[1]], budget=Budget(requests=9), cache=tmp_path / "a.sqlite")
    assert llm.profile.logprobs
    recording = record(llm, tmp_path / "a.jsonl")
    for _ in range(2):
        assert recording.complete_sync(PROMPT, logprobs=True).logprob == -1.5
        assert recording.complete_sync(PROMPT).logprob is None
    assert len(fakes[0].calls) == 2, "with it and without it are two questions, each asked once"
    replay = connect(f"replay:{tmp_path / 'a.jsonl'}")
    assert replay.profile.logprobs
    assert replay.complete_sync(PROMPT, logprobs=True).logprob == -1.5
    assert replay.complete_sync(PROMPT).logprob is None


def test_what_was_kept_before_has_none(tmp_path):
    """A row of an earlier version is found under the key that it always had."""
    fake = FakeLLM("cat", logprobs=True)
    cache = ResponseCache(tmp_path / "a.sqlite")
    cached = CachedLLM(fake, cache)
    settings = {"max_tokens": 16, "stop": [], "temperature": 0.0, "seed": None, "constraint": None}
    key = cached._key(cached.identity, "complete", PROMPT, settings)
    cache.put_all({key: {"text": "kept", "finish_reason": "stop", "usage": {"requests": 1}}})
    assert cached.complete_sync(PROMPT).text == "kept"
    damaged = cached._key(cached.identity, "complete", PROMPT, settings | {"logprobs": True})
    cache.put_all({damaged: {"text": "kept", "finish_reason": "stop", "usage": {}, "logprob": "much"}})
    answer = cached.complete_sync(PROMPT, logprobs=True)
    assert (answer.text, answer.logprob, fake.calls) == ("kept", None, [])


def test_a_recording_of_version_0_1_0_means_something_else_by_the_field(tmp_path):
    profile = {"name": "fake", "api": "completions", "scores_text": True, "logprobs": True, "prefill": False}
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps({"format": "icl-vision-replay", "version": 1, "profile": profile}) + "\n")
    assert not connect(f"replay:{path}").profile.logprobs


def test_a_batch_has_its_settings_under_the_keys_they_always_had():
    plain = RequestSettings(4, ("\n",), 0.0, None, None)
    assert "logprobs" not in plain.to_dict() and RequestSettings.from_dict(plain.to_dict()) == plain
    asked = RequestSettings(4, ("\n",), 0.0, None, None, True)
    assert RequestSettings.from_dict(asked.to_dict()) == asked


def test_the_fake_says_what_its_score_says():
    fake = FakeLLM("cat", logprobs=True, score=lambda prompt, text: -math.inf)
    assert fake.complete_sync(PROMPT, logprobs=True).logprob == -math.inf

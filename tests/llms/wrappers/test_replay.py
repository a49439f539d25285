"""Recording and replaying: the same answers without the LLM, and what a file that cannot be used says."""

from __future__ import annotations

import json

import pytest

from icl_vision.contracts import Constraint, Prompt
from icl_vision.errors import LLMResponseError, StorageError, UsageError
from icl_vision.llms import FakeLLM, ReplayLLM, connect, record

PAIRS = [(Prompt("i", "c", "q"), " a"), (Prompt("i", "c", "q"), " b")]


def ask(llm):
    return [
        llm.complete_sync(Prompt("i", "c", "q"), max_tokens=3, stop="\n"),
        llm.complete_sync("p", temperature=1.0, seed=1, constraint=Constraint(("a", "b"))),
        llm.score_sync(PAIRS),
        llm.count_tokens_sync("one two"),
    ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deep" / "answers.jsonl"


def test_replays_what_was_recorded(file):
    fake = FakeLLM(constraint="choice", name="model")
    recorder = record(fake, file)
    first = ask(recorder)
    replay = connect(f"replay:{file}")
    assert ask(replay) == first
    assert replay.profile == fake.profile == recorder.profile


def test_equal_requests_in_their_order_the_last_again_and_again(file):
    recorder = record(FakeLLM(["a", "b"]), file)
    recorder.complete_sync("p")
    recorder.complete_sync("p")
    replay = ReplayLLM(file)
    assert [replay.complete_sync("p").text for _ in range(4)] == ["a", "b", "b", "b"]


def test_what_was_not_recorded_is_an_error(file):
    ask(record(FakeLLM(constraint="choice"), file))
    replay = ReplayLLM(file)
    with pytest.raises(LLMResponseError, match=r"no answer to this 'complete' request, whose text ends in 'other'"):
        replay.complete_sync("other")
    with pytest.raises(LLMResponseError, match="no answer to this 'score' request"):
        replay.score_sync(PAIRS, terminator="")
    with pytest.raises(LLMResponseError, match="no answer to this 'count' request"):
        replay.count_tokens_sync("three")


def test_recording_goes_on_after_a_kill(file):
    record(FakeLLM("a"), file).complete_sync("p")
    with file.open("a") as handle:
        handle.write('{"request": {"kind": "comp')
    assert ReplayLLM(file).complete_sync("p").text == "a"
    record(FakeLLM("b"), file).complete_sync("q")
    replay = ReplayLLM(file)
    assert (replay.complete_sync("p").text, replay.complete_sync("q").text) == ("a", "b")


def test_errors_are_not_recorded(file):
    recorder = record(FakeLLM([LLMResponseError("odd"), "a"]), file)
    with pytest.raises(LLMResponseError, match="odd"):
        recorder.complete_sync("p")
    recorder.complete_sync("p")
    assert len(file.read_text().splitlines()) == 2


def test_files_that_cannot_be_used(file, tmp_path):
    with pytest.raises(StorageError, match="no recording at .*; make one with"):
        ReplayLLM(file)
    odd = tmp_path / "odd.jsonl"
    for text, message in (
        ("", "is not a recording of ours: its first line"),
        ("hello\n", "is not a recording of ours"),
        ('{"format": "other"}\n', "its first line is not the header"),
        ('{"format": "icl-vision-replay", "version": 9}\n', "it has version 9"),
    ):
        odd.write_text(text)
        with pytest.raises(StorageError, match=message):
            ReplayLLM(odd)
    record(FakeLLM("a"), file).complete_sync("p")
    lines = file.read_text().splitlines()
    damaged = json.loads(lines[1])
    damaged["answer"]["text"] = 3
    odd.write_text("\n".join([lines[0], json.dumps(damaged), ""]))
    with pytest.raises(StorageError, match="line 2 of the recording .* is damaged"):
        ReplayLLM(odd)
    with pytest.raises(StorageError, match="is a recording of 'fake' with another profile than 'other'"):
        record(FakeLLM("a", name="other"), file)
    with pytest.raises(StorageError, match="cannot be read"):
        ReplayLLM(tmp_path)
    with pytest.raises(UsageError, match="record\\(\\) needs an LLM object"):
        record("fake", file)


@pytest.mark.parametrize(
    ("field", "value"),
    [(None, None), (None, []), ("context_window", "8000"), ("context_window", True), ("api", "telepathy"),
     ("scores_text", 1), ("name", None), ("stop_strings", [4]), ("reasoning", {})],
)  # fmt: skip
def test_a_header_whose_profile_is_none_is_no_recording(tmp_path, field, value):
    file = tmp_path / "answers.jsonl"
    record(FakeLLM(), file)
    header = json.loads(file.read_text())
    if field is None:
        header["profile"] = value
    else:
        header["profile"][field] = value
    file.write_text(json.dumps(header) + "\n")
    with pytest.raises(StorageError, match="is not a recording of ours: its profile"):
        connect(f"replay:{file}")

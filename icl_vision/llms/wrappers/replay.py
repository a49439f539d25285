"""Answers of an LLM, recorded once and replayed without it: for tests and for checking a result again.

Knows: one JSON Lines file. Refuses to know: keys, clients; only prompts, settings and answers are written.

The file's first line is a header with the recorded LLM's profile; every other
line is one answer with its request. Lines are appended as answers come, so a kill
costs at most the unfinished last line, which is ignored when read and cut off when
recording goes on. Equal requests are replayed in the order they were recorded,
the last answer again and again.
"""

from __future__ import annotations

import json
import logging
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from icl_vision.contracts import Completion, Profile, Prompt, Scores, TextLLM, Usage
from icl_vision.errors import LLMResponseError, StorageError, UsageError
from icl_vision.files.reading import MOST_WEIGHTS, checked_path, loads, read_text
from icl_vision.llms.answers import check
from icl_vision.llms.base import BaseLLM, Settings, completed, document_of, scored
from icl_vision.llms.loop import OwnThread
from icl_vision.llms.scores import attach, known_logprob, take
from icl_vision.llms.wrappers.wrapped import WrappedLLM

logger = logging.getLogger(__name__)

FORMAT = "icl-vision-replay"
VERSION = 1

_GONE = "prefill"
"""A field of profiles of version 0.1.0 only, whose ``logprobs`` meant another thing than it does now."""


def record(llm: TextLLM, file: str | os.PathLike[str]) -> RecordingLLM:
    """The same LLM, writing every answer to ``file``; ``connect("replay:FILE")`` replays them.

    An existing recording of an LLM with the same profile is continued.

    Raises:
        StorageError: the file cannot be written, is no recording, or is one of another LLM.
    """
    return RecordingLLM(llm, file)


class RecordingLLM(WrappedLLM):
    """See ``record``."""

    def __init__(self, llm: TextLLM, file: str | os.PathLike[str]) -> None:
        if not isinstance(llm, TextLLM):
            raise UsageError(f"record() needs an LLM object, see connect(); got {type(llm).__name__}")
        super().__init__(llm)
        self.path = Path(file)
        self._thread = OwnThread("icl-vision-recording")
        header = {"format": FORMAT, "version": VERSION, "profile": asdict(llm.profile)}
        if os.path.exists(self.path) and self.path.stat().st_size:
            profile, _ = _read(self.path)
            # What the version that recorded did not know of an LLM, it did not say.
            said = _said(_header(self.path)["profile"])
            if any(value != getattr(llm.profile, name) for name, value in said.items()):
                raise StorageError(
                    f"{str(self.path)!r} is a recording of {profile.name!r} with another profile than "
                    f"{llm.profile.name!r}; record to another file"
                )
            self._cut_half_line()
        else:
            self._append(header)

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        answer = await completed(self.llm, prompt, **settings)
        request = _completion_request(prompt, settings)
        written: dict[str, Any] = {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage.to_dict(),
        }
        if answer.logprob is not None:
            written["logprob"] = answer.logprob
        await self._thread.run(self._append, {"request": request, "answer": written})
        return answer

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        try:
            scores = await scored(self.llm, pairs, terminator=terminator)
        except Exception as error:
            partial = take(error)  # what came back before it is recorded all the same
            await self._thread.run(
                self._append_scores, pairs, partial.logprobs, partial.usage, partial.method, terminator
            )
            attach(error, partial)
            raise
        logprobs = dict(enumerate(scores.logprobs))
        await self._thread.run(self._append_scores, pairs, logprobs, scores.usage, scores.method, terminator)
        return scores

    def _append_scores(
        self,
        pairs: Sequence[tuple[Prompt, str]],
        logprobs: Mapping[int, float],
        usage: Usage,
        method: str,
        terminator: str,
    ) -> None:
        for index, logprob in sorted(logprobs.items()):
            prompt, continuation = pairs[index]
            # The usage of the whole call stands with its first pair, so that sums over the file are right.
            written = {"logprob": logprob, "method": method, "usage": usage.to_dict()}
            self._append({"request": _score_request(prompt, continuation, terminator), "answer": written})
            usage = Usage()

    async def _count_tokens(self, text: str) -> int:
        tokens = await self.llm.count_tokens(text)
        answer = {"request": {"kind": "count", "text": text}, "answer": {"tokens": tokens}}
        await self._thread.run(self._append, answer)
        return tokens

    def _append(self, document: dict[str, Any]) -> None:
        line = json.dumps(document, ensure_ascii=False) + "\n"
        try:
            checked_path(self.path).parent.mkdir(parents=True, exist_ok=True)
            # One write of a whole line in append mode: two recorders do not mix within a line.
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, line.encode("utf-8"))
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageError(f"the recording {str(self.path)!r} cannot be written: {error.strerror}") from error

    def _cut_half_line(self) -> None:
        data = self.path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(self.path, data.rfind(b"\n") + 1)
            logger.info("cut an unfinished last line off %s", self.path)


class ReplayLLM(BaseLLM):
    """Answers from a recording; made by ``connect("replay:FILE")``.

    Its profile is that of the LLM recorded. A request that was not recorded
    raises LLMResponseError: nothing is made up and nobody is asked.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.path = Path(file)
        self._profile, self._answers = _read(self.path)

    @property
    def profile(self) -> Profile:
        return self._profile

    async def _complete(self, prompt: Prompt, **settings: Unpack[Settings]) -> Completion:
        answer = self._next(_completion_request(prompt, settings))
        usage, logprob = Usage(**answer["usage"]), known_logprob(answer.get("logprob"))
        recorded = Completion(str(answer["text"]), str(answer["finish_reason"]), usage, {}, logprob)
        # Version 0.1.0 recorded what was no answer, too: it is the same error now as from the LLM itself.
        return check(recorded, self._profile.name)

    async def _score(self, pairs: Sequence[tuple[Prompt, str]], *, terminator: str) -> Scores:
        answers = [self._next(_score_request(prompt, text, terminator)) for prompt, text in pairs]
        usage = Usage()
        for answer in answers:
            usage += Usage(**answer["usage"])
        return Scores(tuple(float(answer["logprob"]) for answer in answers), usage, str(answers[0]["method"]))

    async def _count_tokens(self, text: str) -> int:
        return int(self._next({"kind": "count", "text": text})["tokens"])

    def _next(self, request: dict[str, Any]) -> dict[str, Any]:
        answers = self._answers.get(_key(request))
        if not answers:
            shown = request.get("text") or request["prompt"][2]
            raise LLMResponseError(
                f"the recording {str(self.path)!r} has no answer to this {request['kind']!r} request, whose text ends "
                f"in {shown[-80:]!r}; prompt and settings must be exactly as recorded. icl_vision.llms.record records"
            )
        return answers.pop(0) if len(answers) > 1 else answers[0]


def _completion_request(prompt: Prompt, settings: Settings) -> dict[str, Any]:
    asked = [prompt.instruction, prompt.context, prompt.query]
    return {"kind": "complete", "prompt": asked, **document_of(settings)}


def _score_request(prompt: Prompt, continuation: str, terminator: str) -> dict[str, Any]:
    return {
        "kind": "score",
        "prompt": [prompt.instruction, prompt.context, prompt.query],
        "continuation": continuation,
        "terminator": terminator,
    }


def _key(request: dict[str, Any]) -> str:
    return json.dumps(request, sort_keys=True, ensure_ascii=False)


_ANSWER_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "complete": {"text": str, "finish_reason": str, "usage": dict},
    "score": {"logprob": (int, float), "method": str, "usage": dict},
    "count": {"tokens": int},
}


def _header(path: Path) -> dict[str, Any]:
    """The first line of a recording that could be read."""
    with path.open(encoding="utf-8") as handle:
        header: dict[str, Any] = json.loads(handle.readline())
    return header


def _profile(header: dict[str, Any]) -> Profile:
    """The profile in a recording's first line, whatever version wrote it: fields that are gone say nothing any more.

    Raises ValueError, KeyError or TypeError where it is none.
    """
    said = header["profile"]
    if not isinstance(said, dict):
        raise TypeError(f"its profile is {said!r:.80}")
    profile = Profile(**_said(said))
    for name, kind in typing.get_type_hints(Profile).items():
        value = getattr(profile, name)
        if not _is_of(value, kind):
            raise TypeError(f"its profile has {name} {value!r:.80}")
    return profile


def _said(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recorded profile that still mean what they meant when it was recorded."""
    gone = {_GONE, "logprobs"} if _GONE in profile else ()
    return {name: value for name, value in profile.items() if name not in gone}


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value is of a profile's field's type: str, int, bool, some words, or None beside these."""
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if parts := typing.get_args(kind):
        return any(_is_of(value, part) for part in parts)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _read(path: Path) -> tuple[Profile, dict[str, list[dict[str, Any]]]]:
    """The profile and the answers of a recording, by request."""
    try:
        text = read_text(path, most=MOST_WEIGHTS)
    except FileNotFoundError as error:
        raise StorageError(f"no recording at {str(path)!r}; make one with icl_vision.llms.record(llm, file)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"the recording {str(path)!r} cannot be read: {error}") from error
    lines = text.split("\n")
    lines.pop()  # after the last newline: nothing, or a line that a kill left unfinished
    try:
        header = loads(lines[0]) if lines else None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("its first line is not the header of a recording")
        if header.get("version") != VERSION:
            raise ValueError(f"it has version {header.get('version')!r}, this icl_vision reads version {VERSION}")
        profile = _profile(header)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{str(path)!r} is not a recording of ours: {error}") from error
    answers: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            document = loads(line, finite=False)
            request, answer = document["request"], document["answer"]
            for name, kind in _ANSWER_FIELDS[request["kind"]].items():
                if not isinstance(answer[name], kind):
                    raise ValueError(f"{name} is {answer[name]!r}")
            if "usage" in answer:
                Usage(**answer["usage"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"line {number} of the recording {str(path)!r} is damaged ({error}); remove it"
            ) from error
        answers.setdefault(_key(request), []).append(answer)
    return profile, answers

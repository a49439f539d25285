"""What a batch leaves on disk, so that a process killed at any moment finds it again and nothing is paid for twice.

A run folder (``icl_vision.files.runs``) with two more folders in it:

    journal.jsonl             a line for each step of each batch: intent, submitted, collected or failed
    requests/NAME.jsonl       what batch NAME asks: settings, then a line per request
    answers/NAME.jsonl        what came back: a line per request, an answer or an error

Order of writes around a submission: requests file, journal line "intent", submission, journal line
"submitted" with the provider's id. A kill between the last two leaves an intent: the batch is then looked
for at the provider before anything is submitted. After the batch has ended: answers file, then "collected".
Every file is fsynced before the line that speaks of it is written. A requests file that no line speaks of was written
just before a kill and never submitted; nothing looks at it.

Knows: files and steps. Refuses to know: providers, waiting, event loops. Holds no keys: they are in no request.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from icl_vision import errors
from icl_vision.contracts import Completion, Constraint, Usage
from icl_vision.errors import IclVisionError, LLMError, RunError
from icl_vision.files.runs import Run
from icl_vision.files.storage import atomic_path
from icl_vision.forks import ForkLock
from icl_vision.llms.answers import may_be_kept
from icl_vision.llms.scores import known_logprob

logger = logging.getLogger(__name__)

State = Literal["intent", "submitted", "collected", "failed"]
STATES = ("intent", "submitted", "collected", "failed")


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """How an answer is decoded: the keyword arguments of ``complete``."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    seed: int | None
    constraint: Constraint | None
    logprobs: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form. ``logprobs`` stands in it only where asked for: other keys are what they always were."""
        form = {
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "temperature": self.temperature,
            "seed": self.seed,
            "constraint": None if self.constraint is None else self.constraint.to_list(),
        }
        return form | {"logprobs": True} if self.logprobs else form

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RequestSettings:
        """The settings of ``to_dict``. Raises KeyError, TypeError or ValueError on anything else."""
        allowed = document["constraint"]
        return cls(
            document["max_tokens"],
            tuple(document["stop"]),
            document["temperature"],
            document["seed"],
            None if allowed is None else Constraint.from_list(allowed),
            bool(document.get("logprobs", False)),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One question. key: sha256 of model, prompt, settings, repeat index. body: as the provider's endpoint takes it."""

    key: str
    body: Mapping[str, Any]
    settings: RequestSettings


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that go to the provider together. ``id`` is the provider's, once it is known.

    at: Unix time of the last intent to submit it. marker: the provider's newest batch before the first intent, where a
    lost batch has to be looked for after it.
    """

    name: str
    count: int
    digest: str
    state: State | None = None
    id: str | None = None
    at: float = 0.0
    marker: str | None = None
    keys: tuple[str, ...] = ()

    def custom_id(self, key: str) -> str:
        """The request's name at the provider: 57 characters of its 64, unique to this batch."""
        return f"{self.name}-{key[:40]}"


@dataclass(frozen=True, slots=True)
class _Span:
    file: Path
    start: int
    length: int


class BatchFolder:
    """The folder of a ``BatchLLM``, open for writing. Methods may be called from any thread, one at a time.

    All of them touch files, so none belongs on an event loop but ``place_of``, ``batch_of``, ``all`` and ``keys``.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.path = run.folder
        self._lock = ForkLock()
        self._answers: dict[str, _Span] = {}
        self._errors: dict[str, _Span | IclVisionError] = {}
        self._batch_of: dict[str, Batch] = {}
        self._batches: dict[str, Batch] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], identity: str) -> BatchFolder:
        """Open, or make, the folder of the LLM that ``identity`` names. ``load`` comes next.

        Raises RunMismatchError (the folder is another LLM's), RunLockedError (another process has it), RunError.
        """
        return cls(Run.open(folder, "batch", {"llm": identity}, resume=True))

    def load(self) -> None:
        """Read what earlier processes left. Raises RunError where requests under way cannot be read back."""
        with self._lock:
            steps = [(self._batch(item, step), step) for item, step in self._run.results()]
            # In the order of submission: a request asked again after a failure is what the later batch says.
            for batch, step in sorted(steps, key=lambda entry: entry[0].at):
                self._load(batch, step)

    def _batch(self, item: str, step: Any) -> Batch:
        try:
            if step["state"] not in STATES:
                raise ValueError(f"unknown state {step['state']!r}")
            name, at = item.removeprefix("batch:"), float(step["at"])
            return Batch(name, step["count"], step["sha256"], step["state"], step["batch"], at, step["marker"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"the journal of {str(self.path)!r} holds a step, {item!r}, that cannot be read ({error!r}); was it "
                "written by another version?"
            ) from error

    def _load(self, batch: Batch, step: Mapping[str, Any]) -> None:
        self._batches[batch.name] = batch
        if batch.state == "collected":
            if self._scan(batch):
                return
            logger.warning("the answers of batch %s are missing or damaged; fetching them again", batch.id)
            batch.state = "submitted"
        try:
            batch.keys = tuple(request.key for request in self.requests(batch))
        except RunError as error:
            if batch.state != "failed":
                raise
            logger.warning("%s", error)
        if batch.state == "failed":
            self._errors.update(dict.fromkeys(batch.keys, _error_from(step["error"])))
        else:
            self._batch_of.update(dict.fromkeys(batch.keys, batch))

    def close(self) -> None:
        """Give the folder back."""
        self._run.close()

    # ---- steps ----

    def add(self, requests: Sequence[Request]) -> Batch:
        """A new batch with its requests file; nothing is journalled yet."""
        name = secrets.token_hex(8)
        known: dict[RequestSettings, int] = {}
        lines: list[str] = []
        for request in requests:
            if request.settings not in known:
                # Once per batch, not per request: a constraint may hold a whole vocabulary.
                known[request.settings] = len(known)
                lines.append(_line({"settings": request.settings.to_dict()}))
            lines.append(_line({"key": request.key, "body": dict(request.body), "with": known[request.settings]}))
        content = "".join(lines).encode()
        batch = Batch(name, len(requests), hashlib.sha256(content).hexdigest())
        batch.keys = tuple(request.key for request in requests)
        with self._lock:
            _write(self._requests_file(batch), content)
            self._batches[name] = batch
            self._batch_of.update(dict.fromkeys(batch.keys, batch))
        return batch

    def intend(self, batch: Batch, marker: str | None) -> None:
        """Journal that the batch is about to be submitted. The first marker stays."""
        if batch.state is None:
            batch.marker = marker
        batch.at = time.time()
        self._enter(batch, "intent")

    def submitted(self, batch: Batch, batch_id: str) -> None:
        """Journal that the provider has the batch."""
        batch.id = batch_id
        self._enter(batch, "submitted")

    def failed(self, batch: Batch, error: IclVisionError) -> None:
        """Journal that no request of the batch was, or will be, carried out: they are free to be asked again."""
        with self._lock:
            if batch.state is None:  # nothing is journalled, nothing was sent
                self._requests_file(batch).unlink(missing_ok=True)
                self._batches.pop(batch.name, None)
        if batch.state is not None:
            self._enter(batch, "failed", error=_error_document(error))
            self._errors.update(dict.fromkeys(batch.keys, error))
        self._forget(batch)

    def collected(self, batch: Batch, outcomes: Mapping[str, Completion | IclVisionError]) -> None:
        """Keep what came back. Errors are kept apart from answers, and their requests are free to be asked again."""
        target = self._answers_file(batch)
        lines = []
        for key, outcome in outcomes.items():
            if isinstance(outcome, Completion):
                lines.append(_line({"key": key, "answer": _answer_document(outcome)}))
            else:
                lines.append(_line({"key": key, "error": _error_document(outcome)}))
        with self._lock:
            _write(target, "".join(lines).encode())
            self._scan(batch)
        answers = sum(isinstance(outcome, Completion) for outcome in outcomes.values())
        self._enter(batch, "collected", answers=answers, errors=len(outcomes) - answers)
        self._forget(batch)

    # ---- reading ----

    def requests(self, batch: Batch) -> Iterator[Request]:
        """The batch's requests in their order. Raises RunError where the file is not the one that was written."""
        path = self._requests_file(batch)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._damaged(batch, f"cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != batch.digest:
            raise self._damaged(batch, "is not the file that was written")
        settings: list[RequestSettings] = []
        for raw in content.splitlines():
            line = json.loads(raw)
            if "settings" in line:
                settings.append(RequestSettings.from_dict(line["settings"]))
            else:
                yield Request(line["key"], line["body"], settings[line["with"]])

    def all(self) -> list[Batch]:
        """Every batch, in the order of submission; a copy, since others are added on other threads."""
        return list(self._batches.values())

    def batch_of(self, key: str) -> Batch | None:
        """The batch under way that holds this request."""
        return self._batch_of.get(key)

    def place_of(self, key: str) -> object | None:
        """Stands for the answer that is stored for a request, without reading it; another for a newer answer."""
        return self._answers.get(key)

    def answer(self, key: str) -> Completion | None:
        """The stored answer to a request, with what it cost."""
        span = self._answers.get(key)
        line = None if span is None else self._read(span)
        if line is None:
            return None
        answer = line["answer"]
        if not may_be_kept(answer["text"], answer["finish_reason"]):
            return None  # kept by version 0.1.0: nothing was answered, so it may be asked again
        usage, logprob = Usage(**answer["usage"]), known_logprob(answer.get("logprob"))
        return Completion(answer["text"], answer["finish_reason"], usage, answer["raw"], logprob)

    def error(self, key: str) -> IclVisionError | None:
        """How a request failed that has no answer."""
        span = self._errors.get(key)
        if isinstance(span, IclVisionError):
            return span
        line = None if span is None else self._read(span)
        return None if line is None else _error_from(line["error"])

    def keys(self) -> list[str]:
        """Every request of this folder that has an answer, an error, or is under way; in the order of submission."""
        keys: dict[str, None] = {}
        for batch in self.all():
            keys.update(dict.fromkeys(batch.keys))
        return list(keys)

    # ---- inside ----

    def _enter(self, batch: Batch, state: State, **more: Any) -> None:
        with self._lock:
            step = {
                "state": state,
                "count": batch.count,
                "sha256": batch.digest,
                "at": batch.at,
                "marker": batch.marker,
            }
            self._run.record(f"batch:{batch.name}", {**step, "batch": batch.id, **more})
            batch.state = state

    def _forget(self, batch: Batch) -> None:
        for key in batch.keys:
            if self._batch_of.get(key) is batch:
                del self._batch_of[key]

    def _scan(self, batch: Batch) -> bool:
        """Index a batch's answers file; whether it is whole."""
        path = self._answers_file(batch)
        answers: dict[str, _Span] = {}
        failures: dict[str, _Span] = {}
        keys: list[str] = []
        start = 0
        try:
            with path.open("rb") as handle:
                for raw in handle:
                    line = json.loads(raw)
                    (answers if "answer" in line else failures)[line["key"]] = _Span(path, start, len(raw))
                    keys.append(line["key"])
                    start += len(raw)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if len(answers) + len(failures) != batch.count:
            return False
        batch.keys = batch.keys or tuple(keys)
        self._answers.update(answers)
        # A request that failed may have been asked again since, or before.
        self._errors.update(failures)
        return True

    def _read(self, span: _Span) -> dict[str, Any] | None:
        try:
            with span.file.open("rb") as handle:
                handle.seek(span.start)
                line = json.loads(handle.read(span.length))
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read any more (%s)", span.file, error)
            return None
        return line if isinstance(line, dict) else None

    def _requests_file(self, batch: Batch) -> Path:
        return self.path / "requests" / f"{batch.name}.jsonl"

    def _answers_file(self, batch: Batch) -> Path:
        return self.path / "answers" / f"{batch.name}.jsonl"

    def _damaged(self, batch: Batch, what: str) -> RunError:
        return RunError(
            f"{str(self._requests_file(batch))!r}, the requests of batch {batch.id or batch.name}, {what}; restore it, "
            "or choose another folder (what is under way would then be paid for again)"
        )


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def _write(target: Path, content: bytes) -> None:
    """Write a file so that after this, and a power cut, it is there in full."""
    with atomic_path(target) as temporary, temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot sync a folder, and needs not
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _answer_document(answer: Completion) -> dict[str, Any]:
    document = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage.to_dict(),
        "raw": dict(answer.raw),
    }
    return document if answer.logprob is None else document | {"logprob": answer.logprob}


def _error_document(error: IclVisionError) -> dict[str, Any]:
    plain = {
        name: value for name, value in vars(error).items() if value is None or isinstance(value, str | int | float)
    }
    return {"type": type(error).__name__, "message": str(error), "fields": plain}


def _error_from(document: Mapping[str, Any]) -> IclVisionError:
    kind = getattr(errors, str(document["type"]), None)
    kind = kind if isinstance(kind, type) and issubclass(kind, IclVisionError) else LLMError
    return rebuilt(kind, str(document["message"]), document["fields"])


def rebuilt(kind: type[IclVisionError], message: str, fields: Mapping[str, Any]) -> IclVisionError:
    """An error of our tree with this message and these attributes, whatever its constructor takes."""
    error = kind.__new__(kind)
    error.args = (message,)
    error.__dict__.update(fields)
    return error
